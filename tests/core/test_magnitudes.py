"""The sketch of magnitudes: quantiles within 2 %, whatever was merged in which order."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from serving.core.magnitudes import Magnitudes

sizes = arrays.arrays(np.float64, st.integers(0, 200), elements=st.floats(0, 1e9))


def counted(values: list[float] | np.ndarray) -> Magnitudes:
    sketch = Magnitudes()
    sketch.add(np.asarray(values, np.float64))
    return sketch


@given(sizes, st.sampled_from([0.0, 0.25, 0.5, 0.95, 1.0]))
def test_quantile_is_within_two_percent(values: np.ndarray, ratio: float) -> None:
    """Of the value at that rank, the lower one where the rank is between two."""
    found = counted(values).quantile(ratio)
    if not len(values):
        assert found is None
        return
    exact = np.quantile(values, ratio, method="lower")
    assert found == pytest.approx(exact, rel=0.0201, abs=1e-12)


@given(sizes, sizes)
def test_merging_equals_counting_together(one: np.ndarray, other: np.ndarray) -> None:
    """In either order."""
    for first, second in ((one, other), (other, one)):
        merged = counted(first)
        merged.merge(counted(second))
        assert merged == counted(np.concatenate([one, other]))
        assert merged.count == len(one) + len(other)


@given(sizes)
def test_sketch_survives_json(values: np.ndarray) -> None:
    sketch = counted(values)
    assert Magnitudes.from_json(json.loads(json.dumps(sketch.as_json()))) == sketch


@given(st.floats(0, 1e15))
def test_one_value_is_counted_as_an_array_of_one(value: float) -> None:
    sketch = Magnitudes()
    sketch.add_one(value)
    assert sketch == counted([value])


def test_buckets_are_bounded_whatever_is_counted() -> None:
    """The smallest counts as zero, the largest as the bound."""
    sketch = counted(np.logspace(-300, 300, 100_000))
    assert len(sketch.buckets) < 1500
    assert sketch.count == 100_000
    assert sketch.quantile(1.0) == pytest.approx(1e12, rel=0.03)
