"""The always-valid tests: false alarms and detection by effect size with fixed seeds, and exact bounds."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.rollout.sequential import (
    Count,
    compare,
    faults_of_challenger,
    is_worse,
    ratio_bounds,
)
from tests.flows.rollout.judge_table import ALPHA, TAU, aborted_over_stages, measured

RUNS = 300


def test_equal_versions_are_rarely_aborted_when_looked_at_again_and_again() -> None:
    """P15: at most 5 % of rollouts of equal versions, over thirty looks and over several stages."""
    assert measured(0.02, RUNS).stopped_ratio <= 0.05
    assert aborted_over_stages(RUNS) <= 0.05


@pytest.mark.parametrize("errors", [0.0005, 0.002, 0.01])
def test_equal_versions_are_rarely_aborted_when_errors_are_rare(errors: float) -> None:
    """Where the normal approximation alone would take a single fault for proof."""
    assert measured(errors, RUNS, champion_ratio=errors).stopped_ratio <= 0.05


@pytest.mark.parametrize(("ratio", "least", "minutes"), [(0.05, 0.99, 5), (0.10, 1.0, 2)])
def test_worse_version_is_caught_when_the_canary_has_a_request_a_second(
    ratio: float, least: float, minutes: int
) -> None:
    """P15: 2.5 times the errors within five minutes, five times within two, by the median."""
    row = measured(ratio, RUNS)
    assert row.stopped_ratio >= least
    assert row.median_minute is not None
    assert row.median_minute <= minutes


def test_little_worse_version_is_not_taken_for_a_bad_one() -> None:
    """Half as many errors again are found in about half of the runs, and late."""
    assert 0.4 <= measured(0.03, RUNS).stopped_ratio <= 0.7


@pytest.mark.parametrize(
    ("champion", "challenger", "expected"),
    [
        pytest.param(Count(0, 1000), Count(0, 50), False, id="no-errors"),
        pytest.param(Count(0, 0), Count(9, 9), False, id="nothing-to-compare-with"),
        pytest.param(Count(20, 1000), Count(1, 50), False, id="equal"),
        pytest.param(Count(20, 1000), Count(0, 50), False, id="better"),
        pytest.param(Count(0, 950), Count(2, 50), False, id="two-faults-may-be-chance"),
        pytest.param(Count(0, 1200), Count(2, 2), False, id="two-faults-before-any-answer"),
        pytest.param(Count(0, 1200), Count(3, 3), True, id="three-faults-before-any-answer"),
        pytest.param(Count(0, 950), Count(3, 50), True, id="three-of-three-faults-in-a-twentieth"),
        pytest.param(Count(0, 100), Count(10, 100), False, id="ten-in-a-half"),
        pytest.param(Count(0, 100), Count(11, 100), True, id="eleven-in-a-half"),
        pytest.param(Count(100, 100), Count(100, 100), False, id="both-fail-always"),
    ],
)
def test_verdict_on_counts(champion: Count, challenger: Count, expected: bool) -> None:
    assert is_worse(champion, challenger, TAU, ALPHA) is expected


counts = st.tuples(st.integers(0, 500), st.integers(1, 500)).map(lambda c: Count(min(c), c[1]))


@given(one=counts, two=counts)
def test_swapping_the_sides_swaps_the_direction(one: Count, two: Count) -> None:
    """At most one of two versions is worse than the other."""
    there, back = compare(one, two, TAU), compare(two, one, TAU)
    assert there.difference == pytest.approx(-back.difference)
    assert there.log_ratio == pytest.approx(back.log_ratio)
    assert not (is_worse(one, two, TAU, ALPHA) and is_worse(two, one, TAU, ALPHA))


@given(one=counts, two=counts)
def test_likelihood_ratio_is_a_number(one: Count, two: Count) -> None:
    """Never NaN, whatever underflows."""
    assert not math.isnan(faults_of_challenger(one, two).log_ratio)
    assert not math.isnan(compare(one, two, TAU).log_ratio)


@given(count=counts)
def test_bounds_hold_the_ratio(count: Count) -> None:
    low, high = ratio_bounds(count, 0.01)
    assert 0 <= low <= count.hits / count.trials <= high <= 1
