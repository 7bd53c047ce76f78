"""Models that are asked on the event loop: who may, and what becomes of one that does not return."""

import threading
from collections.abc import Mapping

import numpy as np
import pytest

from serving.batcher import Timing
from serving.core.clock import ManualClock
from serving.core.datatypes import Array
from serving.formats.loader import Interrupted
from serving.promptness import Promptness, Watchdog

SMALL = {"x": np.zeros(4, np.float32)}
LARGE = {"x": np.zeros(5, np.float32)}


class Interruptible:
    """Returns at once, or only when it is interrupted."""

    def __init__(self, *, hangs: bool = False) -> None:
        self._hangs = hangs
        self._stop = threading.Event()

    def predict_interruptibly(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        if self._hangs:
            assert self._stop.wait(20), "nobody interrupted it"
            raise Interrupted
        return dict(inputs)

    def interrupt(self) -> None:
        self._stop.set()


def _proven(clock: ManualClock) -> Promptness:
    promptness = Promptness(Watchdog(look_seconds=0.01), clock)
    for _ in range(8):
        promptness.note(16, 50e-6)
    return promptness


@pytest.mark.parametrize(
    ("executions", "seconds", "expected"),
    [
        pytest.param(8, 100e-6, True, id="enough and quick"),
        pytest.param(7, 100e-6, False, id="one too few"),
        pytest.param(8, 101e-6, False, id="just too slow"),
    ],
)
def test_model_is_asked_on_the_loop_when_it_was_quick_often_enough(
    executions: int, seconds: float, expected: bool
) -> None:
    """Both sides of both boundaries."""
    promptness = Promptness(Watchdog(), ManualClock())
    for _ in range(executions):
        promptness.note(16, seconds)
    assert promptness.allows(SMALL) is expected


def test_larger_inputs_go_to_a_thread_when_only_small_ones_were_quick() -> None:
    """What was quick says nothing of more."""
    promptness = _proven(ManualClock())
    assert (promptness.allows(SMALL), promptness.allows(LARGE)) == (True, False)


def test_model_that_hangs_is_interrupted_and_kept_off_the_loop_when_it_was_quick_before() -> None:
    """The loop goes on, nothing is answered, and the next executions on threads count again after a while."""
    clock = ManualClock()
    promptness = _proven(clock)
    assert promptness.run(Interruptible(hangs=True), SMALL, Timing()) is None
    assert not promptness.is_proven
    for _ in range(8):
        promptness.note(16, 50e-6)
    assert not promptness.is_proven
    clock.advance(60)
    for _ in range(8):
        promptness.note(16, 50e-6)
    assert promptness.is_proven


def test_outputs_and_times_are_told_when_a_quick_model_answers() -> None:
    """As of an execution on a thread."""
    timing = Timing()
    outputs = _proven(ManualClock()).run(Interruptible(), SMALL, timing)
    assert outputs is not None
    assert outputs["x"] is SMALL["x"]
    assert 0 < timing.begun_ns <= timing.done_ns


def test_watchdog_ends_when_it_is_closed() -> None:
    """Also while it sleeps."""
    before = set(threading.enumerate())
    watchdog = Watchdog(look_seconds=0.01)
    watchdog.run(Interruptible(), SMALL)
    watchdog.close()
    assert set(threading.enumerate()) <= before
