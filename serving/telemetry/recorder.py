"""Every answer as one record: noted on the request path by one append, added up on another thread.

Inference calls `answered`, `judged` and `failed`. They never block, await or take a lock; what does not
fit is dropped and counted. Whoever needs the sums, the writer each moment and a scrape of `/metrics`,
calls `settle`.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import NamedTuple, TypeVar

import numpy as np
from prometheus_client.core import Metric

from serving.batcher import Timing
from serving.core.clock import Clock
from serving.core.datatypes import Array
from serving.core.model import VersionRef
from serving.core.sketch import Moments, Sketch
from serving.core.window import OK, WindowStats
from serving.store.failures import Cause
from serving.store.telemetry import SECOND, Window
from serving.telemetry.metrics import Metrics
from serving.telemetry.totals import Series, Totals

_MAX_WAITING = 100_000
_MAX_FAILURES = 1000
_MAX_CAUSES = 500


class Ended(NamedTuple):
    """One request that came to its end. `timing` is of the execution that answered it, if one did."""

    at: datetime
    ref: VersionRef
    variant: str
    status: str
    seconds: float
    rows: int
    timing: Timing | None


class Fault(NamedTuple):
    """A failure of a version's own; `cause` where one was raised."""

    at: datetime
    ref: VersionRef
    variant: str
    cause: Cause | None


Note = TypeVar("Note")
_Key = tuple[VersionRef, str, int]


class Recorder:
    """The notes belong to the event loop's thread; the rest may be called on any."""

    def __init__(self, metrics: Metrics, clock: Clock, *, worker: str, is_on: bool = True) -> None:
        self._metrics = metrics
        self._clock = clock
        self._worker = worker
        self._is_on = is_on
        self._ended: deque[Ended] = deque()
        self._faults: deque[Fault] = deque()
        self._lock = threading.Lock()
        self._totals = Totals()
        self._open: dict[_Key, WindowStats] = {}
        self._causes: dict[str, Cause] = {}
        self._on_settled: Callable[[Iterable[Ended]], None] = lambda _: None
        # Each has one writing thread, the event loop's.
        self.dropped = 0
        metrics.registry.register(self)

    def tell(self, on_settled: Callable[[Iterable[Ended]], None]) -> None:
        """Have `on_settled` called, on the settling thread, with the requests that ended."""
        self._on_settled = on_settled

    def answered(
        self, ref: VersionRef, variant: str, status: str, seconds: float, rows: int, timing: Timing | None
    ) -> None:
        """Note one request at the version that answered it, or failed to."""
        if not self._is_on:
            return
        if len(self._ended) >= _MAX_WAITING:
            self.dropped += 1
            return
        self._ended.append(Ended(self._clock.now(), ref, variant, status, seconds, rows, timing))

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
            ended, faults = list(_taken(self._ended)), list(_taken(self._faults))
            for key, group in _grouped(ended):
                self._settle(key, group)
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

    def _settle(self, key: _Key, group: list[Ended]) -> None:
        stats = _stats(group, self._totals.of(key[0], key[1]))
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
        present = self._open.get(key)
        self._open[key] = stats if present is None else present.plus(stats)

    def _note_cause(self, cause: Cause) -> None:
        earlier = self._causes.get(cause.fingerprint)
        if earlier is not None:
            self._causes[cause.fingerprint] = earlier.plus(cause)
        elif len(self._causes) < _MAX_CAUSES:
            self._causes[cause.fingerprint] = cause


def _taken(waiting: "deque[Note]") -> Iterator[Note]:
    """What is there now; notes that come meanwhile are the next call's."""
    for _ in range(len(waiting)):
        yield waiting.popleft()


def _grouped(ended: Iterable[Ended]) -> Iterable[tuple[_Key, list[Ended]]]:
    groups: dict[_Key, list[Ended]] = {}
    for each in ended:
        groups.setdefault((each.ref, each.variant, int(each.at.timestamp())), []).append(each)
    return groups.items()


def _stats(group: list[Ended], series: Series) -> WindowStats:
    """The window of some requests of one version, variant and second, which are counted to `series` too."""
    statuses: dict[str, int] = {}
    for each in group:
        statuses[each.status] = statuses.get(each.status, 0) + 1
    for status, count in statuses.items():
        series.statuses[status] = series.statuses.get(status, 0) + count
    answered = [each for each in group if each.status == OK]
    seconds = np.array([each.seconds for each in answered])
    timings = [each.timing for each in answered if each.timing is not None]
    leads = [timing for timing in timings if timing.leads]
    queue = _seconds([timing.begun_ns - timing.asked_ns for timing in timings])
    compute = _seconds([timing.done_ns - timing.begun_ns for timing in leads])
    rows = np.array([timing.executed_rows for timing in leads], np.float64)
    series.seconds.add(seconds)
    series.queue.add(queue)
    series.compute.add(compute)
    series.rows.add(rows)
    return WindowStats(
        statuses=statuses,
        rows=sum(each.rows for each in answered),
        latency=Sketch.of(seconds),
        queue=Moments.of(queue),
        compute=Moments.of(compute),
        batches=Moments.of(rows),
    )


def _seconds(nanoseconds: list[int]) -> Array:
    """Not below 0, whatever a late thread stamped."""
    return np.maximum(np.array(nanoseconds, np.float64), 0.0) / 1e9


def _window(key: _Key, stats: WindowStats, worker: str) -> Window:
    ref, variant, second = key
    return Window(
        ref=ref, variant=str(variant), worker=worker, step_seconds=SECOND, start=second, stats=stats
    )
