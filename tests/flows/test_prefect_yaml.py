"""prefect.yaml without a server: what it names exists, and nothing in it would be ignored in silence."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FILE: dict[str, Any] = yaml.safe_load((ROOT / "prefect.yaml").read_text())
DEPLOYMENTS: dict[str, dict[str, Any]] = {entry["name"]: entry for entry in FILE["deployments"]}
ONCE = {"limit": 1, "collision_strategy": "CANCEL_NEW", "grace_period_seconds": 60}

# In a process of its own: what Prefect does when it is imported is no concern of the other tests.
_PROGRAM = """
import json, sys
from prefect.cli.deploy._models import DeploymentConfig
from prefect.events.schemas.deployment_triggers import DeploymentEventTrigger
from prefect.flows import Flow
from prefect.utilities.callables import parameter_schema
from prefect.utilities.importtools import import_object

def keys(model):
    return sorted({*model.model_fields, *(f.alias for f in model.model_fields.values() if f.alias)})

flows = {name: import_object(name) for name in sys.argv[1:]}
assert all(isinstance(flow, Flow) for flow in flows.values())
print(json.dumps({
    "trigger_keys": keys(DeploymentEventTrigger),
    "deployment_keys": keys(DeploymentConfig),
    "names": {name: flow.name for name, flow in flows.items()},
    "parameters": {name: parameter_schema(flow).model_dump()["properties"] for name, flow in flows.items()},
}))
"""


def _triggers() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, deployment in DEPLOYMENTS.items():
        for trigger in deployment.get("triggers", []):
            yield name, trigger


@pytest.fixture(scope="module")
def known() -> dict[str, Any]:
    """What Prefect and our flows know, as an imported Prefect tells."""
    entrypoints = [deployment["entrypoint"] for deployment in DEPLOYMENTS.values()]
    run = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *entrypoints],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    facts: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return facts


def test_entrypoints_name_their_flows_when_imported(known: dict[str, Any]) -> None:
    """Each is a dotted name of a flow that is called as its deployment is."""
    assert {name: known["names"][entry["entrypoint"]] for name, entry in DEPLOYMENTS.items()} == {
        name: name for name in DEPLOYMENTS
    }


def test_flows_are_deployed_when_they_exist() -> None:
    """A flow that nobody deploys cannot be started from Prefect."""
    found = {f"flows.{path.stem}" for path in (ROOT / "flows").glob("*.py") if "\n@flow" in path.read_text()}
    assert {entry["entrypoint"].rpartition(".")[0] for entry in DEPLOYMENTS.values()} == found


def test_file_names_no_path_when_read() -> None:
    """Deployments work from wherever the package is installed."""
    assert FILE["pull"] == FILE["build"] == FILE["push"] == []
    offences = [
        name
        for name, entry in DEPLOYMENTS.items()
        if "/" in entry["entrypoint"]
        or entry["entrypoint"].endswith(".py")
        or entry["work_pool"]["job_variables"]["working_dir"] != "."
    ]
    assert offences == []


def test_keys_are_known_when_compared_with_prefect(known: dict[str, Any]) -> None:
    """Prefect ignores a misspelt key without a word."""
    unknown = {name: sorted(entry.keys() - known["deployment_keys"]) for name, entry in DEPLOYMENTS.items()}
    assert not any(unknown.values()), unknown
    unknown = {name: sorted(trigger.keys() - known["trigger_keys"]) for name, trigger in _triggers()}
    assert not any(unknown.values()), unknown


def test_trigger_parameters_take_text_when_compared_with_flows(known: dict[str, Any]) -> None:
    """An event's values arrive as text; what a flow does not take, the action would fail on in silence."""
    offences = []
    for name, trigger in _triggers():
        taken = known["parameters"][DEPLOYMENTS[name]["entrypoint"]]
        for parameter in trigger["parameters"]:
            schema = taken.get(parameter, {})
            kinds = {kind.get("type") for kind in schema.get("anyOf", [schema])}
            offences += [] if "string" in kinds else [f"{name}: {parameter} takes {kinds}"]
    assert offences == []


def test_event_times_are_rendered_as_text_when_passed() -> None:
    """Prefect renders a lone value as JSON; a time has none, and the run would not be created."""
    bare = ("event.occurred", "event.received")
    offences = [
        f"{name}: {parameter}"
        for name, trigger in _triggers()
        for parameter, template in trigger["parameters"].items()
        if template.strip("{} ") in bare
    ]
    assert offences == []


def test_scheduled_deployments_run_once_at_a_time_when_late() -> None:
    """A run that outlives its interval does not pile up; one that was killed frees its slot in a minute."""
    scheduled = {name: entry for name, entry in DEPLOYMENTS.items() if entry.get("schedules")}
    assert {"tend", "detect-drift"} <= scheduled.keys()
    assert {name: entry.get("concurrency_limit") for name, entry in scheduled.items()} == dict.fromkeys(
        scheduled, ONCE
    )


def test_promotions_are_never_cancelled_when_several_run() -> None:
    """The open rollout in the store keeps them apart; Prefect must not drop a request."""
    assert "concurrency_limit" not in DEPLOYMENTS["promote-model"]
