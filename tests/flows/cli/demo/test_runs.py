"""What the demonstration reads of Prefect's runs."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from flows.cli.demo.runs import FlowRuns, has_parameters, read_run
from flows.cli.errors import CommandFailed

STARTED = "2026-01-02T03:04:05.600000Z"


def recorded(kind: str, name: str, **different: Any) -> dict[str, Any]:
    fields = {
        "id": "run-1",
        "name": "promote digits 2",
        "start_time": STARTED,
        "parameters": {"model": "digits", "version": "2"},
        "state": {"type": kind, "name": name, "message": "version 1 before"},
    }
    return fields | different


def prefect(answer: Callable[[httpx.Request], Any]) -> FlowRuns:
    """Runs of an API that answers as told."""
    transport = httpx.MockTransport(lambda request: httpx.Response(200, json=answer(request)))
    return FlowRuns(httpx.Client(base_url="http://prefect/api", transport=transport))


def test_run_is_read_when_it_has_ended() -> None:
    """Its own name for the end counts, not only Prefect's kind of it."""
    run = read_run(recorded("FAILED", "Refused"))
    assert (run.state, run.message, run.is_final) == ("Refused", "version 1 before", True)
    assert run.started_at == datetime(2026, 1, 2, 3, 4, 5, 600000, tzinfo=UTC)


def test_run_is_not_final_when_its_process_has_not_begun() -> None:
    """A run that waits for a worker has neither a start nor an end; one just created has no state."""
    assert not read_run(recorded("PENDING", "Pending")).is_final
    fresh = read_run(recorded("", "", state=None, start_time=None))
    assert (fresh.is_final, fresh.started_at) == (False, None)


@pytest.mark.parametrize(
    ("version", "found"),
    [
        pytest.param("2", True, id="text of an event"),
        pytest.param(2, True, id="number of a person"),
        pytest.param("5", False, id="another version"),
        pytest.param(None, False, id="no version"),
    ],
)
def test_run_is_recognised_when_its_parameters_are_those(version: object, found: bool) -> None:
    """Several promotions run in one story."""
    run = recorded("RUNNING", "Running", parameters={"model": "digits", "version": version})
    assert has_parameters(run, {"model": "digits", "version": "2"}) is found


def test_search_takes_the_first_run_when_several_are_alike() -> None:
    """The one that the alias caused; a later one only joins it."""
    since = datetime(2026, 1, 2, tzinfo=UTC)

    def answer(request: httpx.Request) -> Any:
        asked = json.loads(request.content)
        assert asked["flow_runs"]["expected_start_time"]["after_"] == since.isoformat()
        other = recorded("COMPLETED", "Promoted", id="run-0", parameters={"model": "digits", "version": "5"})
        return [other, recorded("RUNNING", "Running"), recorded("RUNNING", "Running", id="run-2")]

    runs = prefect(answer)
    wanted = runs.find("promote-model", {"model": "digits", "version": "2"}, since)
    assert wanted is not None
    assert wanted.id == "run-1"
    assert runs.find("promote-model", {"model": "digits", "version": "4"}, since) is None


def test_run_is_followed_to_its_end_when_it_has_one() -> None:
    """Each state on the way is told."""
    states = [("PENDING", "Pending"), ("RUNNING", "Running"), ("COMPLETED", "Promoted")]
    told: list[str] = []
    runs = prefect(lambda request: recorded(*(states.pop(0) if len(states) > 1 else states[0])))
    assert runs.follow("run-1", 30.0, told.append).state == "Promoted"
    assert told[-1] == "run promote digits 2: promoted"


def test_following_ends_in_a_sentence_when_the_run_does_not() -> None:
    """A worker that is gone must not hang the story."""
    runs = prefect(lambda request: recorded("RUNNING", "Running"))
    with pytest.raises(CommandFailed, match="run promote digits 2 was still running after 0 s"):
        runs.follow("run-1", 0.0, lambda line: None)
