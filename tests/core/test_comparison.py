"""How two versions' answers differ: every kind of output, and that pairs add up in any order."""

import json
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from serving.core.comparison import MAX_ELEMENTS, MAX_EXAMPLES, Example, OutputTally, Tally, compare

NAN, INF = float("nan"), float("inf")


def one(champion: Any, other: Any, dtype: Any = np.float32) -> OutputTally:
    [tally] = compare({"y": np.array(champion, dtype)}, {"y": np.array(other, dtype)}).values()
    return tally


def told(tally: OutputTally) -> tuple[int, float, int, int, int, int]:
    return (
        tally.elements,
        round(tally.difference_max, 3),
        tally.labels,
        tally.labels_differing,
        tally.non_finite,
        tally.incomparable,
    )


@pytest.mark.parametrize(
    ("champion", "other", "expected", "disagrees"),
    [
        pytest.param([1.0, 2.0], [1.0, 2.0], (2, 0.0, 0, 0, 0, 0), False, id="equal"),
        pytest.param([1.0, 2.0], [1.05, 2.0], (2, 0.05, 0, 0, 0, 0), False, id="near"),
        pytest.param([1.0, 2.0], [1.2, 2.0], (2, 0.2, 0, 0, 0, 0), True, id="far"),
        pytest.param([0.0], [0.0], (1, 0.0, 0, 0, 0, 0), False, id="both-zero"),
        pytest.param([], [], (0, 0.0, 0, 0, 0, 0), False, id="no-rows"),
        pytest.param([[0.9, 0.1]], [[0.6, 0.4]], (2, 0.3, 1, 0, 0, 0), False, id="same-class"),
        pytest.param([[0.9, 0.1]], [[0.4, 0.6]], (2, 0.5, 1, 1, 0, 0), True, id="other-class"),
        pytest.param([[0.9], [0.1]], [[0.9], [0.1]], (2, 0.0, 0, 0, 0, 0), False, id="one-column"),
        pytest.param([NAN, 1.0], [NAN, 1.0], (1, 0.0, 0, 0, 0, 0), False, id="both-nan"),
        pytest.param([NAN, 1.0], [2.0, 1.0], (1, 0.0, 0, 0, 1, 0), True, id="one-nan"),
        pytest.param([INF], [INF], (0, 0.0, 0, 0, 0, 0), False, id="same-infinity"),
        pytest.param([INF], [-INF], (0, 0.0, 0, 0, 1, 0), True, id="other-infinity"),
        pytest.param(
            [[NAN, 1.0], [1.0, 0.0]], [[NAN, 1.0], [0.0, 1.0]], (3, 1.0, 1, 1, 0, 0), True, id="row"
        ),
        pytest.param([1.0], [1.0, 2.0], (0, 0.0, 0, 0, 0, 1), True, id="other-shape"),
    ],
)
def test_floats_are_compared_by_value_and_by_class(
    champion: Any, other: Any, expected: tuple[Any, ...], disagrees: bool
) -> None:
    """Differences over what is finite on both sides, classes where there are several columns."""
    tally = one(champion, other)
    assert told(tally) == expected
    assert tally.disagrees is disagrees


@pytest.mark.parametrize(
    ("champion", "other", "dtype", "differing"),
    [
        pytest.param([1, 2, 3], [1, 5, 3], np.int64, 1, id="integers"),
        pytest.param([True, False], [False, False], np.bool_, 1, id="booleans"),
        pytest.param(["cat", "dog"], ["cat", "cow"], np.object_, 1, id="texts"),
        pytest.param([[1, 2], [3, 4]], [[1, 2], [3, 4]], np.uint8, 0, id="equal"),
    ],
)
def test_other_types_are_labels(champion: Any, other: Any, dtype: Any, differing: int) -> None:
    """Element by element."""
    tally = one(champion, other, dtype)
    assert (tally.labels, tally.labels_differing) == (np.array(champion).size, differing)
    assert tally.disagrees is bool(differing)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ml_dtypes.bfloat16])
def test_every_float_type_is_compared_in_full_precision(dtype: Any) -> None:
    assert one([1.0, 2.0], [1.5, 2.0], dtype).difference_max == 0.5


