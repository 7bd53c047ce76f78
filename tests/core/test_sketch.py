"""Quantiles to one per cent, moments, and the laws of adding up."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.core.sketch import NO_MOMENTS, RELATIVE_ERROR, Moments, Sketch, total

VALUES = st.lists(st.floats(0, 1e6, allow_subnormal=False) | st.sampled_from([0.0, 1e-12, 1e12]), max_size=60)
INTEGERS = st.lists(st.integers(-1000, 1000), max_size=30)


def sketch(values: list[float]) -> Sketch:
    return Sketch.of(np.array(values, np.float64))


def moments(values: list[int]) -> Moments:
    return Moments.of(np.array(values, np.float64))


@given(st.lists(st.floats(1e-9, 1e9), min_size=1, max_size=80), st.floats(0, 1))
def test_quantile_is_within_the_error_when_any_values(values: list[float], ratio: float) -> None:
    """Of the value that has the rank, whatever the values are."""
    exact = sorted(values)[math.floor(ratio * (len(values) - 1))]
    found = sketch(values).quantile(ratio)
    assert found == pytest.approx(exact, rel=RELATIVE_ERROR * 1.0001)


@given(VALUES)
def test_values_one_by_one_give_the_same_sketch(values: list[float]) -> None:
    """As all at once."""
    one_by_one = Sketch()
    for value in values:
        one_by_one.add(value)
    assert one_by_one == sketch(values)
    assert one_by_one.count == len(values)


@given(VALUES, VALUES, VALUES)
def test_sketches_add_up_in_any_order(a: list[float], b: list[float], c: list[float]) -> None:
    """Associative, commutative, with the empty one as identity, and equal to the sketch of all values."""
    first, second, third = sketch(a), sketch(b), sketch(c)
    assert first.plus(second).plus(third) == first.plus(second.plus(third)) == sketch(a + b + c)
    assert first.plus(second) == second.plus(first)
    assert first.plus(Sketch()) == Sketch().plus(first) == first
    assert total([first, second, third]) == sketch(a + b + c)


@given(VALUES, VALUES)
def test_adding_changes_neither_side(a: list[float], b: list[float]) -> None:
    """A window that was read may be added to many others."""
    first, second = sketch(a), sketch(b)
    first.plus(second)
    assert (first, second) == (sketch(a), sketch(b))


@given(VALUES, VALUES)
def test_what_was_added_can_be_taken_away(a: list[float], b: list[float]) -> None:
    """As a corrected label takes back the delay of the first."""
    assert sketch(a).plus(sketch(b)).plus(sketch(b), -1) == sketch(a)


@given(VALUES)
def test_sketch_is_the_same_when_it_comes_back_from_json(values: list[float]) -> None:
    """Nothing is lost on the way through the store."""
    told = json.loads(json.dumps(sketch(values).as_numbers()))
    assert Sketch.from_numbers(told) == sketch(values)


def test_serialised_sketch_is_small_when_values_are_like_latencies() -> None:
    """A second of ten thousand answers takes less than two kilobytes."""
    values = np.random.default_rng(7).lognormal(-6, 0.5, 10_000)
    assert len(json.dumps(Sketch.of(values).as_numbers(), separators=(",", ":"))) < 2000


def test_sketch_is_bounded_when_values_span_everything() -> None:
    """However odd the values, the number of buckets has a limit."""
    values = 10.0 ** np.linspace(-300, 300, 200_000)
    assert len(Sketch.of(values).as_numbers()) < 4200


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [
        pytest.param(0.0, 1.0, id="least"),
        pytest.param(0.5, 2.0, id="median"),
        pytest.param(1.0, 100.0, id="greatest"),
    ],
)
def test_quantile_is_found_when_three_values_are_known(ratio: float, expected: float) -> None:
    """Rank from 0 to 1."""
    assert sketch([100.0, 1.0, 2.0]).quantile(ratio) == pytest.approx(expected, rel=RELATIVE_ERROR)


def test_nothing_has_no_quantile() -> None:
    """Nor a share."""
    assert (Sketch().quantile(0.5), Sketch().share_above(1.0)) == (None, None)


def test_share_above_a_limit_is_counted() -> None:
    """For objectives as 99 % within 100 ms."""
    assert sketch([0.01] * 98 + [0.2] * 2).share_above(0.1) == pytest.approx(0.02)


def test_nan_is_left_out_and_zeros_are_kept() -> None:
    """A clock that gave nonsense spoils no quantile."""
    assert Sketch.of(np.array([math.nan, 0.0, -1.0, 2.0])).count == 3
    assert sketch([0.0, 0.0, 5.0]).quantile(0.5) == 0.0


def test_damaged_numbers_are_refused() -> None:
    """Instead of giving quantiles of nothing."""
    with pytest.raises(ValueError, match="odd count"):
        Sketch.from_numbers([1, 2])
    with pytest.raises(ValueError, match="five numbers"):
        Moments.from_numbers([1.0, 2.0])


@given(INTEGERS, INTEGERS, INTEGERS)
def test_moments_add_up_in_any_order(a: list[int], b: list[int], c: list[int]) -> None:
    """Integers are summed exactly, so the law can be checked exactly."""
    first, second, third = moments(a), moments(b), moments(c)
    assert first.plus(second).plus(third) == first.plus(second.plus(third)) == moments(a + b + c)
    assert first.plus(second) == second.plus(first)
    assert first.plus(NO_MOMENTS) == first
    assert Moments.from_numbers(json.loads(json.dumps(first.as_numbers()))) == first


def test_moments_tell_mean_and_variance() -> None:
    """The sample's variance, none where it is not defined."""
    assert moments([1, 2, 3, 4]).mean == 2.5
    assert moments([1, 2, 3, 4]).variance == pytest.approx(5 / 3)
    assert (NO_MOMENTS.mean, moments([1]).variance) == (None, None)
