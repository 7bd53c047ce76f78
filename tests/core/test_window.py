"""Windows of telemetry add up, and say rates and quantiles."""

import json
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.core.scored import NOT_SCORED, Scored, total_scored
from serving.core.sketch import Moments, Sketch
from serving.core.window import MAX_ERRORS, NOTHING, OTHER_ERRORS, WindowStats, combined

# Integers as seconds: their sums are exact, so that laws can be.
NUMBERS = st.lists(st.integers(0, 1000), max_size=8).map(lambda values: np.array(values, np.float64))
CLASSES = st.sampled_from(["cat", "dog"])
SCORED = st.builds(
    Scored,
    classified=st.integers(0, 9),
    right=st.integers(0, 9),
    pairs=st.dictionaries(st.tuples(CLASSES, CLASSES), st.integers(1, 9)),
    measured=st.integers(1, 9),
    absolute=st.integers(0, 9).map(float),
    squared=st.integers(0, 9).map(float),
    delays=NUMBERS.map(Sketch.of),
)
WINDOWS = st.builds(
    WindowStats,
    statuses=st.dictionaries(st.sampled_from(["ok", "failed", "timeout"]), st.integers(1, 99)),
    rows=st.integers(0, 99),
    faults=st.integers(0, 99),
    latency=NUMBERS.map(Sketch.of),
    queue=NUMBERS.map(Moments.of),
    compute=NUMBERS.map(Moments.of),
    batches=NUMBERS.map(Moments.of),
    errors=st.dictionaries(st.sampled_from(["ValueError/1", "KeyError/2"]), st.integers(1, 9)),
    scored=SCORED | st.just(NOT_SCORED),
)


@given(WINDOWS, WINDOWS, WINDOWS)
def test_windows_add_up_in_any_order(a: WindowStats, b: WindowStats, c: WindowStats) -> None:
    """Associative and commutative, and nothing changes nothing."""
    assert a.plus(b).plus(c) == a.plus(b.plus(c)) == combined([c, a, b])
    assert a.plus(b) == b.plus(a)
    assert a.plus(NOTHING) == a


@given(WINDOWS)
def test_window_is_the_same_when_it_comes_back_from_json(window: WindowStats) -> None:
    """Nothing is lost on the way through the store."""
    assert WindowStats.from_json(json.loads(json.dumps(window.as_json()))) == window


def test_nothing_takes_no_room() -> None:
    """An empty window is an empty object, and comes back."""
    assert NOTHING.as_json() == {}
    assert WindowStats.from_json({}) == NOTHING


@pytest.mark.parametrize(
    ("ratio_of", "expected"),
    [
        pytest.param(lambda w: w.error_ratio, 0.1, id="errors"),
        pytest.param(lambda w: w.requests, 11, id="requests"),
        pytest.param(lambda w: w.label_coverage, 0.25, id="coverage"),
        pytest.param(lambda w: w.latency_ms(0.5), pytest.approx(10, rel=0.01), id="latency"),
    ],
)
def test_window_tells_its_rates(ratio_of: Callable[[WindowStats], float | None], expected: float) -> None:
    """Faults among what was answered or should have been; labels among answered rows."""
    window = WindowStats(
        statuses={"ok": 9, "failed": 1, "invalid": 1},
        rows=20,
        faults=1,
        latency=Sketch.of(np.array([0.01] * 9)),
        scored=Scored(classified=5, right=5),
    )
    assert ratio_of(window) == expected


def test_nothing_has_no_rates() -> None:
    """None, not 0: a version that was not asked has no error rate."""
    assert (NOTHING.error_ratio, NOTHING.label_coverage, NOTHING.latency_ms(0.5)) == (None, None, None)


def test_rare_errors_are_told_together_when_there_are_many() -> None:
    """A model that raises something new each time cannot grow a window for ever; none is uncounted."""
    many = [WindowStats(errors={f"E/{n}": n + 1}) for n in range(100)]
    errors = combined(many).errors
    assert len(errors) == MAX_ERRORS
    assert (sum(errors.values()), errors["E/99"], OTHER_ERRORS in errors) == (5050, 100, True)


def classes(*pairs: tuple[str, str]) -> Scored:
    return total_scored(Scored(1, int(true == said), {(true, said): 1}) for true, said in pairs)


def test_scores_are_the_means_over_classes() -> None:
    """As scikit-learn's macro average has them."""
    scored = classes(("a", "a"), ("a", "a"), ("a", "b"), ("b", "b"), ("c", "a"))
    assert scored.accuracy == pytest.approx(0.6)
    found = scored.averages()
    assert found["precision"] == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    assert found["recall"] == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert found["f1"] == pytest.approx((2 / 3 + 2 / 3 + 0) / 3)


def test_scores_are_not_told_when_pairs_are_missing() -> None:
    """Of more classes than are kept, only the accuracy is known."""
    assert (Scored(classified=3, right=2).averages(), Scored(classified=3, right=2).accuracy) == ({}, 2 / 3)


def test_errors_of_numbers_are_told() -> None:
    """Mean absolute and root of the mean squared error."""
    scored = Scored(measured=2, absolute=3.0, squared=5.0)
    assert scored.mae == 1.5
    assert scored.rmse == pytest.approx(2.5**0.5)
    assert scored.accuracy is None


@given(SCORED, SCORED)
def test_label_can_be_taken_back(a: Scored, b: Scored) -> None:
    """What a corrected label said before leaves no trace."""
    assert a.plus(b).plus(b, -1) == a
