"""Compares what copies were answered, adds it up by minute, and writes the sums to the store.

All sums belong to one thread, so comparing large answers holds up neither the event loop nor each other.
A store that is away costs nothing but the oldest minutes beyond a bound.
"""

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from datetime import datetime, timedelta

from serving.core.clock import Clock
from serving.core.comparison import Example, Outputs, OutputTally, Pair, Tally, compare
from serving.core.errors import StoreUnavailable
from serving.ledger import Ledger
from serving.shadow import Copied
from serving.store import comparisons as stored
from serving.store.comparisons import Minute, minute_of
from serving.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

_FLUSH_SECONDS = 5.0
_FORGET_SECONDS = 3600.0
# A minute gets nothing more once another has passed since: copies are noted at their end.
_SETTLED = timedelta(minutes=1)
KEPT_DAYS = 7
_MAX_WAITING = 512
_SUMMARY_CHARACTERS = 300


class Comparisons:
    """`add`, `run` and `close` belong to the event loop's thread; everything else happens on its own."""

    def __init__(self, ledger: Ledger, metrics: Metrics, clock: Clock, worker: str) -> None:
        self._ledger = ledger
        self._metrics = metrics
        self._clock = clock
        self._worker = worker
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="comparisons")
        self._tallies: dict[Minute, Tally] = {}
        self._changed: set[Minute] = set()
        self._forget_at = 0.0
        self._latest: datetime | None = None
        self._steps_back = 0

    async def add(self, copied: Copied) -> None:
        """Compare the two answers and add what was found to its minute."""
        await asyncio.wrap_future(self._thread.submit(self._add, copied))

    async def run(self) -> None:
        """Write to the store again and again, until cancelled."""
        while True:
            await asyncio.sleep(_FLUSH_SECONDS)
            await self.flush()

    async def flush(self) -> None:
        """Write what changed since the last time; what the store did not take is tried again."""
        changed = await asyncio.wrap_future(self._thread.submit(self._take))
        is_saved = not changed
        try:
            if changed:
                await self._ledger.call(lambda engine: stored.save(engine, changed))
                is_saved = True
            await self._forget()
        except StoreUnavailable as error:
            log.debug("comparisons_wait reason=%s", error)
        except Exception:  # one bad minute must not end the loop that writes all of them
            log.exception("comparisons_not_written")
        finally:
            if not is_saved:  # also where the loop was cancelled in between
                self._thread.submit(self._changed.update, changed)

    async def close(self) -> None:
        """Write what is left."""
        await self.flush()
        self._thread.shutdown()

    def _add(self, copied: Copied) -> None:
        pair, model = copied.pair, copied.pair.model
        minute = self._minute(copied)
        tally = self._tallies.setdefault(minute, Tally())
        self._changed.add(minute)
        if copied.outputs is None:
            tally.failed += 1
            tally.keep(_example(copied, f"{_copied_version(pair)}: {copied.problem}"))
            self._metrics.shadow_failed.labels(model, pair.role).inc()
            return
        self._metrics.shadow_compared.labels(model, pair.role).inc()
        outputs = compare(*_sides(copied, copied.outputs))
        disagreeing = tally.add(outputs, *_seconds(copied))
        if disagreeing:
            self._metrics.shadow_disagreeing.labels(model, pair.role).inc()
            tally.keep(_example(copied, _summary(outputs, disagreeing)))

    def _minute(self, copied: Copied) -> Minute:
        """Where to count it. After a step back of the clock, minutes that were let go are begun anew beside
        the old ones, not in their place.
        """
        at = minute_of(copied.at)
        if self._latest is not None and at < self._latest - _SETTLED:
            self._steps_back += 1
            self._latest = at
        self._latest = max(at, self._latest or at)
        worker = f"{self._worker}/{self._steps_back}" if self._steps_back else self._worker
        return Minute(copied.pair, at, worker)

    def _take(self) -> dict[Minute, Tally]:
        """Copies of what changed. Minutes over and written are let go, and the oldest of too many."""
        settled = minute_of(self._clock.now()) - _SETTLED
        changed = {minute: deepcopy(self._tallies[minute]) for minute in self._changed}
        over = [m for m in self._tallies if m.at < settled and m not in self._changed]
        surplus = sorted(self._tallies, key=lambda minute: minute.at)[:-_MAX_WAITING]
        if surplus:
            log.warning("comparisons_dropped minutes=%d", len(surplus))
        for minute in {*over, *surplus}:
            del self._tallies[minute]
            changed.pop(minute, None)
        self._changed.clear()
        return changed

    async def _forget(self) -> None:
        if self._clock.monotonic() < self._forget_at:
            return
        before = self._clock.now() - timedelta(days=KEPT_DAYS)
        await self._ledger.call(lambda engine: stored.forget(engine, before))
        self._forget_at = self._clock.monotonic() + _FORGET_SECONDS


def _sides(copied: Copied, outputs: Outputs) -> tuple[Outputs, Outputs]:
    """The champion's outputs and the other version's."""
    given = copied.given.outputs
    return (outputs, given) if copied.pair.is_control else (given, outputs)


def _seconds(copied: Copied) -> tuple[float, float]:
    given = copied.given.seconds
    return (copied.seconds, given) if copied.pair.is_control else (given, copied.seconds)


def _copied_version(pair: Pair) -> str:
    return f"version {pair.champion if pair.is_control else pair.other}"


def _summary(outputs: dict[str, OutputTally], disagreeing: list[str]) -> str:
    return "; ".join(f"{name}: {outputs[name].describe()}" for name in disagreeing)


def _example(copied: Copied, summary: str) -> Example:
    return Example(copied.given.request_id, copied.at.isoformat(), summary[:_SUMMARY_CHARACTERS])
