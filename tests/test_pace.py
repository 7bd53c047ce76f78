"""Whether a new champion keeps the pace: never from one look, never from few answers, never alone."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from serving.core.latency import LatencyRule
from serving.core.sketch import Sketch
from serving.pace import CONTROL_SECONDS, Judgement, Pace, Progress, Step, judged, window_of

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
WATCH = timedelta(seconds=300)
BEGUN = Progress.begun("2", NOON + WATCH, WATCH)


def times(count: int, ms: float) -> Sketch:
    return Sketch.of(np.full(count, ms / 1000))


def after(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def found(pace: Pace) -> Judgement:
    return Judgement(pace, f"it is {pace}")


@pytest.mark.parametrize(
    ("before", "now", "pace"),
    [
        pytest.param((49, 10.0), (1000, 90.0), Pace.TOO_FEW, id="49-before"),
        pytest.param((50, 10.0), (49, 90.0), Pace.TOO_FEW, id="49-now"),
        pytest.param((50, 10.0), (50, 90.0), Pace.SLOWER, id="50-of-each"),
        pytest.param((0, 10.0), (50, 90.0), Pace.TOO_FEW, id="nothing-before"),
        pytest.param((500, 10.0), (500, 14.5), Pace.KEPT, id="under-5-ms-more"),
        pytest.param((500, 10.0), (500, 15.6), Pace.SLOWER, id="over-5-ms-more"),
        pytest.param((500, 100.0), (500, 122.0), Pace.KEPT, id="under-a-quarter-more"),
        pytest.param((500, 100.0), (500, 128.0), Pace.SLOWER, id="over-a-quarter-more"),
        pytest.param((500, 10.0), (500, 1.0), Pace.KEPT, id="quicker"),
    ],
)
def test_pace_is_judged_from_fifty_answers_and_beyond_both_limits(
    before: tuple[int, float], now: tuple[int, float], pace: Pace
) -> None:
    """Of each version."""
    judgement = judged(("1", times(*before)), ("2", times(*now)), LatencyRule(), "answers")
    assert judgement.pace is pace


def test_pace_is_unproven_when_a_few_slow_answers_lift_the_quantile() -> None:
    """Four of fifty, which chance may have sent."""
    mixed = Sketch.of(np.concatenate([np.full(46, 0.010), np.full(4, 0.100)]))
    assert judged(("1", times(500, 10.0)), ("2", mixed), LatencyRule(), "answers").pace is Pace.UNPROVEN


def test_judgement_says_both_figures_and_what_was_missing() -> None:
    said = judged(("1", times(500, 10.0)), ("2", times(60, 90.0)), LatencyRule(), "answers").said
    assert said.startswith("p95 of version 2 is ")
    assert " ms of version 1 (60 answers of version 2 and 500 of version 1)" in said
    said = judged(("1", times(3, 10.0)), ("2", times(60, 90.0)), LatencyRule(), "answers").said
    assert said == (
        "latency is not judged: 60 answers of version 2 and 3 of version 1; 50 of each are needed"
    )


@pytest.mark.parametrize(
    ("watch_seconds", "window_seconds"), [(3000.0, 30.0), (300.0, 30.0), (299.0, 29.9), (20.0, 2.0)]
)
def test_window_is_a_tenth_of_the_watch_and_half_a_minute_at_most(
    watch_seconds: float, window_seconds: float
) -> None:
    """So that two, and the copies, fit into any watch."""
    assert window_of(timedelta(seconds=watch_seconds)) == timedelta(seconds=window_seconds)


def test_first_answers_after_the_swap_do_not_count() -> None:
    """Caches are cold then."""
    assert BEGUN.window_from == after(10)


@pytest.mark.parametrize(
    ("windows", "is_suspected"),
    [
        ([Pace.SLOWER], False),
        ([Pace.SLOWER, Pace.SLOWER], True),
        ([Pace.SLOWER, Pace.KEPT, Pace.SLOWER], False),
        ([Pace.SLOWER, Pace.UNPROVEN, Pace.SLOWER], False),
        ([Pace.KEPT, Pace.SLOWER, Pace.SLOWER], True),
        ([Pace.SLOWER, Pace.TOO_FEW, Pace.SLOWER], True),
        ([Pace.TOO_FEW, Pace.TOO_FEW], False),
    ],
)
def test_copies_begin_after_two_slow_windows_in_a_row(windows: list[Pace], is_suspected: bool) -> None:
    """One with too few answers is no window yet."""
    progress = BEGUN
    for number, pace in enumerate(windows):
        progress = progress.after_window(found(pace), after(40 + 30 * number))
    assert (progress.control_from is not None) is is_suspected


def test_window_grows_while_its_answers_are_too_few() -> None:
    """It ends with the look that found enough, where the next begins."""
    grown = BEGUN.after_window(found(Pace.TOO_FEW), after(40))
    assert (grown.window_from, grown.said) == (BEGUN.window_from, "it is too_few")
    assert grown.after_window(found(Pace.KEPT), after(70)).window_from == after(70)


@pytest.mark.parametrize(
    ("pace", "seconds", "step", "goes_on"),
    [
        pytest.param(Pace.SLOWER, 0, Step.ROLL_BACK, False, id="proved"),
        pytest.param(Pace.KEPT, 0, Step.WAIT, False, id="the-other-is-as-slow"),
        pytest.param(Pace.UNPROVEN, 0, Step.WAIT, False, id="unproven"),
        pytest.param(Pace.TOO_FEW, CONTROL_SECONDS - 0.1, Step.WAIT, True, id="too-few-yet"),
        pytest.param(Pace.TOO_FEW, CONTROL_SECONDS, Step.WAIT, False, id="too-few-for-too-long"),
    ],
)
def test_champion_is_rolled_back_only_when_the_other_is_quicker_on_the_same_requests(
    pace: Pace, seconds: float, step: Step, goes_on: bool
) -> None:
    """A busier machine slows both; what cannot be confirmed is not held against anybody."""
    slow = BEGUN
    for moment in (40, 70):
        slow = slow.after_window(found(Pace.SLOWER), after(moment))
    decided, progress = slow.after_control(found(pace), after(70 + seconds))
    assert decided is step
    assert (progress.control_from is not None) is goes_on
    assert progress.slow_windows == (2 if goes_on else 0)
    assert progress.said.startswith("it is slower")
