"""Runs of the flows as the demonstration follows them: found, started, watched, with the artifacts they left.

Reads Prefect's HTTP API; nothing here decides anything about a promotion.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import httpx

from flows.cli.errors import CommandFailed
from flows.cli.orchestration import Orchestration
from flows.cli.waiting import wait_until

_FINAL = frozenset({"COMPLETED", "FAILED", "CRASHED", "CANCELLED"})


@dataclass(frozen=True, slots=True)
class FlowRun:
    """A run as Prefect records it. `started_at` is when its process began, None before that."""

    id: str
    name: str
    kind: str
    state: str
    message: str
    started_at: datetime | None

    @property
    def is_final(self) -> bool:
        return self.kind in _FINAL


class FlowRuns:
    """Asks one Prefect API. Failures leave as `httpx.HTTPError`."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def start(self, deployment: str, parameters: Mapping[str, Any]) -> str:
        """Create a run of `flow/deployment`, as Prefect's own UI does; its id."""
        return Orchestration(self._client).start_run(deployment, parameters)

    def get(self, run: str) -> FlowRun:
        return read_run(self._answer("GET", f"/flow_runs/{run}"))

    def find(self, flow: str, parameters: Mapping[str, str], since: datetime) -> FlowRun | None:
        """The first run of a flow with these parameters that was due after `since`."""
        asked = {
            "flows": {"name": {"any_": [flow]}},
            "flow_runs": {"expected_start_time": {"after_": since.isoformat()}},
            "sort": "EXPECTED_START_TIME_ASC",
        }
        found = self._answer("POST", "/flow_runs/filter", asked)
        return next((read_run(run) for run in found if has_parameters(run, parameters)), None)

    def artifact_keys(self, run: str) -> list[str]:
        """Under which keys the run left artifacts."""
        asked = {"artifacts": {"flow_run_id": {"any_": [run]}}, "sort": "KEY_ASC"}
        return [str(each["key"]) for each in self._answer("POST", "/artifacts/filter", asked)]

    def follow(self, run: str, within_seconds: float, tell: Callable[[str], None]) -> FlowRun:
        """The run at its end, its state told meanwhile. Raises `CommandFailed` when that takes longer."""
        last = self.get(run)

        def ended() -> bool:
            nonlocal last
            last = self.get(run)
            tell(f"run {last.name}: {last.state.lower()}")
            return last.is_final

        if not wait_until(ended, within_seconds):
            problem = f"run {last.name} was still {last.state.lower()} after {within_seconds:.0f} s"
            raise CommandFailed(problem, next_step=f"look for run {run} in Prefect")
        return last

    def _answer(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        return self._client.request(method, path, json=body).raise_for_status().json()


def read_run(found: Mapping[str, Any]) -> FlowRun:
    state = found.get("state") or {}
    started = found.get("start_time")
    return FlowRun(
        id=str(found["id"]),
        name=str(found["name"]),
        kind=str(state.get("type", "")),
        state=str(state.get("name", "")),
        message=str(state.get("message") or ""),
        started_at=datetime.fromisoformat(str(started).replace("Z", "+00:00")) if started else None,
    )


def has_parameters(found: Mapping[str, Any], wanted: Mapping[str, str]) -> bool:
    """Whether a run was asked for these; those of an event are text, those of a person may be numbers."""
    given = found.get("parameters") or {}
    return all(str(given.get(name)) == value for name, value in wanted.items())
