"""Every answer as a few numbers: noted on the request path by one append, added up on another thread.

Inference calls `answered`, `judged` and `failed`. They never block, await or take a lock; what does not
fit is dropped and counted. Whoever needs the sums, the writer each moment and a scrape of `/metrics`,
calls `settle`.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

import numpy as np
from prometheus_client.core import Metric

from serving.batcher import Timing
from serving.core.clock import Clock
from serving.core.model import VersionRef
from serving.core.sketch import Moments, Sketch
from serving.core.window import OK, WindowStats
from serving.store.failures import Cause
from serving.store.telemetry import SECOND, Window
from serving.telemetry.metrics import Metrics
from serving.telemetry.reel import Ended, Reel
from serving.telemetry.totals import Series, Totals

_MAX_WAITING = 100_000
_MAX_FAILURES = 1000
_MAX_CAUSES = 500
# Versions come and go, and each outcome makes a reel of its own.
_MAX_REELS = 256


class Fault(NamedTuple):
    """A failure of a version's own; `cause` where one was raised."""

    at: datetime
    ref: VersionRef
    variant: str
    cause: Cause | None


_Key = tuple[VersionRef, str, int]


class Recorder:
    """The notes belong to the event loop's thread; the rest may be called on any."""

    def __init__(self, metrics: Metrics, clock: Clock, *, worker: str, is_on: bool = True) -> None:
        self._metrics = metrics
        self._clock = clock
        self._worker = worker
        self._is_on = is_on
        # By the identity of a version's reference, which its reel keeps: quicker to look up than its name.
        self._reels: dict[tuple[int, str, str], Reel] = {}
        # Each has one writing thread: the event loop's, and whichever settles.
        self._noted = self._settled = 0
        self._faults: deque[Fault] = deque()
        self._lock = threading.Lock()
        self._totals = Totals()
        self._open: dict[_Key, WindowStats] = {}
        self._causes: dict[str, Cause] = {}
        self._on_settled: Callable[[Sequence[Ended]], None] = lambda _: None
        # Each has one writing thread, the event loop's.
        self.dropped = 0
        metrics.registry.register(self)

    def tell(self, on_settled: Callable[[Sequence[Ended]], None]) -> None:
        """Have `on_settled` called, on the settling thread, with the requests that ended."""
        self._on_settled = on_settled

    def answered(
        self,
        ref: VersionRef,
        variant: str,
        status: str,
        seconds: float,
        rows: int,
        timing: Timing | None,
        at: float | None = None,
    ) -> None:
        """Note one request at the version that answered it, or failed to.

        Of now, where `at` is not given in seconds since 1970.
        """
        if not self._is_on:
            return
        if self._noted - self._settled >= _MAX_WAITING:
            self.dropped += 1
            return
        reel = self._reels.get((id(ref), variant, status)) or self._new_reel(ref, variant, status)
        self._noted += 1
        reel.add(self._clock.now().timestamp() if at is None else at, seconds, rows, timing)

    def judged(self, ref: VersionRef, variant: str, *, failed: bool) -> None:
        """Note an answer for or against the version that was to give it."""
        self._metrics.judged(ref, failed=failed)
        if failed:
            self._note(Fault(self._clock.now(), ref, variant, None))

    def failed(self, cause: Cause, variant: str) -> None:
        """Note what a version raised, whether or not that counts against it."""
        self._note(Fault(cause.last_seen_at, cause.ref, variant, cause))

    def settle(self) -> None:
        """Add up what was noted."""
        with self._lock:
            ended = [taken for reel in list(self._reels.values()) if (taken := reel.take()) is not None]
            faults = [self._faults.popleft() for _ in range(len(self._faults))]
            self._settled += sum(map(len, ended))
            for group in ended:
                self._settle(group)
            for fault in faults:
                self._settle_fault(fault)
            if ended:
                self._on_settled(ended)

    def take(self, before: datetime) -> list[Window]:
        """Windows of the seconds that were over at `before`, each handed out once."""
        second = int(before.timestamp())
        with self._lock:
            over = [key for key in self._open if key[2] < second]
            return [_window(key, self._open.pop(key), self._worker) for key in over]

    def take_causes(self) -> list[Cause]:
        """Causes seen since the last call."""
        with self._lock:
            causes, self._causes = list(self._causes.values()), {}
        return causes

    def collect(self) -> Iterator[Metric]:
        """For Prometheus."""
        self.settle()
        with self._lock:
            families = list(self._totals.families())
        yield from families

    def _note(self, fault: Fault) -> None:
        if not self._is_on:
            return
        if len(self._faults) >= _MAX_FAILURES:
            self.dropped += 1
            return
        self._faults.append(fault)

    def _new_reel(self, ref: VersionRef, variant: str, status: str) -> Reel:
        if len(self._reels) >= _MAX_REELS:
            # Whoever adds is here, so what is empty stays so; nothing may be added to it afterwards.
            self._reels = {known: each for known, each in self._reels.items() if not each.is_empty}
        reel = self._reels[id(ref), variant, status] = Reel(ref, variant, status)
        return reel

    def _settle(self, ended: Ended) -> None:
        series = self._totals.of(ended.ref, ended.variant)
        for second in np.unique(ended.times.astype(np.int64)).tolist():
            self._open_window((ended.ref, ended.variant, second), _stats(ended.of_second(second), series))

    def _open_window(self, key: _Key, stats: WindowStats) -> None:
        present = self._open.get(key)
        self._open[key] = stats if present is None else present.plus(stats)

    def _settle_fault(self, fault: Fault) -> None:
        key = (fault.ref, fault.variant, int(fault.at.timestamp()))
        cause = fault.cause
        if cause is None:
            self._totals.of(fault.ref, fault.variant).faults += 1
            stats = WindowStats(faults=1)
        else:
            stats = WindowStats(errors={f"{cause.error}/{cause.fingerprint}": 1})
            self._note_cause(cause)
        self._open_window(key, stats)

    def _note_cause(self, cause: Cause) -> None:
        earlier = self._causes.get(cause.fingerprint)
        if earlier is not None:
            self._causes[cause.fingerprint] = earlier.plus(cause)
        elif len(self._causes) < _MAX_CAUSES:
            self._causes[cause.fingerprint] = cause


def _stats(ended: Ended, series: Series) -> WindowStats:
    """The window of requests of one second, which are counted to `series` too."""
    statuses = {ended.status: len(ended)}
    series.statuses[ended.status] = series.statuses.get(ended.status, 0) + len(ended)
    if ended.status != OK:
        return WindowStats(statuses=statuses)
    queue = ended.queue[~np.isnan(ended.queue)]
    leads = ~np.isnan(ended.compute)
    compute, rows = ended.compute[leads], ended.executed_rows[leads]
    series.seconds.add(ended.seconds)
    series.queue.add(queue)
    series.compute.add(compute)
    series.rows.add(rows)
    return WindowStats(
        statuses=statuses,
        rows=int(ended.rows.sum()),
        latency=Sketch.of(ended.seconds),
        queue=Moments.of(queue),
        compute=Moments.of(compute),
        batches=Moments.of(rows),
    )


def _window(key: _Key, stats: WindowStats, worker: str) -> Window:
    ref, variant, second = key
    return Window(
        ref=ref, variant=str(variant), worker=worker, step_seconds=SECOND, start=second, stats=stats
    )
