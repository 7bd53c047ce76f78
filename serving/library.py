"""The versions in service: loaded when wanted, asleep when memory is short, released when unused.

Loads are single-flight per version and few at a time, so that a load does not starve inference; each
has room in the memory budget before it begins.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from serving.candidate import Fetched, Preparation, in_thread
from serving.core.budget import Standing
from serving.core.errors import ArtifactRefused, Overloaded
from serving.core.model import Alias, Tag
from serving.followed import FollowedModel, key_of
from serving.formats.loader import LoadedModel
from serving.ledger import Ledger
from serving.memory import Memory
from serving.notices import version_stuck
from serving.pool import LoadedVersion, VersionKey
from serving.store.artifacts import ArtifactCache
from serving.store.record import ServedVersion

log = logging.getLogger(__name__)

ACTOR = "serving"
_NO_ROOM_RETRY_SECONDS = 5.0

Result = TypeVar("Result")


class Library:
    """Confined to the event loop's thread; the work itself runs in threads."""

    def __init__(
        self,
        preparation: Preparation,
        cache: ArtifactCache,
        memory: Memory,
        ledger: Ledger,
        *,
        cache_folder: Path,
        candidate_timeout_seconds: float,
        drain_seconds: float,
        concurrent_loads: int = 2,
        on_loaded: Callable[[float], None] = lambda _: None,
    ) -> None:
        self._preparation = preparation
        self._cache = cache
        self._memory = memory
        self._ledger = ledger
        self._cache_folder = cache_folder
        self._candidate_timeout_seconds = candidate_timeout_seconds
        self._drain_seconds = drain_seconds
        self._slots = asyncio.Semaphore(concurrent_loads)
        self._on_loaded = on_loaded
        self._loading: dict[VersionKey, asyncio.Task[LoadedVersion]] = {}
        self._waiting: dict[VersionKey, int] = {}
        self._retiring: set[asyncio.Task[None]] = set()

    def loaded(self) -> list[LoadedVersion]:
        """Everything in service, asleep or not."""
        return self._memory.all()

    async def load(self, key: VersionKey) -> LoadedVersion:
        """The version, loaded and tested if it is not in service yet. Raises what refused it."""
        return await self._once(key, lambda: self._preparation.fetch(key), is_audited=True)

    async def reload(self, model: str, served: ServedVersion) -> LoadedVersion:
        """A version that was served before: from the local cache, else from the registry."""
        key = key_of(model, served)
        try:
            return await self._once(
                key, lambda: self._preparation.open(key, served, self._cache_folder), is_audited=False
            )
        except ArtifactRefused as error:
            log.warning("cache_unusable version=%s reason=%s", key.ref, error)
            return await self.load(key)

    async def wake(self, version: LoadedVersion) -> None:
        """Load a sleeping version's model again. Raises `Overloaded` where there is no room for it now."""
        try:
            async with self._slots, self._memory.room(version.loading.cost_bytes, str(version.ref)):
                model = await self._in_time(lambda: self._preparation.load_again(version), _close)
                if not version.awaken(model):
                    await asyncio.to_thread(model.close)
        except ArtifactRefused as error:
            raise Overloaded(str(error), retry_after_seconds=_NO_ROOM_RETRY_SECONDS) from error

    def sweep(self, model: FollowedModel) -> None:
        """Release what the model no longer refers to."""
        for version in self._memory.remove_unused(model.name, model.in_use()):
            task = asyncio.create_task(self._retire(version))
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)

    def note_evicted(self, version: LoadedVersion) -> None:
        self._ledger.audit("evict", actor=ACTOR, model=version.ref.model, version=version.ref.version)

    async def close(self) -> None:
        """Let go of every version; waits briefly for what is still running."""
        for task in self._loading.values():
            task.cancel()
        await asyncio.gather(*self._loading.values(), *self._retiring, return_exceptions=True)
        for version in self._memory.all():
            await asyncio.to_thread(version.retire, 1.0)
        await self._memory.close()

    async def _once(
        self, key: VersionKey, fetch: Callable[[], Fetched], *, is_audited: bool
    ) -> LoadedVersion:
        """Everybody who wants a version awaits the same load; one who gives up stops nobody else's."""
        if (loaded := self._memory.get(key)) is not None:
            return loaded
        task = self._loading.get(key)
        if task is None:
            task = asyncio.create_task(self._bring_in(key, fetch, is_audited=is_audited))
            self._loading[key] = task
            task.add_done_callback(lambda done: self._forget_load(key, done))
        self._waiting[key] = self._waiting.get(key, 0) + 1
        try:
            return await asyncio.shield(task)
        finally:
            self._waiting[key] -= 1
            if self._waiting[key] == 0:
                del self._waiting[key]
                task.cancel()  # nothing when it is done; nobody wants it any more when it is not

    def _forget_load(self, key: VersionKey, done: "asyncio.Task[LoadedVersion]") -> None:
        self._loading.pop(key, None)
        if not done.cancelled():
            done.exception()  # whoever waited has it; nobody may have

    async def _bring_in(
        self, key: VersionKey, fetch: Callable[[], Fetched], *, is_audited: bool
    ) -> LoadedVersion:
        async with self._slots:
            began = asyncio.get_running_loop().time()
            fetched = await self._in_time(fetch, _ignore)
            who = f"version {key.ref}"
            async with self._memory.room(fetched.estimate_bytes, who, may_overflow=True):
                loaded = await self._in_time(lambda: self._preparation.load(fetched), _discard)
                loaded.woken_by(self.wake)
                loaded.on_circuit = self._note_circuit
                self._memory.add(loaded)
        self._on_loaded(asyncio.get_running_loop().time() - began)
        if is_audited:
            self._audit_load(loaded)
        return loaded

    def _note_circuit(self, version: LoadedVersion) -> None:
        if version.breaker.is_open:
            self._ledger.notify(version_stuck(version.ref, version.breaker.stuck_threads))

    def _audit_load(self, loaded: LoadedVersion) -> None:
        self._ledger.audit(
            "load",
            actor=ACTOR,
            model=loaded.ref.model,
            version=loaded.ref.version,
            digest=loaded.provenance.digest,
            self_test=str(loaded.self_test.verdict),
            basis=str(loaded.self_test.basis),
            seconds=round(loaded.self_test.seconds, 4),
            memory_mb=round(loaded.loading.cost_bytes / (1 << 20), 1),
        )

    async def _in_time(self, work: Callable[[], Result], discard: Callable[[Result], None]) -> Result:
        try:
            async with asyncio.timeout(self._candidate_timeout_seconds):
                return await in_thread(work, discard)
        except TimeoutError:
            raise ArtifactRefused(
                f"loading and testing took longer than {self._candidate_timeout_seconds:g} s",
                next_step="raise SIGNALBOX_CANDIDATE_TIMEOUT_SECONDS if the model is that slow by nature",
            ) from None

    async def _retire(self, version: LoadedVersion) -> None:
        await self._memory.free_in_background(version, lambda: version.retire(self._drain_seconds))
        self._ledger.audit("unload", actor=ACTOR, model=version.ref.model, version=version.ref.version)
        keep = frozenset(v.provenance.folder for v in self._memory.all())
        await asyncio.to_thread(self._cache.trim, keep)


def standing_of(models: Mapping[str, FollowedModel], version: LoadedVersion) -> Standing:
    """How dear a version is: a critical model's champion and whoever a change needs now stay in memory."""
    model = models.get(version.ref.model)
    if model is None:
        return Standing.PLAIN
    if version in model.kept or (model.watch is not None and version is model.previous):
        return Standing.PINNED
    is_champion = version is model.served.get(Alias.CHAMPION)
    is_critical = model.registered is not None and model.registered.tags.get(Tag.CRITICAL) == "true"
    if is_critical and is_champion:
        return Standing.PINNED
    return Standing.SERVED if is_champion or version is model.previous else Standing.PLAIN


def _discard(version: LoadedVersion) -> None:
    version.retire(0.0)


def _close(model: LoadedModel) -> None:
    model.close()


def _ignore(_: object) -> None:
    return
