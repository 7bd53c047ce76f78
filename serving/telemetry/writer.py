"""Takes what the recorder added up to the store, on a thread of its own and never on the request path.

A store that is locked, away or read-only costs nothing but telemetry: windows wait, bounded, and are
written when it answers again; what does not fit is dropped and counted. One worker at a time, the holder
of a lease, makes old windows coarser.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable
from enum import StrEnum
from itertools import islice

import numpy as np
from sqlalchemy import Engine

from serving.core.clock import Clock
from serving.core.errors import ChangeRefused, StoreUnavailable
from serving.core.sketch import Moments
from serving.store import failures, resources, telemetry
from serving.store.downsampling import Kept, downsample
from serving.store.failures import Cause
from serving.store.leases import Lease, Leases
from serving.store.resources import Usage
from serving.store.telemetry import SECOND, Window
from serving.telemetry.machine import Machine
from serving.telemetry.metrics import Metrics
from serving.telemetry.recorder import Recorder

log = logging.getLogger(__name__)

LEASE = "telemetry"
# Short, so that adding up holds the interpreter for a millisecond and not for many.
_SETTLE_SECONDS = 0.25
_SAMPLE_SECONDS = 10
_RETRY_SECONDS = 5.0
_DOWNSAMPLE_SECONDS = 60.0
_MAX_WINDOWS = 5000
_MAX_USAGES = 500
_BATCH = 200


class Dropped(StrEnum):
    """Why telemetry is missing; label of the metric."""

    BUFFER_FULL = "buffer_full"
    STORE_AWAY = "store_away"
    FAILED = "failed"


class TelemetryWriter:
    """Everything happens on its thread, or in `turn` for who has no thread."""

    def __init__(
        self,
        recorder: Recorder,
        engine: Engine,
        machine: Machine,
        metrics: Metrics,
        clock: Clock,
        worker: str,
        kept: Kept,
    ) -> None:
        self._recorder = recorder
        self._engine = engine
        self._machine = machine
        self._clock = clock
        self._worker = worker
        self._kept = kept
        self._leases = Leases(engine, clock)
        self._written = metrics.telemetry_windows
        self._waiting = metrics.telemetry_waiting
        self._dropped = {reason: metrics.telemetry_dropped.labels(str(reason)) for reason in Dropped}
        self._uncounted = 0
        self._windows: deque[Window] = deque()
        self._usages: deque[Usage] = deque(maxlen=_MAX_USAGES)
        self._causes: dict[str, Cause] = {}
        self._try_at = self._sample_at = float("-inf")
        self._downsample_at = clock.monotonic() + _DOWNSAMPLE_SECONDS
        self._wake = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)
        self.problem: str | None = None

    def start(self) -> None:
        self._thread.start()

    def close(self, timeout_seconds: float = 10.0) -> None:
        """Write what was noted; gives up on a store that hangs."""
        self._closing = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout_seconds)

    def turn(self, *, is_last: bool = False) -> None:
        """Add up, and write what is due. Never raises for a store that does not answer."""
        self._recorder.settle()
        now = self._clock.now()
        self._keep(self._recorder.take(now.max.replace(tzinfo=now.tzinfo) if is_last else now))
        self._sample()
        if is_last or self._clock.monotonic() >= self._try_at:
            self._guarded(self._write)
            self._waiting.set(len(self._windows))
        if not is_last and self.problem is None and self._clock.monotonic() >= self._downsample_at:
            self._downsample_at = self._clock.monotonic() + _DOWNSAMPLE_SECONDS
            self._guarded(self._downsample)

    def _run(self) -> None:
        while not self._closing:
            self._wake.wait(_SETTLE_SECONDS)
            self._turn_safely(is_last=False)
        self._turn_safely(is_last=True)

    def _turn_safely(self, *, is_last: bool) -> None:
        try:
            self.turn(is_last=is_last)
        except Exception:  # one odd turn must not end telemetry
            log.exception("telemetry_turn_failed")
            self._dropped[Dropped.FAILED].inc()

    def _keep(self, windows: list[Window]) -> None:
        self._windows.extend(windows)
        while len(self._windows) > _MAX_WINDOWS:
            self._windows.popleft()
            self._dropped[Dropped.STORE_AWAY].inc()
        for cause in self._recorder.take_causes():
            earlier = self._causes.get(cause.fingerprint)
            self._causes[cause.fingerprint] = cause if earlier is None else earlier.plus(cause)
        while len(self._causes) > failures.MAX_PER_MODEL:
            del self._causes[next(iter(self._causes))]
        uncounted = self._recorder.dropped
        self._dropped[Dropped.BUFFER_FULL].inc(uncounted - self._uncounted)
        self._uncounted = uncounted

    def _sample(self) -> None:
        if self._clock.monotonic() < self._sample_at:
            return
        self._sample_at = self._clock.monotonic() + _SAMPLE_SECONDS
        figures = {name: Moments.of(np.array([value])) for name, value in self._machine.sample().items()}
        self._usages.append(Usage(self._worker, SECOND, int(self._clock.now().timestamp()), figures))

    def _write(self) -> None:
        while self._windows:
            batch = list(islice(self._windows, _BATCH))
            telemetry.write(self._engine, batch)
            for _ in batch:
                self._windows.popleft()
            self._written.inc(len(batch))
        if self._usages:
            resources.write(self._engine, list(self._usages))
            self._usages.clear()
        if self._causes:
            failures.note(self._engine, list(self._causes.values()), self._clock.now())
            self._causes = {}

    def _downsample(self) -> None:
        lease = self._leases.acquire(LEASE, f"{self._worker}:telemetry")
        if not isinstance(lease, Lease):
            return
        try:
            downsample(self._engine, lease, self._kept, self._clock.now())
        except ChangeRefused as error:  # another worker took over, and goes on where this one stopped
            log.info("downsampling_left reason=%s", error)
        finally:
            self._leases.release(lease)

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except StoreUnavailable as error:
            if self.problem is None:
                log.warning("telemetry_waits reason=%s", error)
            self.problem = str(error)
            self._try_at = self._clock.monotonic() + _RETRY_SECONDS
        else:
            if self.problem is not None:
                log.info("telemetry_resumed")
            self.problem = None
