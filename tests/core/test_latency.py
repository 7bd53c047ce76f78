"""The one rule of latency: worse only beyond both limits, and only where the sample proves it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from serving.core.latency import LatencyRule, quantile_ranks
from serving.core.sketch import Sketch

RULE = LatencyRule()


@pytest.mark.parametrize(
    ("one_ms", "other_ms", "is_beyond"),
    [
        pytest.param(100.0, 125.0, False, id="at-the-ratio"),
        pytest.param(100.0, 125.1, True, id="beyond-both"),
        pytest.param(10.0, 15.0, False, id="at-the-extra"),
        pytest.param(10.0, 15.1, True, id="just-beyond-the-extra"),
        pytest.param(1.0, 6.0, False, id="six-times-but-only-5-ms-more"),
        pytest.param(1000.0, 1200.0, False, id="200-ms-more-but-only-a-fifth"),
        pytest.param(0.0, 5.1, True, id="from-nothing"),
        pytest.param(20.0, 4.0, False, id="quicker"),
    ],
)
def test_latency_is_worse_only_beyond_both_limits(one_ms: float, other_ms: float, is_beyond: bool) -> None:
    """A ratio alone would condemn trifles, milliseconds alone whatever is slow anyway."""
    assert RULE.is_beyond(one_ms, other_ms) is is_beyond


def test_limits_are_the_policys() -> None:
    """Each of both."""
    assert LatencyRule(max_ratio=1.1).is_beyond(100.0, 120.0)
    assert LatencyRule(max_extra_ms=1.0).is_beyond(1.0, 2.1)


def test_contrast_is_proved_only_by_enough_samples() -> None:
    """A few slow answers lift the quantile, and say nothing of its lower bound."""
    quick = Sketch.of(np.full(1000, 0.010))
    mixed = Sketch.of(np.concatenate([np.full(46, 0.010), np.full(4, 0.100)]))
    seen = RULE.contrast(quick, mixed)
    assert (seen.is_beyond, seen.is_proved) == (True, False)
    seen = RULE.contrast(quick, Sketch.of(np.concatenate([np.full(4600, 0.010), np.full(400, 0.100)])))
    assert (seen.is_beyond, seen.is_proved) == (True, True)
    assert seen.other_ms == pytest.approx(100, rel=0.02)
    assert seen.one_high_ms == pytest.approx(10, rel=0.02)


@given(count=st.integers(0, 10_000), ratio=st.floats(0.01, 0.99))
def test_ranks_hold_the_quantile(count: int, ratio: float) -> None:
    """And come closer as the sample grows."""
    low, high = quantile_ranks(count, ratio, 0.01)
    assert 0 <= low <= high <= 1
    if count >= 1000:
        assert low - 0.001 <= ratio <= high + 0.001
        assert high - low < 0.1


@pytest.mark.parametrize("count", [2, 3, 49, 50, 51, 1000, 100_000])
@pytest.mark.parametrize("ratio", [0.5, 0.95, 0.99])
def test_ranks_are_the_binomials(count: int, ratio: float) -> None:
    """As scipy has them."""
    low, high = (float(binom.ppf(level, count, ratio)) for level in (0.005, 0.995))
    expected = max(0.0, (low - 1) / (count - 1)), min(1.0, high / (count - 1))
    assert quantile_ranks(count, ratio, 0.01) == pytest.approx(expected)
