"""Prefect's HTTP API as the commands use it: deployments, runs, workers. Knows nothing of Prefect's client.

Every failure leaves as one `CommandFailed` whose sentence names the API and the next step.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import httpx

from flows.cli.errors import CommandFailed, Unreachable
from flows.settings import FlowSettings
from serving.store.orchestrator import connect

POOL = "signalbox"
_PAGE = 200
# States of a run that has a process, or is about to get one.
_BEGUN = ("PENDING", "RUNNING", "CANCELLING")
# On SQLite, Prefect answers 503 while others write; nothing was done then, so asking again is safe.
_BUSY_PAUSES_SECONDS = (0.2, 0.5, 1.0)


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker of the pool; `beat_at` is the server's time of its last sign of life."""

    name: str
    online: bool
    beat_at: datetime | None


@dataclass(frozen=True, slots=True)
class Pool:
    kind: str
    paused: bool


class Orchestration:
    """Calls one Prefect API."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def pool(self) -> Pool | None:
        found = self._ask("POST", "/work_pools/filter", {"work_pools": {"name": {"any_": [POOL]}}})
        return next((Pool(str(pool["type"]), bool(pool["is_paused"])) for pool in found), None)

    def workers(self) -> list[Worker]:
        """The pool's workers; none where there is no pool yet."""
        if self.pool() is None:
            return []
        return [_worker(found) for found in self._ask("POST", f"/work_pools/{POOL}/workers/filter", {})]

    def deployment_ids(self) -> dict[str, str]:
        """Ids of the pool's deployments by name."""
        asked = {"work_pools": {"name": {"any_": [POOL]}}, "limit": _PAGE}
        found = self._ask("POST", "/deployments/filter", asked)
        return {str(each["name"]): str(each["id"]) for each in found}

    def automation_ids(self, deployment_ids: set[str]) -> list[str]:
        """Ids of the automations that run any of these deployments."""
        found = self._ask("POST", "/automations/filter", {"limit": _PAGE})
        return sorted(str(each["id"]) for each in found if _targets(each) & deployment_ids)

    def start_run(self, deployment: str, parameters: Mapping[str, Any]) -> str:
        """Create a run of `flow/deployment`; its id. Raises `CommandFailed` for an unknown deployment."""
        found = self._ask("GET", f"/deployments/name/{deployment}")
        path = f"/deployments/{found['id']}/create_flow_run"
        run = self._ask("POST", path, {"parameters": dict(parameters)})
        return str(run["id"])

    def post_event(self, event: Mapping[str, Any]) -> None:
        """Tell Prefect of something, which may start what waits for it."""
        self._ask("POST", "/events", [event])

    def begun_runs(self) -> list[str]:
        """Ids of the pool's runs that Prefect believes to have a process."""
        asked = {
            "work_pools": {"name": {"any_": [POOL]}},
            "flow_runs": {"state": {"type": {"any_": list(_BEGUN)}}},
            "limit": _PAGE,
        }
        return [str(run["id"]) for run in self._ask("POST", "/flow_runs/filter", asked)]

    def declare_crashed(self, run: str, message: str) -> None:
        state = {"type": "CRASHED", "name": "Crashed", "message": message}
        # Not forced: only an orchestrated end frees the slots that the run holds.
        self._ask("POST", f"/flow_runs/{run}/set_state", {"state": state})

    def _ask(
        self, method: str, path: str, body: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None
    ) -> Any:
        url = str(self._client.base_url).rstrip("/")
        try:
            answer = self._client.request(method, path, json=body)
            for pause_seconds in _BUSY_PAUSES_SECONDS:
                if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                    break
                time.sleep(pause_seconds)
                answer = self._client.request(method, path, json=body)
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            step = "start it with 'signalbox up', or correct SIGNALBOX_PREFECT_API_URL"
            raise Unreachable(url, f"Prefect: {reason}", next_step=step) from None
        if answer.is_success:
            return answer.json() if answer.content else None
        raise _refused(url, path, answer)


@contextmanager
def orchestration(settings: FlowSettings) -> Iterator[Orchestration]:
    with connect(settings) as client:
        yield Orchestration(client)


def _worker(found: Mapping[str, Any]) -> Worker:
    beat = found.get("last_heartbeat_time")
    return Worker(
        name=str(found["name"]),
        online=found.get("status") == "ONLINE",
        beat_at=datetime.fromisoformat(str(beat).replace("Z", "+00:00")) if beat else None,
    )


def _targets(automation: Mapping[str, Any]) -> set[str]:
    return {str(action.get("deployment_id")) for action in automation.get("actions") or []}


def _refused(url: str, path: str, answer: httpx.Response) -> CommandFailed:
    if answer.status_code in (401, 403):
        step = "set SIGNALBOX_PREFECT_API_KEY or SIGNALBOX_PREFECT_API_AUTH_STRING"
        return CommandFailed(f"Prefect at {url} refuses our credentials", next_step=step)
    if answer.status_code == 404 and path.startswith("/deployments/name/"):
        name = path.removeprefix("/deployments/name/")
        return CommandFailed(f"Prefect at {url} has no deployment {name}", next_step="run 'signalbox up'")
    said = " ".join(answer.text.split())[:200]
    return CommandFailed(f"Prefect at {url} answered {answer.status_code} to {path}: {said}")
