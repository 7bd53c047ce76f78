"""What registry and store know of a model's versions, read for model-info and never on a request's path.

Remembered for a few seconds. What is away costs one time-out in that time, not one per model and
caller, and is told as a sentence. Confined to the event loop's thread; the asking is done on others.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from sqlalchemy import Engine

from serving.core.clock import Clock
from serving.core.errors import NotServed, RegistryUnavailable, SignalboxError, StoreUnavailable
from serving.ledger import Ledger
from serving.store import changes, freezes, observed, version_reports
from serving.store.changes import RecordedChange
from serving.store.observed import Observed
from serving.store.registry import ModelVersion, RegisteredModel, Registry, Run
from serving.store.version_reports import VersionReports

Result = TypeVar("Result")

REMEMBER_SECONDS = 5.0
DETAILED_VERSIONS = 100
_HISTORY_ROWS = 50
_RUNS_AT_ONCE = 8
_MAX_RUNS = 5000


@dataclass(frozen=True, slots=True)
class Versions:
    """A model's versions, oldest first; `problem` says why they may be old."""

    listed: Sequence[ModelVersion] = ()
    problem: str | None = None


class Knowledge:
    """Asks and remembers. Nothing here raises because something is away."""

    def __init__(self, registry: Registry, ledger: Ledger, clock: Clock) -> None:
        self._registry = registry
        self._ledger = ledger
        self._clock = clock
        self._versions: dict[str, tuple[float, Sequence[ModelVersion]]] = {}
        self._reports: dict[str, tuple[float, Mapping[str, VersionReports]]] = {}
        self._runs: dict[str, Run] = {}
        self._observed: dict[str, tuple[float, Mapping[str, Observed]]] = {}
        self._store_down_at = float("-inf")
        self.store_problem: str | None = None

    async def versions(self, model: str, registry_problem: str | None) -> Versions:
        """`registry_problem` is why asking would only wait for a time-out."""
        asked_at, known = self._versions.get(model, (float("-inf"), ()))
        if registry_problem is not None:
            return Versions(known, registry_problem)
        if self._is_fresh(asked_at):
            return Versions(known)
        try:
            known = await asyncio.to_thread(self._registry.versions, model)
        except SignalboxError as error:
            return Versions(known, str(error))
        self._versions[model] = (self._clock.monotonic(), known)
        return Versions(known)

    async def runs(self, versions: Sequence[ModelVersion], registry_problem: str | None) -> Mapping[str, Run]:
        """By id, those that are known already or can be read now."""
        wanted = {version.run_id for version in versions if version.run_id}
        missing = sorted(wanted - self._runs.keys()) if registry_problem is None else []
        if len(self._runs) + len(missing) > _MAX_RUNS:
            self._runs = {}
            missing = sorted(wanted)
        turn, away = asyncio.Semaphore(_RUNS_AT_ONCE), asyncio.Event()
        await asyncio.gather(*(self._read_run(run_id, turn, away) for run_id in missing))
        return {run_id: self._runs[run_id] for run_id in wanted if run_id in self._runs}

    async def reports(self, model: str, versions: Sequence[ModelVersion]) -> Mapping[str, VersionReports]:
        """By version number; empty while the store is away and nothing is remembered."""
        asked_at, known = self._reports.get(model, (float("-inf"), {}))
        if self._is_fresh(asked_at) and all(version.ref.version in known for version in versions):
            return known
        found = await self._looked_up(lambda engine: version_reports.read(engine, model, versions))
        if found is None:
            return known
        self._reports[model] = (self._clock.monotonic(), found)
        return found

    async def observed(self, model: str, registered: RegisteredModel | None) -> Mapping[str, Observed]:
        """What live traffic showed, by version; empty while the store is away and nothing is remembered."""
        asked_at, known = self._observed.get(model, (float("-inf"), {}))
        if self._is_fresh(asked_at):
            return known
        now = self._clock.now()
        born = datetime.fromtimestamp(registered.created_ms / 1000, UTC) if registered is not None else None
        found = await self._looked_up(lambda engine: observed.observed(engine, model, now, born))
        if found is None:
            return known
        self._observed[model] = (self._clock.monotonic(), found)
        return found

    async def moves(self, model: str) -> Sequence[RecordedChange]:
        """Recorded moves of the model's aliases, newest first; empty while the store is away."""
        return await self._looked_up(lambda engine: changes.recent(engine, model, _HISTORY_ROWS)) or ()

    async def frozen(self, model: str) -> str | None:
        """Who keeps the model from being promoted, and until when; None as well while the store is away."""
        now = self._clock.now()
        found = await self._looked_up(lambda engine: freezes.of_model(engine, model, now))
        return None if found is None else str(found)

    async def _read_run(self, run_id: str, turn: asyncio.Semaphore, away: asyncio.Event) -> None:
        async with turn:
            if away.is_set():
                return
            try:
                self._runs[run_id] = await asyncio.to_thread(self._registry.run, run_id)
            except NotServed:
                return
            except RegistryUnavailable:
                away.set()

    async def _looked_up(self, work: Callable[[Engine], Result]) -> Result | None:
        if self._is_fresh(self._store_down_at):
            return None
        try:
            result = await self._ledger.look(work)
        except StoreUnavailable as error:
            self._store_down_at, self.store_problem = self._clock.monotonic(), str(error)
            return None
        self.store_problem = None
        return result

    def _is_fresh(self, asked_at: float) -> bool:
        return self._clock.monotonic() - asked_at < REMEMBER_SECONDS


def detailed(versions: Sequence[ModelVersion], in_use: set[str]) -> list[ModelVersion]:
    """The versions that are told of in full: the newest ones, and those in use however old."""
    newest = len(versions) - DETAILED_VERSIONS
    return [v for index, v in enumerate(versions) if index >= newest or v.ref.version in in_use]
