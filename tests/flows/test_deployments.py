"""The deployments on a real Prefect server and worker: read back, triggered, scheduled, run."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml

from flows.check_health import EVENT as CRITICAL_HEALTH
from flows.check_health import critical_event
from flows.cli.home import Home
from flows.cli.orchestration import orchestration
from flows.cli.worker import declare_abandoned, worker_is_ready, worker_name
from serving.announce import ALERT_EVENT, EVENT, alert_event, challenger_event
from serving.store.outbox import Notice, Severity
from tests.prefect_server import ROOT, PrefectServer
from tests.waiting import until

pytestmark = pytest.mark.integration

FILE: dict[str, Any] = yaml.safe_load((ROOT / "prefect.yaml").read_text())
DEPLOYMENTS: dict[str, dict[str, Any]] = {entry["name"]: entry for entry in FILE["deployments"]}
TRIGGERS = [(name, trigger) for name, entry in DEPLOYMENTS.items() for trigger in entry.get("triggers", [])]
# A run's first line follows an event in 5 s on an idle machine; tests share theirs.
START_SECONDS = 45.0


def _deployed(prefect: PrefectServer) -> dict[str, dict[str, Any]]:
    return {found["name"]: found for found in prefect.post("/deployments/filter", {"limit": 200})}


def _fire(prefect: PrefectServer, event: dict[str, Any]) -> None:
    prefect.post("/events", [event])


def test_deployments_are_those_of_the_file_when_read_back(prefect_server: PrefectServer) -> None:
    """All of them, from the installed package, with no path of this machine in any."""
    deployed = _deployed(prefect_server)
    assert deployed.keys() == DEPLOYMENTS.keys()
    for name, wanted in DEPLOYMENTS.items():
        found = deployed[name]
        assert found["entrypoint"] == wanted["entrypoint"]
        assert not found["pull_steps"]
        assert found["work_pool_name"] == "signalbox"
        assert found["job_variables"] == wanted["work_pool"]["job_variables"]
        assert [schedule["slug"] for schedule in found["schedules"]] == [
            schedule["slug"] for schedule in wanted.get("schedules", [])
        ]
        text = json.dumps(found)
        assert str(ROOT) not in text
        assert str(prefect_server.home) not in text
        assert str(Path.home()) not in text


def test_limits_are_those_of_the_file_when_read_back(prefect_server: PrefectServer) -> None:
    """Scheduled flows run one at a time, and a new run gives way."""
    deployed = _deployed(prefect_server)
    for name, wanted in DEPLOYMENTS.items():
        limit = wanted.get("concurrency_limit")
        found = deployed[name]["global_concurrency_limit"]
        assert (found["limit"] if found else None) == (limit["limit"] if limit else None)
        options = deployed[name]["concurrency_options"] or {}
        assert options.get("collision_strategy") == (limit["collision_strategy"] if limit else None)


@pytest.mark.parametrize(
    ("deployment", "trigger"), TRIGGERS, ids=[trigger["name"] for _, trigger in TRIGGERS]
)
def test_trigger_is_that_of_the_file_when_read_back(
    prefect_server: PrefectServer, deployment: str, trigger: dict[str, Any]
) -> None:
    """No key was dropped on the way to the server, and the action starts the right deployment."""
    identity = _deployed(prefect_server)[deployment]["id"]
    automations = prefect_server.post("/automations/filter", {})
    [found] = [each for each in automations if each["name"] == trigger["name"]]
    assert found["enabled"] is trigger["enabled"]
    for key in trigger.keys() - {"name", "enabled", "parameters"}:
        assert found["trigger"][key] == trigger[key], key
    [action] = found["actions"]
    assert action["type"] == "run-deployment"
    assert action["deployment_id"] == identity
    assert (action["parameters"] or {}) == trigger["parameters"]


def test_every_trigger_waits_for_an_event_that_is_posted() -> None:
    """A trigger for anything else would never fire; those below fire each of these."""
    expected = {event for _, trigger in TRIGGERS for event in trigger["expect"]}
    assert expected == {EVENT, ALERT_EVENT, CRITICAL_HEALTH}


def test_critical_health_starts_the_way_back_when_its_event_is_posted(prefect_server: PrefectServer) -> None:
    """With the event's values as its parameters; a model that is gone is refused."""
    event = critical_event("flow-sick", "3", "accuracy 0.1")
    told = {**event, "id": str(uuid4()), "occurred": datetime.now(UTC).isoformat()}
    _fire(prefect_server, told)
    run = prefect_server.ended("roll-back-model", START_SECONDS, model="flow-sick")
    given = {"failing": "3", "reason": "accuracy 0.1", "strategy": "instant"}
    assert given.items() <= run["parameters"].items()
    assert (run["state_type"], run["state_name"]) == ("FAILED", "Refused")
    assert "flow-sick" in run["state"]["message"]


def test_critical_notice_starts_its_delivery_when_its_event_is_posted(prefect_server: PrefectServer) -> None:
    """People hear of it within seconds, not at the next minute."""
    notice = Notice(kind="k", severity=Severity.CRITICAL, title="t", model="flow-loud", dedup_key="d")
    _fire(prefect_server, alert_event(notice, datetime.now(UTC)))
    assert prefect_server.ended("process-alerts", START_SECONDS)["state_type"] == "COMPLETED"


