"""The memory that models take: versions by key, room for new ones, and who has to sleep for it.

The library asks for room before it loads and says afterwards what the load really took. Confined to the
event loop's thread; models are closed on threads of their own, and count until that is done.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from serving.core.budget import Holding, Limits, Plan, Room, Standing, megabytes, plan
from serving.core.clock import Clock
from serving.core.errors import ArtifactRefused
from serving.pool import LoadedVersion, VersionKey

log = logging.getLogger(__name__)

_LOOK_AGAIN_SECONDS = 1.0
# After this long, versions that are always in use are made to fall idle.
_PATIENCE_SECONDS = 1.0


@dataclass(slots=True, eq=False)
class Promise:
    """Room kept for something that is being loaded."""

    size_bytes: int


class Memory:
    """`standing_of` says how dear a version is now."""

    def __init__(
        self,
        limits: Limits,
        clock: Clock,
        standing_of: Callable[[LoadedVersion], Standing],
    ) -> None:
        self._limits = limits
        self._clock = clock
        self._standing_of = standing_of
        self._on_evicted: Callable[[LoadedVersion, float], None] = lambda _version, _unused: None
        self._versions: dict[VersionKey, LoadedVersion] = {}
        self._promises: list[Promise] = []
        self._freeing: dict[asyncio.Task[None], int] = {}
        self._changed = asyncio.Event()
        self._turn = asyncio.Lock()
        self.evictions = 0

    @property
    def limits(self) -> Limits:
        return self._limits

    def tell(self, on_evicted: Callable[[LoadedVersion, float], None]) -> None:
        """Have `on_evicted` called with every version that is sent to sleep, and how long it was unused."""
        self._on_evicted = on_evicted

    def get(self, key: VersionKey) -> LoadedVersion | None:
        return self._versions.get(key)

    def add(self, version: LoadedVersion) -> None:
        version.on_idle = self._note_change
        self._versions[version.key] = version

    def remove_unused(self, model: str, keep: Iterable[LoadedVersion]) -> list[LoadedVersion]:
        """Take out the versions of a model that nothing refers to any more; the caller retires them."""
        kept = {version.key for version in keep}
        gone = [v for v in self._versions.values() if v.ref.model == model and v.key not in kept]
        for version in gone:
            del self._versions[version.key]
        return gone

    def all(self) -> list[LoadedVersion]:
        return list(self._versions.values())

    def held_bytes(self) -> int:
        """What is in memory, promised, or being freed."""
        held = sum(holding.size_bytes for holding in self._holdings())
        return held + sum(self._freeing.values())

    def spare_bytes(self) -> int:
        return max(0, self._limits.budget_bytes - self.held_bytes())

    @asynccontextmanager
    async def room(self, need_bytes: int, who: str, *, may_overflow: bool = False) -> AsyncIterator[Promise]:
        """Room for one load, kept until the block ends; by then the version must have been added.

        Waits for versions in use or just loaded, in turn. Raises `ArtifactRefused` where no waiting helps.
        """
        async with self._turn:
            await self._make_room(need_bytes, who, may_overflow)
            promise = Promise(need_bytes)
            self._promises.append(promise)
        try:
            yield promise
        finally:
            self._promises.remove(promise)
            self._note_change()

    def free_in_background(self, version: LoadedVersion, close: Callable[[], object]) -> "asyncio.Task[None]":
        """Count what `version` holds until `close`, run on a thread, has returned."""
        size_bytes = version.loading.cost_bytes if version.is_awake else 0
        return self._free(size_bytes, close)

    async def close(self) -> None:
        """Wait for what is being freed."""
        await asyncio.gather(*self._freeing, return_exceptions=True)

    async def _make_room(self, need_bytes: int, who: str, may_overflow: bool) -> None:
        impatient_at = self._clock.monotonic() + _PATIENCE_SECONDS
        gated: list[LoadedVersion] = []
        try:
            await self._room_found(need_bytes, who, may_overflow, impatient_at, gated)
        finally:
            for version in gated:
                version.open_gate()

    async def _room_found(
        self,
        need_bytes: int,
        who: str,
        may_overflow: bool,
        impatient_at: float,
        gated: list[LoadedVersion],
    ) -> None:
        while True:
            self._changed.clear()
            found = self._plan(need_bytes, may_overflow)
            if found.room is Room.FREE:
                return
            if found.room is Room.REFUSE:
                raise self._refusal(need_bytes, who, found, may_overflow)
            if found.room is Room.EVICT:
                for key in found.evict:
                    self._evict(self._versions[key])  # type: ignore[index]
                continue
            if self._clock.monotonic() >= impatient_at and not gated:
                gated += self._gate(need_bytes)
            wait_seconds = _LOOK_AGAIN_SECONDS if found.wait_seconds is None else found.wait_seconds
            try:
                async with asyncio.timeout(min(wait_seconds, _LOOK_AGAIN_SECONDS)):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def _gate(self, need_bytes: int) -> list[LoadedVersion]:
        """Have the longest unused of the busy versions fall idle: they are never idle by themselves."""
        chosen: list[LoadedVersion] = []
        ripe = self._clock.monotonic() - self._limits.min_residency_seconds
        for version in sorted(self._versions.values(), key=lambda version: version.last_used):
            is_dear = self._standing_of(version) is Standing.PINNED
            if version.is_awake and version.awake_since <= ripe and not is_dear:
                version.close_gate()
                chosen.append(version)
                if sum(other.loading.cost_bytes for other in chosen) >= need_bytes:
                    break
        return chosen

    def _plan(self, need_bytes: int, may_overflow: bool) -> Plan:
        return plan(
            need_bytes,
            self._holdings(),
            sum(self._freeing.values()),
            self._limits,
            self._clock.monotonic(),
            may_overflow=may_overflow,
        )

    def _holdings(self) -> list[Holding]:
        held = [
            Holding(
                key=version.key,
                size_bytes=version.loading.cost_bytes,
                standing=self._standing_of(version),
                is_busy=version.uses > 0,
                last_used=version.last_used,
                awake_since=version.awake_since,
            )
            for version in self._versions.values()
            if version.is_awake
        ]
        now = self._clock.monotonic()
        held += [
            Holding(id(promise), promise.size_bytes, Standing.PLAIN, True, now, now)
            for promise in self._promises
        ]
        return held

    def _evict(self, version: LoadedVersion) -> None:
        model = version.sleep()
        if model is None:  # somebody turned to it this very moment
            return
        self.evictions += 1
        log.info("evicted version=%s mb=%d", version.ref, megabytes(version.loading.cost_bytes))
        self._free(version.loading.cost_bytes, model.close)
        self._on_evicted(version, self._clock.monotonic() - version.last_used)

    def _free(self, size_bytes: int, close: Callable[[], object]) -> "asyncio.Task[None]":
        task = asyncio.create_task(_closed(close))
        self._freeing[task] = size_bytes
        task.add_done_callback(self._freed)
        return task

    def _freed(self, task: "asyncio.Task[None]") -> None:
        del self._freeing[task]
        self._note_change()

    def _note_change(self) -> None:
        self._changed.set()

    def _refusal(self, need_bytes: int, who: str, found: Plan, may_overflow: bool) -> ArtifactRefused:
        if found.needed_count:
            return ArtifactRefused(
                f"{who} is one too many: {self._limits.max_count} versions may be in memory at once, and all "
                "that are there are pinned, just swapped or in use by a change",
                next_step=f"set SIGNALBOX_MAX_MODELS to {found.needed_count} or more, or unpin a model",
            )
        budget, needed = megabytes(self._limits.budget_bytes), megabytes(found.needed_bytes)
        spare = f" and {megabytes(self._limits.overflow_bytes)} MB for a swap" if may_overflow else ""
        return ArtifactRefused(
            f"{who} needs about {megabytes(need_bytes)} MB, which the memory budget of {budget} MB{spare} "
            "cannot give beside what is pinned",
            next_step=f"set SIGNALBOX_MEMORY_MB to {needed} or more, or unpin a model",
        )


async def _closed(close: Callable[[], object]) -> None:
    try:
        await asyncio.to_thread(close)
    except Exception:  # foreign code at its end: the memory is as free as it will ever be
        log.exception("close_failed")
