"""What the acts work with: the stack, the traffic, the registry as its UI writes it, and what was measured.

Invariant: `periods` says at every moment which version has to answer, as far as that is settled.
"""

import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from flows.cli.client import ServingClient
from flows.cli.demo.live import LiveTraffic
from flows.cli.demo.periods import Periods
from flows.cli.demo.playbill import Playbill
from flows.cli.demo.records import Record
from flows.cli.demo.runs import FlowRuns
from flows.cli.demo.settings import MODEL
from flows.cli.demo.slack_receiver import SlackReceiver
from flows.cli.demo.verdict import Gap, first_answer
from flows.cli.errors import CommandFailed
from flows.cli.home import Home
from flows.cli.sessions import is_alive, read_leader
from flows.cli.waiting import wait_until
from flows.settings import FlowSettings
from serving.core.model import Alias, VersionRef
from serving.store.registry import Registry

# What MLflow's user interface calls when somebody edits the aliases of a version.
_ALIAS_PATH = "/ajax-api/2.0/mlflow/registered-models/alias"
_FILES_PATH = "/ajax-api/2.0/mlflow/artifacts/list"


@dataclass(frozen=True, slots=True)
class Promoted:
    """A promotion by Prefect; seconds from the alias `challenger` on, to the first answer as champion.

    `shares` tells what callers saw of the version at each stage.
    """

    run_started_seconds: float
    answered_seconds: float
    ended_seconds: float
    shares: str


@dataclass(frozen=True, slots=True)
class Concluded:
    """How a rollout ended; `seconds` from the alias on, `run` the flow run's id."""

    version: str
    rollout: str
    run: str
    verdict: str
    reason: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Drifted:
    """How many of the compared columns a drift check found changed."""

    run: str
    drifted: int
    columns: int


@dataclass(slots=True)
class Measured:
    """What the final table shows, filled act by act."""

    swap_seconds: list[float] = field(default_factory=list)
    rolled_back_seconds: float | None = None
    alias_back_seconds: float | None = None
    promoted: Promoted | None = None
    concluded: list[Concluded] = field(default_factory=list)
    drifted: Drifted | None = None
    slack_messages: int | None = None
    mlflow_back_seconds: float | None = None
    serving_back_seconds: float | None = None
    audit_rows: int | None = None


@dataclass(frozen=True, slots=True)
class Servers:
    """Who is talked to."""

    mlflow: httpx.Client
    serving: ServingClient
    runs: FlowRuns
    slack: SlackReceiver


class Stage:
    """One demonstration while its traffic flows."""

    def __init__(
        self, settings: FlowSettings, traffic: LiveTraffic, servers: Servers, playbill: Playbill
    ) -> None:
        self.settings = settings
        self.home = Home(settings.home)
        self.traffic = traffic
        self.tell = playbill.tell
        self.announce = playbill.announce
        self.measured = Measured()
        self.periods = Periods()
        self.gaps: list[Gap] = []
        self.runs = servers.runs
        self.slack = servers.slack
        self._mlflow = servers.mlflow
        self._serving = servers.serving
        self._registry = Registry(servers.mlflow, settings.serves)

    def wait(self, holds: Callable[[], bool], within_seconds: float, otherwise: str) -> None:
        """Raises `CommandFailed` with `otherwise` when `holds` does not come true in time."""
        if not wait_until(holds, within_seconds):
            problem = f"{otherwise} within {within_seconds:.0f} s"
            raise CommandFailed(problem, next_step=f"the logs are in {self.home.logs}")

    def wait_for_answers(self, count: int, since: float, within_seconds: float) -> list[Record]:
        """The requests started since, once so many of them were answered."""

        def enough() -> bool:
            return sum(record.is_answered for record in self.traffic.since(since)) >= count

        self.wait(enough, within_seconds, f"serving did not answer {count} requests")
        return self.traffic.since(since)

    def first_answer(self, version: str, since: float, within_seconds: float) -> Record:
        """The first own answer of `version`, from which on it has to answer."""
        self.wait(
            lambda: first_answer(self.traffic.since(since), version, since) is not None,
            within_seconds,
            f"version {version} did not answer",
        )
        first = first_answer(self.traffic.since(since), version, since)
        assert first is not None
        self.periods.settle(version, first.ended)
        return first

    def inverted_rows(self, since: float) -> int:
        """How many inverted digits were answered: only they travel several to a request."""
        return sum(record.rows for record in self.traffic.since(since) if record.rows > 1 and record.matches)

    def write_alias(self, version: str) -> float:
        """Point `champion` at `version`; the moment before."""
        began = time.monotonic()
        self.set_alias(Alias.CHAMPION, version)
        return began

    def set_alias(self, alias: Alias, version: str) -> None:
        set_alias(self._mlflow, alias, version)

    def swap_to(self, version: str, within_seconds: float) -> float:
        """Move `champion` to a good version; seconds from the alias write to its first answer."""
        self.release_period()
        began = self.write_alias(version)
        seconds = self.first_answer(version, began, within_seconds).ended - began
        self.measured.swap_seconds.append(seconds)
        return seconds

    def release_period(self) -> None:
        """From now on the present version need not answer any more."""
        self.periods.release(time.monotonic())

    def share_with(self, version: str) -> None:
        """From now on `version` may answer beside the present one, which tries it out."""
        self.periods.share(version, time.monotonic())

    def settle_on(self, version: str) -> None:
        """From now on nobody but `version` may answer."""
        self.periods.settle(version, time.monotonic())

    def registry_alias(self, alias: Alias) -> str | None:
        """The version the alias names in MLflow."""
        return self._registry.alias(MODEL, alias)

    def version_page(self, ref: VersionRef) -> tuple[Mapping[str, str], list[str]]:
        """What MLflow's page of a version leads to: its tags, and the files that we left on its run."""
        version = self._registry.version(ref)
        asked = {"run_id": version.run_id, "path": "signalbox"}
        listed = self._mlflow.get(_FILES_PATH, params=asked).raise_for_status().json()
        return version.tags, [str(file["path"]) for file in listed.get("files", [])]

    def served_champion(self) -> dict[str, Any]:
        """Of the alias: the version wanted, the version served, and why they differ; from model-info."""
        entry = self._serving.get("/api/v2/model-info", {"model": MODEL})["models"][0]
        champion: dict[str, Any] = entry["aliases"][Alias.CHAMPION]
        return champion

    def kill(self, part: str) -> float:
        """`kill -9` of all processes of a part; the moment before."""
        leader = read_leader(self.home.pid_file(part))
        if leader is None or not is_alive(leader):
            raise CommandFailed(
                f"{part} does not run, so it cannot be killed", next_step=f"see {self.home.logs}"
            )
        began = time.monotonic()
        os.killpg(leader.pid, signal.SIGKILL)
        return began


def set_alias(mlflow: httpx.Client, alias: Alias, version: str) -> None:
    """Point an alias at `version`, as a click in MLflow's UI does."""
    body = {"name": MODEL, "alias": alias.value, "version": version}
    answer = mlflow.post(_ALIAS_PATH, json=body)
    if not answer.is_success:
        problem = f"MLflow answered {answer.status_code} to the alias: {answer.text[:200]}"
        raise CommandFailed(problem, next_step="see MLflow's log")
