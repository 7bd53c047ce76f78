"""What one worker answers to its siblings and to the parent of them all."""

import asyncio
import ctypes
import gc
import logging

import psutil

from serving.api.rate import RateLimits
from serving.api.webhook import Signature
from serving.fleet.channel import Channel, Told
from serving.fleet.elsewhere import told_of
from serving.fleet.unison import Unison
from serving.follower import Follower
from serving.health import Health
from serving.library import Library
from serving.memory import Memory
from serving.readiness import Readiness
from serving.shelf import Shelf
from serving.telemetry.counters import Statistics
from serving.telemetry.exposition import told
from serving.telemetry.metrics import Metrics

log = logging.getLogger(__name__)


class Member:
    """Confined to the event loop's thread, but for giving memory back."""

    def __init__(
        self,
        library: Library,
        memory: Memory,
        follower: Follower,
        health: Health,
        readiness: Readiness,
        shelf: Shelf,
        unison: Unison,
        signature: Signature,
        statistics: Statistics,
        metrics: Metrics,
        rates: RateLimits,
    ) -> None:
        self._library = library
        self._memory = memory
        self._follower = follower
        self._health = health
        self._readiness = readiness
        self._shelf = shelf
        self._unison = unison
        self._signature = signature
        self._statistics = statistics
        self._metrics = metrics
        self._rates = rates
        self._process = psutil.Process()

    def answer_on(self, channel: Channel) -> None:
        for question, answerer in {
            "report": self._report,
            "counts": self._counts,
            "metrics": self._tell_metrics,
            "look": self._look,
            "hurry": self._hurry,
            "wake": self._wake,
            "trim": self._trim,
        }.items():
            channel.answer(question, answerer)

    async def _report(self, _: Told) -> Told:
        """`resident_bytes` is what the process takes, `held_bytes` what its models are known to take."""
        return {
            "waiting_for": self._readiness.own_wait(),
            "resident_bytes": self._process.memory_info().rss,
            "held_bytes": self._memory.held_bytes(),
            "health": [report.as_json() for report in self._health.all()[1]],
            "admitted": self._rates.admitted(),
        }

    async def _counts(self, _: Told) -> Told:
        versions = told_of(self._library.loaded(), self._metrics.tallies())
        return {"statistics": self._statistics.as_json(), "versions": versions}

    async def _tell_metrics(self, _: Told) -> Told:
        self._metrics.look()
        return {"families": await asyncio.to_thread(told, self._metrics.registry)}

    async def _look(self, _: Told) -> Told:
        await self._unison.look()
        return {}

    async def _hurry(self, asked: Told) -> Told:
        await self._shelf.hurry(asked["model"])
        return {}

    async def _wake(self, asked: Told) -> Told:
        """Look at the registry; where a webhook said so, refuse the same delivery here too."""
        if (delivery := asked.get("delivery")) is not None:
            self._signature.remember(delivery)
        self._follower.wake()
        return {}

    async def _trim(self, _: Told) -> Told:
        """Give back what the allocator keeps of what is free."""
        before = self._process.memory_info().rss
        await asyncio.to_thread(_trim)
        after = self._process.memory_info().rss
        log.info("memory_trimmed from_bytes=%d to_bytes=%d", before, after)
        return {"resident_bytes": after}


def _trim() -> None:
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it, others do not
    if trim is not None:
        trim(0)