@pytest.mark.parametrize(
    ("champion", "other"),
    [
        ({"y": np.zeros(1, np.float32)}, {}),
        ({}, {"y": np.zeros(1, np.float32)}),
        ({"y": np.zeros(1, np.float32)}, {"y": np.zeros(1, np.int64)}),
        ({"y": np.zeros(1, np.int64)}, {"y": np.array(["a"], np.object_)}),
    ],
)
def test_output_is_incomparable_when_it_is_absent_or_of_another_type(
    champion: dict[str, Any], other: dict[str, Any]
) -> None:
    [tally] = compare(champion, other).values()
    assert (tally.incomparable, tally.disagrees) == (1, True)
    assert tally.describe() == "other shape, type or absent"


def test_differences_stay_finite_when_the_values_are_extreme() -> None:
    """A sum that overflowed could not be stored as JSON."""
    tally = one([1.7e308, 1.0], [-1.7e308, 1.0], np.float64)
    tally.merge(tally)
    assert np.isfinite(json.loads(json.dumps(tally.as_json(), allow_nan=False))["difference_sum"])


def test_large_tensors_are_thinned_evenly() -> None:
    """The cost of a comparison is bounded; a difference everywhere is still seen everywhere."""
    big = np.zeros((1000, 1000), np.float32)
    [tally] = compare({"y": big}, {"y": big + 1}).values()
    assert MAX_ELEMENTS // 2 < tally.elements <= MAX_ELEMENTS
    assert tally.mean_difference == tally.difference_max == 1.0


def test_medians_tell_shifted_predictions_from_equal_ones() -> None:
    """What a judge needs: the median difference beside the champion's median size."""
    chance = np.random.default_rng(7)
    tally = Tally()
    for _ in range(50):
        champion = chance.normal(10, 1, (1, 1)).astype(np.float32)
        tally.add(compare({"y": champion}, {"y": champion + 6}), 0.001, 0.002)
    output = tally.outputs["y"]
    assert output.differences.median == pytest.approx(6, rel=0.03)
    assert output.champion.median == pytest.approx(10, rel=0.1)
    assert (tally.pairs, tally.disagreeing) == (50, 50)


def test_descriptions_are_for_a_person() -> None:
    assert one([1.0], [3.0]).describe() == "differs by 2 on average, 2 at most"
    assert one([[0.0, 1.0]], [[1.0, 0.0]]).describe().startswith("1 of 1 labels differ")
    assert one([NAN], [1.0]).describe() == "1 elements are NaN or infinite in one answer"
    assert one([1.0], [1.0]).describe() == "equal"


pairs = st.lists(
    st.integers(1, 4).flatmap(
        lambda rows: st.tuples(
            arrays.arrays(np.float32, (rows, 3), elements=st.floats(-1e6, 1e6, width=32)),
            arrays.arrays(np.float32, (rows, 3), elements=st.floats(-1e6, 1e6, width=32)),
        )
    ),
    max_size=6,
)


def tally_of(found: list[tuple[Any, Any]]) -> Tally:
    tally = Tally()
    for champion, other in found:
        tally.add(compare({"y": champion}, {"y": other}), 0.5, 0.25)
    return tally


@given(pairs, pairs)
def test_tallies_merge_as_if_counted_together(
    one: list[tuple[Any, Any]], other: list[tuple[Any, Any]]
) -> None:
    """Minutes and replicas add up; but for the rounding of a sum, in any order."""
    merged, together = tally_of(one), tally_of([*one, *other])
    merged.merge(tally_of(other))
    for tally in (merged, together):
        for output in tally.outputs.values():
            assert output.difference_sum == pytest.approx(output.difference_sum)
            output.difference_sum = 0.0
    assert merged == together


@given(pairs)
def test_tally_survives_json(found: list[tuple[Any, Any]]) -> None:
    tally = tally_of(found)
    tally.keep(Example("r-1", "2026-01-01T00:00:00+00:00", "y: equal"))
    tally.failed = 3
    assert Tally.from_json(json.loads(json.dumps(tally.as_json()))) == tally


def test_examples_are_bounded_when_merged() -> None:
    """However many disagree."""
    merged = Tally()
    for number in range(20):
        tally = Tally()
        tally.keep(Example(str(number), "", ""))
        merged.merge(tally)
    assert [example.request_id for example in merged.examples] == [str(n) for n in range(MAX_EXAMPLES)]