def test_challenger_starts_its_promotion_when_its_event_is_posted(prefect_server: PrefectServer) -> None:
    """The event as serving posts it becomes a run with the event's values as its parameters."""
    now = datetime.now(UTC)
    _fire(prefect_server, challenger_event("flow-unheard-of", "7", now))
    run = prefect_server.ended("promote-model", START_SECONDS, model="flow-unheard-of")
    given = {"model": "flow-unheard-of", "version": "7", "requested_by": "alias challenger"}
    assert given.items() <= run["parameters"].items()
    assert datetime.fromisoformat(run["parameters"]["asked_at"]) == now
    assert run["state_name"] == "Refused"
    assert "'flow-unheard-of'" in run["state"]["message"]


def test_trigger_stays_quiet_when_the_event_is_another(prefect_server: PrefectServer) -> None:
    """Another event of the same model, or the same event of something else, starts nothing."""
    event = challenger_event("flow-quiet", "1", datetime.now(UTC))
    _fire(prefect_server, event | {"event": "signalbox.challenger.moved"})
    elsewhere = {"prefect.resource.id": "elsewhere.model.flow-quiet", "prefect.resource.name": "flow-quiet"}
    _fire(prefect_server, challenger_event("flow-quiet", "1", datetime.now(UTC)) | {"resource": elsewhere})
    _fire(prefect_server, challenger_event("flow-loud", "1", datetime.now(UTC)))
    until(
        lambda: prefect_server.runs("promote-model", model="flow-loud"),
        "the event after them had its run",
        seconds=START_SECONDS,
        context=prefect_server.explain,
    )
    assert prefect_server.runs("promote-model", model="flow-quiet") == []


@pytest.mark.parametrize(
    "deployment", [name for name, entry in DEPLOYMENTS.items() if entry.get("schedules")]
)
def test_runs_are_scheduled_when_a_schedule_says_so(prefect_server: PrefectServer, deployment: str) -> None:
    """The server writes runs ahead, which it does not with every version of its database library."""
    until(
        lambda: prefect_server.runs(deployment),
        f"{deployment} has runs ahead",
        seconds=START_SECONDS,
        context=prefect_server.explain,
    )


def test_run_is_refused_in_a_sentence_when_the_model_is_unknown(prefect_server: PrefectServer) -> None:
    """From Prefect's own command line: failed, naming what exists, with the report as an artifact."""
    command = ("deployment", "run", "promote-model/promote-model", "-p", "model=flow-nope", "-p", "version=2")
    asked = prefect_server.command(*command)
    assert asked.returncode == 0, asked.stderr
    run = prefect_server.ended("promote-model", model="flow-nope")
    assert (run["state_type"], run["state_name"]) == ("FAILED", "Refused")
    message = run["state"]["message"]
    assert "no version 2 of 'flow-nope'" in message
    assert "registered are" in message
    [artifact] = prefect_server.artifacts("promotion-flow-nope")
    assert artifact["type"] == "markdown"
    assert artifact["flow_run_id"] == run["id"]
    assert message in artifact["data"]


def test_deployments_are_left_alone_when_nothing_changed(prefect_server: PrefectServer) -> None:
    """A second `up` costs a few requests; the same deployments and automations stay."""
    with orchestration(prefect_server.settings) as prefect:
        before = prefect.deployment_ids()
        automations = prefect.automation_ids(set(before.values()))
        written = (Home(prefect_server.home).run / "deployments.json").stat().st_mtime_ns
        prefect_server.deploy()
        assert prefect.deployment_ids() == before
        assert prefect.automation_ids(set(before.values())) == automations
    assert (Home(prefect_server.home).run / "deployments.json").stat().st_mtime_ns == written


@pytest.mark.slow
def test_tend_completes_when_its_minute_comes(prefect_server: PrefectServer) -> None:
    """A scheduled run is carried out by the worker, and says what it did."""

    def completed() -> list[dict[str, Any]]:
        runs = prefect_server.runs("tend")
        return [run for run in runs if run["auto_scheduled"] and run["state_type"] == "COMPLETED"]

    until(completed, "a scheduled run of tend completed", seconds=120, context=prefect_server.explain)
    assert completed()[0]["state"]["message"]


def test_deployments_come_back_when_one_was_deleted(prefect_server: PrefectServer) -> None:
    """What somebody deleted in Prefect is there again after the next `up`."""
    identity = _deployed(prefect_server)["process-alerts"]["id"]
    prefect_server.call("DELETE", f"/deployments/{identity}")
    prefect_server.deploy()
    assert _deployed(prefect_server).keys() == DEPLOYMENTS.keys()


def test_abandoned_run_is_declared_crashed_when_its_worker_is_gone(prefect_server: PrefectServer) -> None:
    """Without that it would show as running for ever."""
    settings = prefect_server.settings
    identity = _deployed(prefect_server)["reconcile"]["id"]
    run = prefect_server.post(f"/deployments/{identity}/create_flow_run", {"state": {"type": "PENDING"}})
    prefect_server.post(f"/flow_runs/{run['id']}/set_state", {"state": {"type": "RUNNING"}})
    assert declare_abandoned(settings, "another worker") == 0, "our worker is alive and may have it"
    assert declare_abandoned(settings, worker_name(settings)) >= 1
    assert prefect_server.call("GET", f"/flow_runs/{run['id']}")["state_type"] == "CRASHED"


def test_work_goes_on_when_worker_and_server_were_killed(prefect_server: PrefectServer) -> None:
    """After `kill -9` of both and a restart as the supervisor makes it, an event starts a run again."""
    prefect_server.kill_part("worker")
    prefect_server.kill_part("prefect")
    assert not worker_is_ready(prefect_server.settings)
    for name in ("prefect", "worker"):
        prefect_server.start_part(name)
    _fire(prefect_server, challenger_event("flow-afterwards", "1", datetime.now(UTC)))
    run = prefect_server.ended("promote-model", model="flow-afterwards")
    assert run["state_name"] == "Refused"
