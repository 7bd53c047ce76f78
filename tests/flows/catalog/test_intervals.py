"""Intervals and paired tests against published values, and against what they promise."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.catalog.intervals import (
    chance_of_drop,
    drop_interval,
    percentiles,
    resampled,
    resampled_counts,
    share_interval,
)


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    [
        # Newcombe, Statistics in Medicine 17 (1998) 857-872, table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_share_interval_is_wilsons_when_compared_with_his_tables(
    right: int, total: int, low: float, high: float
) -> None:
    """To the four digits that are published."""
    found = share_interval(right, total, 0.95)
    assert (round(found.low, 4), round(found.high, 4)) == (low, high)


@given(st.integers(1, 500), st.data())
def test_share_interval_holds_its_share_when_drawn(total: int, data: st.DataObject) -> None:
    """It lies within 0 and 1, and around what was measured."""
    right = data.draw(st.integers(0, total))
    found = share_interval(right, total, 0.95)
    assert 0 <= found.low <= right / total + 1e-12
    assert right / total - 1e-12 <= found.high <= 1


@pytest.mark.parametrize(
    ("worse", "better", "total"), [(0, 0, 60), (6, 0, 2000), (0, 9, 100), (12, 5, 400), (50, 50, 100)]
)
def test_drop_interval_is_agrestis_when_written_out(worse: int, better: int, total: int) -> None:
    """The formula, cell by cell: half an observation is added to each of the four."""
    b, c, n = worse + 0.5, better + 0.5, total + 2
    spread = 1.959964 * math.sqrt((b + c) - (b - c) ** 2 / n) / n
    found = drop_interval(worse, better, total, 0.95)
    assert found.low == pytest.approx((b - c) / n - spread, abs=1e-6)
    assert found.high == pytest.approx((b - c) / n + spread, abs=1e-6)


@given(st.integers(0, 50), st.integers(0, 50))
def test_drop_interval_turns_round_when_sides_are_swapped(worse: int, better: int) -> None:
    """What is a drop for one side is a gain for the other."""
    one, other = drop_interval(worse, better, 200, 0.9), drop_interval(better, worse, 200, 0.9)
    assert one.low == pytest.approx(-other.high)
    assert one.high == pytest.approx(-other.low)


@pytest.mark.parametrize(
    ("worse", "better", "chance"),
    [(0, 0, 1.0), (5, 0, 1 / 32), (0, 5, 1.0), (3, 1, 5 / 16), (1, 1, 0.75)],
)
def test_chance_of_drop_counts_coins_when_rows_differ(worse: int, better: int, chance: float) -> None:
    """The chance that as many fair coins or more fall on the candidate's side."""
    assert chance_of_drop(worse, better) == pytest.approx(chance)


def test_resampled_mean_spreads_like_theory_when_rows_are_many() -> None:
    """The bootstrap's interval of a mean is the normal one, near enough; in blocks, too."""
    for count in (2_000, 25_000):
        values = np.random.default_rng(1).normal(3.0, 2.0, count)
        rows = np.stack([np.ones(count), values], axis=1)
        found = percentiles(resampled(rows, lambda sums: sums[:, 1:] / sums[:, :1])[:, 0], 0.95)
        spread = 1.96 * values.std() / math.sqrt(count)
        assert found.low == pytest.approx(values.mean() - spread, abs=spread / 5)
        assert found.high == pytest.approx(values.mean() + spread, abs=spread / 5)


def test_resampled_counts_keep_their_number_when_drawn() -> None:
    """Each resample has as many rows as there were, and the same ones each time."""
    counts = np.array([5, 0, 95])
    drawn = resampled_counts(counts, lambda found: found)
    assert drawn.shape == (1000, 3)
    assert (drawn.sum(axis=1) == 100).all()
    assert (drawn[:, 1] == 0).all()
    assert (drawn == resampled_counts(counts, lambda found: found)).all()
