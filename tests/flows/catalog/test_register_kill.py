"""Registering killed with `kill -9` after each of its durable writes: the next pass makes it one version.

Each commit of the store and each write to MLflow counts, in the order in which they are made.
"""

import multiprocessing
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import event

from flows.catalog.outcome import Result
from flows.catalog.scan import Watch, scan
from serving.core.clock import ManualClock
from serving.store import audit, model_files
from serving.store.database import open_engine
from serving.store.model_files import State
from tests.flows.catalog.prepared import Place, PreparedExaminer, means_of

pytestmark = pytest.mark.integration

# A server that forks: starting an interpreter takes longer than everything it is started for.
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload([__name__])
_END_SECONDS = 60.0
KILLED = -signal.SIGKILL
# Of an undisturbed registration; `test_writes_are_counted_right` keeps it right.
WRITES = 19


@dataclass
class Fuse:
    """Lets `writes` durable writes happen and kills the process at the next."""

    writes: int

    def burn(self, *_: Any) -> None:
        if self.writes == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.writes -= 1

    def burn_on_request(self, request: httpx.Request) -> None:
        if request.method not in ("GET", "HEAD"):
            self.burn()


def _pass(home: str, mlflow_url: str, writes: int) -> None:
    fuse, clock = Fuse(writes), ManualClock()
    engine = open_engine(f"sqlite:///{home}/signalbox.db")
    # Told of just before each commit, so whoever dies there has made all the writes before it.
    event.listen(engine, "commit", fuse.burn)
    hooks: dict[str, list[Any]] = {"request": [fuse.burn_on_request]}
    with httpx.Client(base_url=mlflow_url, trust_env=False, event_hooks=hooks) as client:
        means = means_of(Path(home), engine, client, PreparedExaminer(), clock)
        report = scan([Path(home) / "models"], means, Watch(1.0, clock.advance), engine)
    assert report.interrupted is None
    assert [one.result for one in report.outcomes] == [Result.REGISTERED]


def pass_and_die(place: Place, writes: int) -> int | None:
    """One pass in a process of its own; its exit code: 0 at its end, else that of `kill -9`."""
    arguments = (str(place.home), str(place.client.base_url), writes)
    process = _PROCESSES.Process(target=_pass, args=arguments, daemon=True)
    process.start()
    process.join(_END_SECONDS)
    assert process.exitcode is not None, "the pass hangs"
    return process.exitcode


def prepared(place: Place, name: str) -> None:
    """A model with everything that causes a write of its own."""
    place.put(f"{name}.onnx", "good")
    place.put(f"{name}.npz", "set")
    place.put(
        f"{name}.model.yaml",
        f"owner: me\ntraining_dataset: toy\nmetrics: {{accuracy: 0.5}}\nevaluation_set: {name}.npz\n",
    )


def left_in_mlflow(place: Place, name: str) -> tuple[int, int]:
    """Runs and logged models of the model's experiment that are not deleted."""

    def post(call: str) -> dict[str, Any]:
        found = place.client.get(
            "/api/2.0/mlflow/experiments/get-by-name", params={"experiment_name": name}
        ).json()
        body = {"experiment_ids": [found["experiment"]["experiment_id"]]}
        answer: dict[str, Any] = place.client.post(f"/api/2.0/mlflow/{call}", json=body).json()
        return answer

    runs, models = post("runs/search").get("runs", []), post("logged-models/search").get("models", [])
    assert {run["info"]["status"] for run in runs} == {"FINISHED"}
    assert {model["info"]["status"] for model in models} == {"LOGGED_MODEL_READY"}
    return len(runs), len(models)


@pytest.mark.parametrize("writes", range(WRITES))
def test_file_becomes_one_version_when_the_first_pass_was_killed(
    place: Place, name: str, writes: int
) -> None:
    """No second version, no run that seems to go on, no half-uploaded model; one audit row of one end."""
    prepared(place, name)
    assert pass_and_die(place, writes) == KILLED
    place.clock.advance(3600)
    report = place.scan()
    assert report.interrupted is None
    assert {one.result for one in report.outcomes} <= {Result.REGISTERED}
    [version] = place.registry.versions(name)
    assert version.ref.version == "1"
    [file] = model_files.known(place.engine).values()
    assert (file.state, file.version, file.attempt) == (State.REGISTERED, "1", None)
    assert left_in_mlflow(place, name) == (1, 1)
    rows = [row.entry for row in audit.tail(place.engine, action="register")]
    assert [row.details["result"] for row in rows] == ["registered"]
    assert place.scan().outcomes == []


def test_writes_are_counted_right(place: Place, name: str) -> None:
    """One write less than a whole pass makes is killed, the whole pass is not."""
    prepared(place, name)
    assert pass_and_die(place, WRITES) == 0
    [version] = place.registry.versions(name)
    assert version.ref.version == "1"
