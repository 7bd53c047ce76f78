"""A version whose threads do not come back: noticed, spared its callers, tried again, taken back."""

import pytest

from serving.breaker import MAX_SPARE_THREADS, Breaker, Run
from serving.core.clock import ManualClock
from serving.core.errors import VersionUnresponsive
from serving.core.model import VersionRef
from serving.runners import Runners

LONG_SECONDS = 5.0


class Desk:
    """A breaker over two threads, and the executions begun at it."""

    def __init__(self, threads: int = 2) -> None:
        self.clock = ManualClock()
        self.runners = Runners(threads, "test")
        self.changes: list[bool] = []
        self.refusals: list[VersionUnresponsive] = []
        self.breaker = Breaker(
            VersionRef("digits", "3"), self.runners, self.clock, lambda: self.changes.append(self.is_open)
        )
        self.breaker.on_open = self.refusals.append
        self.awaited: set[Run] = set()

    @property
    def is_open(self) -> bool:
        return self.breaker.is_open

    def begin(self, *, awaited: bool = False) -> Run:
        run = self.breaker.begin(self.clock.monotonic(), lambda _: run in self.awaited)
        if awaited:
            self.awaited.add(run)
        return run

    def passes(self) -> bool:
        try:
            self.breaker.admit(self.clock.monotonic())
        except VersionUnresponsive:
            return False
        return True

    def end(self, run: Run) -> None:
        self.breaker.ended(run, self.clock.monotonic())


def stuck_desk() -> Desk:
    desk = Desk()
    desk.begin()
    desk.begin()
    desk.clock.advance(LONG_SECONDS)
    assert not desk.passes()
    return desk


@pytest.mark.parametrize(
    ("awaited", "seconds", "runs", "passes"),
    [
        pytest.param(False, LONG_SECONDS, 2, False, id="all-stuck"),
        pytest.param(False, LONG_SECONDS - 0.01, 2, True, id="not-long-enough"),
        pytest.param(False, LONG_SECONDS, 1, True, id="a-thread-is-free"),
        pytest.param(True, 1000.0, 2, True, id="somebody-still-waits"),
    ],
)
def test_version_is_stuck_when_no_thread_came_back_in_a_fair_time(
    awaited: bool, seconds: float, runs: int, passes: bool
) -> None:
    """Callers in a hurry make no version stuck, nor does a long answer that somebody waits for."""
    desk = Desk()
    for _ in range(runs):
        desk.begin(awaited=awaited)
    desk.clock.advance(seconds)
    assert desk.passes() is passes
    assert desk.is_open is not passes


@pytest.mark.parametrize(("seconds", "passes"), [(29.9, True), (30.0, False)])
def test_slow_version_has_thrice_its_slowest_time(seconds: float, passes: bool) -> None:
    """What once took ten seconds is not stuck after five."""
    desk = Desk()
    slow = desk.begin()
    desk.clock.advance(10.0)
    desk.end(slow)
    desk.begin()
    desk.begin()
    desk.clock.advance(seconds)
    assert desk.passes() is passes


def test_opening_is_told_once_with_those_who_wait() -> None:
    """One change, one refusal for the queue, however many ask meanwhile."""
    desk = stuck_desk()
    for _ in range(3):
        assert not desk.passes()
    assert desk.changes == [True]
    assert [str(refusal) for refusal in desk.refusals] == [
        "version 3 of 'digits' does not answer: all its threads are stuck; it is tried again in 5 s"
    ]
    assert desk.breaker.stuck_threads == 2


def test_one_request_tries_when_the_pause_is_over() -> None:
    """On a thread of its own; its return closes the circuit and the spare thread is given back."""
    desk = stuck_desk()
    desk.clock.advance(5.0)
    assert desk.passes()
    trial = desk.begin(awaited=True)
    assert not desk.passes()
    assert desk.runners.count == 3
    desk.end(trial)
    assert not desk.is_open
    assert desk.changes == [True, False]
    assert desk.runners.count == 3  # two threads are still lost
    assert desk.passes()


def test_next_request_tries_when_the_trial_left_before_it_began() -> None:
    """A caller in too much of a hurry must not leave the version shut for good."""
    desk = stuck_desk()
    desk.clock.advance(5.0)
    assert desk.passes()
    assert desk.passes()
    assert desk.runners.count == 3


def test_pause_doubles_when_the_trial_does_not_return() -> None:
    """And nobody is told a second time."""
    desk = stuck_desk()
    desk.clock.advance(5.0)
    assert desk.passes()
    desk.begin()
    desk.clock.advance(LONG_SECONDS)
    assert not desk.passes()
    desk.clock.advance(9.9)
    assert not desk.passes()
    desk.clock.advance(0.1)
    assert desk.passes()
    assert desk.changes == [True]


def test_trials_end_when_no_spare_thread_is_left() -> None:
    """A model that never returns costs a bounded number of threads; its return still counts."""
    desk = stuck_desk()
    for _ in range(MAX_SPARE_THREADS):
        desk.clock.advance(60.0)
        assert desk.passes()
        lost = desk.begin()
        desk.clock.advance(LONG_SECONDS)
        assert not desk.passes()
    desk.clock.advance(1000.0)
    assert not desk.passes()
    assert desk.runners.count == 2 + MAX_SPARE_THREADS
    desk.end(lost)
    assert desk.passes()
    assert not desk.is_open
