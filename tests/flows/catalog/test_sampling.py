"""What many calls say together: quantiles, steadiness and intervals, on times written by hand."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.catalog.performance import Statistic
from flows.catalog.sampling import Window, estimate, is_stable, latency_of, ratio, window_of
from serving.core.datatypes import Array


def blocks(seed: int, count: int = 20, calls: int = 30, factor: float = 1.0) -> list[Array]:
    """Times around a millisecond with the long tail that real ones have."""
    rng = np.random.default_rng(seed)
    return [factor * rng.lognormal(0.0, 0.3, calls) for _ in range(count)]


def windows(*p50s_ms: float, rate: float = 100.0) -> list[Window]:
    return [Window(p50_ms, rate) for p50_ms in p50s_ms]


@pytest.mark.parametrize(
    ("seen", "stable"),
    [
        pytest.param(windows(1.0, 1.0), False, id="two windows are too few"),
        pytest.param(windows(1.0, 1.0, 1.0), True, id="three alike"),
        pytest.param(windows(0.91, 1.0, 1.09), True, id="just within a tenth of the mean"),
        pytest.param(windows(0.89, 1.0, 1.11), False, id="just beyond it"),
        pytest.param(windows(9.0, 1.0, 1.0, 1.0), True, id="only the last three count"),
        pytest.param(windows(1.0, 1.0, 1.0, 9.0), False, id="the last one too"),
        pytest.param([*windows(1.0, 1.0), Window(1.0, 70.0)], False, id="throughput counts as well"),
    ],
)
def test_stability_holds_when_tabulated(seen: list[Window], stable: bool) -> None:
    """perf_analyzer's rule, on both sides of its tolerance."""
    assert is_stable(seen, 0.1) is stable


def test_window_is_its_median_and_rate_when_made() -> None:
    assert window_of([np.array([1.0, 2.0]), np.array([3.0])]) == Window(2.0, 500.0)


def test_quantiles_are_those_of_all_calls_when_blocks_differ() -> None:
    times = [np.arange(1.0, 501.0), np.arange(501.0, 1001.0)]
    found = latency_of(times)
    assert found.mean == 500.5
    assert found.p50 == 500.5
    assert found.p95 == pytest.approx(950.05)
    assert found.p999 == pytest.approx(999.001)


@pytest.mark.parametrize("statistic", list(Statistic))
def test_ratio_is_found_with_its_interval_when_one_side_takes_longer(statistic: Statistic) -> None:
    """The interval holds the truth and shuts out equality."""
    found = ratio(blocks(1, factor=1.5), blocks(2), statistic, np.random.default_rng(0))
    assert found.low < 1.5 < found.high
    assert found.low > 1.0
    assert found.low <= found.value <= found.high


def test_ratio_stays_sharp_when_both_sides_are_disturbed_alike() -> None:
    """Blocks drawn in pairs: what slowed both at once cancels out, which it would not otherwise."""
    slowdowns = np.random.default_rng(3).choice([1.0, 10.0], 40)
    ours = [block * slow for block, slow in zip(blocks(1, 40, factor=1.5), slowdowns, strict=True)]
    theirs = [block * slow for block, slow in zip(blocks(2, 40), slowdowns, strict=True)]
    rng = np.random.default_rng(0)
    paired = ratio(ours, theirs, Statistic.MEAN, rng)
    alone = estimate(ours, Statistic.MEAN, rng)
    assert paired.low < 1.5 < paired.high
    assert (paired.high - paired.low) / paired.value < (alone.high - alone.low) / alone.value / 3


@settings(max_examples=20)
@given(st.integers(0, 1000), st.sampled_from(list(Statistic)))
def test_ratio_of_a_side_to_itself_is_one_when_anything_was_measured(seed: int, statistic: Statistic) -> None:
    """Exactly, with no width: the pairs are equal."""
    same = blocks(seed, count=5, calls=4)
    found = ratio(same, same, statistic, np.random.default_rng(0))
    assert (found.value, found.low, found.high) == (1.0, 1.0, 1.0)


@given(st.lists(st.floats(0.001, 1000.0), min_size=1, max_size=30))
def test_quantiles_rise_when_anything_was_measured(times: list[float]) -> None:
    found = latency_of([np.array(times)])
    ladder = [min(times), found.p50, found.p90, found.p95, found.p99, found.p999, max(times)]
    assert all(low <= high * (1 + 1e-12) for low, high in pairwise(ladder))
