"""Finds out that a version stopped answering, and spares its callers the wait.

An execution is stuck when it runs much longer than any did before and nobody waits for it any more. A
thread cannot be ended from outside, so each trial gets one of a few spare threads. Confined to the event
loop's thread.
"""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass

from serving.core.circuit import CLOSED, Admission, Circuit, Phase, ask, returned, stuck
from serving.core.clock import Clock
from serving.core.errors import VersionUnresponsive
from serving.core.model import VersionRef
from serving.runners import Runners

log = logging.getLogger(__name__)

# A slow version is not a stuck one: it may take this long, or thrice its slowest time so far.
_STUCK_SECONDS = 5.0
_STUCK_FACTOR = 3.0
MAX_SPARE_THREADS = 8


@dataclass(slots=True, eq=False)
class Run:
    """One execution."""

    began_at: float
    is_awaited: Callable[[float], bool]


class Breaker:
    """`on_change` is called when the circuit opens or closes, not between two trials.

    `on_open` is told the refusal, each time the circuit opens, for those who wait already.
    """

    def __init__(
        self, ref: VersionRef, runners: Runners, clock: Clock, on_change: Callable[[], None] = lambda: None
    ) -> None:
        self._ref = ref
        self._runners = runners
        self._clock = clock
        self._on_change = on_change
        self.on_open: Callable[[VersionUnresponsive], None] = lambda _: None
        self._runs: list[Run] = []
        self._circuit = CLOSED
        self._slowest_seconds = 0.0
        self._spare_threads = 0

    @property
    def is_open(self) -> bool:
        return not self._circuit.is_closed

    @property
    def stuck_threads(self) -> int:
        now = self._clock.monotonic()
        return sum(self._is_stuck(run, now) for run in self._runs)

    def admit(self, now: float) -> None:
        """Let a request pass, or raise `VersionUnresponsive`."""
        if self._circuit.phase is not Phase.OPEN and len(self._runs) < self._runners.count:
            return  # also where the trial left before it began: its thread is still there
        self.look(now)
        admitted = ask(self._circuit, now)
        if admitted.admission is Admission.TRIAL and not self._lend_thread():
            admitted = ask(self._circuit, -math.inf)
        self._circuit = admitted.circuit
        if admitted.admission is Admission.REFUSE:
            raise self._refusal(now)

    def begin(self, now: float, is_awaited: Callable[[float], bool]) -> Run:
        """Note an execution; `is_awaited` says at a moment of the clock whether somebody still wants it."""
        run = Run(now, is_awaited)
        self._runs.append(run)
        return run

    def ended(self, run: Run, now: float) -> None:
        self._runs.remove(run)
        self._slowest_seconds = max(self._slowest_seconds, now - run.began_at)
        if self._spare_threads > len(self._runs):
            self._spare_threads -= 1
            self._runners.count -= 1
        self._become(returned(self._circuit))

    def look(self, now: float) -> None:
        """Open the circuit if every thread is stuck."""
        if len(self._runs) < self._runners.count or not all(self._is_stuck(run, now) for run in self._runs):
            return
        was = self._circuit
        self._become(stuck(was, now))
        if was is not self._circuit:
            self.on_open(self._refusal(now))

    def _refusal(self, now: float) -> VersionUnresponsive:
        wait_seconds = max(1.0, self._circuit.retry_at - now)
        return VersionUnresponsive(self._ref.model, self._ref.version, retry_after_seconds=wait_seconds)

    def _is_stuck(self, run: Run, now: float) -> bool:
        fair_seconds = max(_STUCK_SECONDS, _STUCK_FACTOR * self._slowest_seconds)
        return now - run.began_at >= fair_seconds and not run.is_awaited(now)

    def _lend_thread(self) -> bool:
        """A thread for a trial; the stuck ones keep theirs."""
        if self._spare_threads >= MAX_SPARE_THREADS:
            return False
        self._spare_threads += 1
        self._runners.count += 1
        return True

    def _become(self, circuit: Circuit) -> None:
        has_changed = circuit.is_closed is not self._circuit.is_closed
        self._circuit = circuit
        if has_changed:
            log.warning("version_%s version=%s", "answers_again" if circuit.is_closed else "stuck", self._ref)
            self._on_change()
