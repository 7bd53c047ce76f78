"""Models so quick that handing them to a thread costs more than running them: asked on the event loop.

A version earns that by quick executions on its own threads, for inputs of a size it was quick with. Only
a model that can be interrupted may: a thread of this module watches, and breaks off an execution that
keeps the loop for longer than it should. The request then goes to the version's threads like any other,
and the version is kept off the loop for a minute, twice as long each time.
"""

import logging
import threading
import time

from serving.batcher import Timing
from serving.core.batch import Tensors
from serving.core.clock import Clock
from serving.core.datatypes import Array
from serving.formats.loader import Interrupted, Interruptible

log = logging.getLogger(__name__)

# Handing over and back costs about this much of a request's time.
_QUICK_SECONDS = 100e-6
_LEARNING = 8
# Waiting for a processor makes single executions look slow; so many in a row are.
_SLOW_NS = 200_000
_SLOW_TO_LEAVE = 8
# Twice this is the longest that one execution can hold up the loop. Not shorter, because on a machine with
# too much to do any thread may stand still for a moment.
_LOOK_SECONDS = 0.2
_QUIET_LOOKS = 20
_BARRED_SECONDS = 60.0


class Watchdog:
    """Interrupts an execution that two looks in a row have seen. One loop runs one at a time."""

    def __init__(self, look_seconds: float = _LOOK_SECONDS) -> None:
        self._look_seconds = look_seconds
        self._running: Interruptible | None = None
        self._number = 0
        self._awake = threading.Event()
        self._thread: threading.Thread | None = None
        self._is_over = False

    def run(self, model: Interruptible, inputs: Tensors) -> dict[str, Array]:
        """The outputs. Raises `Interrupted` where that took too long, and whatever the model raises."""
        self._number += 1
        self._running = model
        if not self._awake.is_set():
            self._wake()
        try:
            return model.predict_interruptibly(inputs)
        finally:
            self._running = None

    def close(self) -> None:
        self._is_over = True
        self._awake.set()
        if self._thread is not None:
            self._thread.join()

    def _wake(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._look, name="watchdog", daemon=True)
            self._thread.start()
        self._awake.set()

    def _look(self) -> None:
        while not self._is_over:
            self._awake.wait()
            seen, quiet = -1, 0
            while not self._is_over and quiet < _QUIET_LOOKS:
                time.sleep(self._look_seconds)
                running, number = self._running, self._number
                quiet = quiet + 1 if number == seen and running is None else 0
                if running is not None and number == seen:
                    running.interrupt()
                seen = number
            # A run that begins between these two lines is seen by the next.
            self._awake.clear()
            if self._number != seen:
                self._awake.set()


class Promptness:
    """Whether one version may run on the loop, and doing so. Confined to the event loop's thread."""

    def __init__(self, watchdog: Watchdog, clock: Clock) -> None:
        self._watchdog = watchdog
        self._clock = clock
        self._quick = 0
        self._quick_bytes = 0
        self._slow = 0
        self._barred_until = float("-inf")
        self._barred_seconds = _BARRED_SECONDS

    def note(self, size_bytes: int, seconds: float) -> None:
        """An execution of inputs of `size_bytes` on a thread of the version's own."""
        if seconds <= _QUICK_SECONDS and self._clock.monotonic() >= self._barred_until:
            self._quick += 1
            self._quick_bytes = max(self._quick_bytes, size_bytes)

    @property
    def is_proven(self) -> bool:
        return self._quick >= _LEARNING

    def allows(self, inputs: Tensors) -> bool:
        """Whether enough executions were quick that were as large as this one."""
        if self._quick < _LEARNING:
            return False
        return sum([array.nbytes for array in inputs.values()]) <= self._quick_bytes

    def run(self, model: Interruptible, inputs: Tensors, timing: Timing) -> dict[str, Array] | None:
        """The outputs; None where the model was not quick after all, and a thread must see to it."""
        timing.begun_ns = time.perf_counter_ns()
        try:
            return self._watchdog.run(model, inputs)
        except Interrupted:
            log.warning(
                "quick_model_interrupted seconds=%.3f", (time.perf_counter_ns() - timing.begun_ns) / 1e9
            )
            self._barred_until = self._clock.monotonic() + self._barred_seconds
            self._barred_seconds *= 2
            self._forget()
            return None
        finally:
            timing.done_ns = time.perf_counter_ns()
            if timing.done_ns - timing.begun_ns > _SLOW_NS:
                self._count_slow()
            else:
                self._slow = 0

    def _count_slow(self) -> None:
        self._slow += 1
        if self._slow >= _SLOW_TO_LEAVE:
            self._forget()

    def _forget(self) -> None:
        self._quick = self._quick_bytes = self._slow = 0
