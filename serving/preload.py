"""Brings sleeping versions back while memory is spare: critical models first, then those asked most.

Never evicts anything for it, so a guess costs nobody anything. Confined to the event loop's thread.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from serving.core.budget import Standing
from serving.memory import Memory
from serving.pool import LoadedVersion, VersionKey

log = logging.getLogger(__name__)

_INTERVAL_SECONDS = 5.0
# An hour without a request leaves less than a thousandth of the usual rate.
_HALF_LIFE_SECONDS = 360.0
_WORTH_PER_SECOND = 0.001


@dataclass(frozen=True, slots=True)
class Sleeper:
    """`per_second` is how often the version was asked lately."""

    key: VersionKey
    size_bytes: int
    is_pinned: bool
    per_second: float


def choice(sleepers: Iterable[Sleeper], spare_bytes: int) -> VersionKey | None:
    """Which to wake next, if any fits and is worth it."""
    worth = [
        sleeper
        for sleeper in sleepers
        if sleeper.size_bytes <= spare_bytes
        and (sleeper.is_pinned or sleeper.per_second >= _WORTH_PER_SECOND)
    ]
    best = max(worth, key=lambda sleeper: (sleeper.is_pinned, sleeper.per_second), default=None)
    return best.key if best is not None else None


def smoothed(per_second: float, requests: int, passed_seconds: float) -> float:
    """The rate after `requests` in `passed_seconds`: an exponential mean that forgets half in six minutes."""
    kept: float = 0.5 ** (passed_seconds / _HALF_LIFE_SECONDS)
    return kept * per_second + (1 - kept) * requests / passed_seconds


class Preloader:
    def __init__(self, memory: Memory, standing_of: Callable[[LoadedVersion], Standing]) -> None:
        self._memory = memory
        self._standing_of = standing_of
        self._rates: dict[VersionKey, tuple[int, float]] = {}

    async def run(self) -> None:
        """Look again and again until cancelled."""
        while True:
            await asyncio.sleep(_INTERVAL_SECONDS)
            try:
                await self.turn(_INTERVAL_SECONDS)
            except Exception:  # a version that cannot be woken says so to whoever asks for it
                log.exception("preload_failed")

    async def turn(self, passed_seconds: float) -> LoadedVersion | None:
        """Note how often each version was asked, and wake at most one; it, or None."""
        versions = {version.key: version for version in self._memory.all()}
        self._rates = {key: self._rate(version, passed_seconds) for key, version in versions.items()}
        sleepers = [
            Sleeper(
                key,
                version.loading.cost_bytes,
                self._standing_of(version) is Standing.PINNED,
                self._rates[key][1],
            )
            for key, version in versions.items()
            if not version.is_awake
        ]
        key = choice(sleepers, self._memory.spare_bytes())
        if key is None:
            return None
        await versions[key].ready()
        return versions[key]

    def _rate(self, version: LoadedVersion, passed_seconds: float) -> tuple[int, float]:
        seen, per_second = self._rates.get(version.key, (version.requests, 0.0))
        return version.requests, smoothed(per_second, version.requests - seen, passed_seconds)
