"""The versions in memory: loaded when wanted, kept while referred to, released off the request path.

Loads are single-flight per version and few at a time, so that a load does not starve inference.
"""

import asyncio
import logging
import threading
from collections.abc import Callable
from pathlib import Path

from serving.candidate import Preparation, in_thread
from serving.core.errors import ArtifactRefused
from serving.followed import FollowedModel, key_of
from serving.ledger import Ledger
from serving.pool import LoadedVersion, Pool, VersionKey
from serving.store.artifacts import ArtifactCache
from serving.store.record import ServedVersion

log = logging.getLogger(__name__)

ACTOR = "serving"
_CONCURRENT_LOADS = 2


class Library:
    """Confined to the event loop's thread; the work itself runs in threads."""

    def __init__(
        self,
        preparation: Preparation,
        cache: ArtifactCache,
        ledger: Ledger,
        *,
        cache_folder: Path,
        candidate_timeout_seconds: float,
        drain_seconds: float,
    ) -> None:
        self._preparation = preparation
        self._cache = cache
        self._ledger = ledger
        self._cache_folder = cache_folder
        self._candidate_timeout_seconds = candidate_timeout_seconds
        self._drain_seconds = drain_seconds
        self._pool = Pool()
        self._slots = asyncio.Semaphore(_CONCURRENT_LOADS)
        self._retiring: set[asyncio.Task[None]] = set()

    def loaded(self) -> list[LoadedVersion]:
        return self._pool.all()

    async def load(self, key: VersionKey) -> LoadedVersion:
        """The version, loaded and tested if it is not in memory yet. Raises what refused it."""
        if (loaded := self._pool.get(key)) is not None:
            return loaded
        loaded = await self._in_slot(lambda: self._preparation.prepare(key))
        self._ledger.audit(
            "load",
            actor=ACTOR,
            model=key.ref.model,
            version=key.ref.version,
            digest=loaded.provenance.digest,
            self_test=str(loaded.self_test.verdict),
            basis=str(loaded.self_test.basis),
            seconds=round(loaded.self_test.seconds, 4),
        )
        return self._shelve(loaded)

    async def reload(self, model: str, served: ServedVersion) -> LoadedVersion:
        """A version that was served before: from the local cache, else from the registry."""
        key = key_of(model, served)
        if (loaded := self._pool.get(key)) is not None:
            return loaded
        try:
            restored = await self._in_slot(lambda: self._preparation.restore(key, served, self._cache_folder))
        except ArtifactRefused as error:
            log.warning("cache_unusable version=%s reason=%s", key.ref, error)
            return await self.load(key)
        return self._shelve(restored)

    def sweep(self, model: FollowedModel) -> None:
        """Release what the model no longer refers to."""
        for version in self._pool.remove_unused(model.name, model.in_use()):
            task = asyncio.create_task(self._retire(version))
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)

    async def close(self) -> None:
        """Let go of every version; waits briefly for what is still running."""
        await asyncio.gather(*self._retiring, return_exceptions=True)
        for version in self._pool.all():
            await asyncio.to_thread(version.retire, 1.0)

    async def _in_slot(self, work: Callable[[], LoadedVersion]) -> LoadedVersion:
        try:
            async with self._slots, asyncio.timeout(self._candidate_timeout_seconds):
                return await in_thread(work, _discard)
        except TimeoutError:
            raise ArtifactRefused(
                f"loading and testing took longer than {self._candidate_timeout_seconds:g} s",
                next_step="raise SIGNALBOX_CANDIDATE_TIMEOUT_SECONDS if the model is that slow by nature",
            ) from None

    def _shelve(self, loaded: LoadedVersion) -> LoadedVersion:
        """Keep what was loaded; a twin that was quicker wins."""
        if (twin := self._pool.get(loaded.key)) is not None:
            threading.Thread(target=_discard, args=(loaded,), daemon=True).start()
            return twin
        self._pool.add(loaded)
        return loaded

    async def _retire(self, version: LoadedVersion) -> None:
        await asyncio.to_thread(version.retire, self._drain_seconds)
        self._ledger.audit("unload", actor=ACTOR, model=version.ref.model, version=version.ref.version)
        keep = frozenset(v.provenance.folder for v in self._pool.all())
        await asyncio.to_thread(self._cache.trim, keep)


def _discard(version: LoadedVersion) -> None:
    version.retire(0.0)
