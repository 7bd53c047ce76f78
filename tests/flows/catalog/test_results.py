"""What a whole evaluation comes to, against scikit-learn's figures and against its own laws."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn import metrics

from flows.catalog.facts import Estimate, Metric
from flows.catalog.results import difference, losses, positive_class, results
from tests.flows.catalog.folders import Array

CHANCE = np.random.default_rng(3)
NAMES = np.array(["cat", "dog", "owl"], dtype=object)


def by_name(estimates: tuple[Estimate, ...]) -> dict[str, float]:
    return {one.name: one.value for one in estimates}


@pytest.mark.parametrize("classes", [2, 3, 40])
def test_classification_figures_are_sklearns_when_compared(classes: int) -> None:
    """Macro means; of two classes those of the second, too."""
    labels = CHANCE.integers(0, classes, 300)
    guesses = np.where(CHANCE.random(300) < 0.7, labels, CHANCE.integers(0, classes, 300))
    found = by_name(results(Metric.ACCURACY, guesses, labels, 0.95))
    for ours, theirs in (
        ("precision", metrics.precision_score),
        ("recall", metrics.recall_score),
        ("f1", metrics.f1_score),
    ):
        macro = theirs(labels, guesses, average="macro", zero_division=0)
        assert found[ours] == pytest.approx(macro)
        if classes == 2:
            assert found[f"{ours}_positive"] == pytest.approx(theirs(labels, guesses))
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(labels, guesses))
    assert ("f1_positive" in found) == (classes == 2)


def test_regression_figures_are_sklearns_when_compared() -> None:
    """MAE, RMSE and R² of noisy predictions far from zero."""
    truth = CHANCE.normal(1000, 5, 400)
    guesses = truth + CHANCE.normal(0.2, 1, 400)
    found = by_name(results(Metric.ERROR, guesses, truth, 0.95))
    assert found["mae"] == pytest.approx(metrics.mean_absolute_error(truth, guesses))
    assert found["rmse"] == pytest.approx(metrics.root_mean_squared_error(truth, guesses))
    assert found["r2"] == pytest.approx(metrics.r2_score(truth, guesses))


@pytest.mark.parametrize(("error", "explained"), [(0.0, 1.0), (1.0, 0.0)])
def test_r2_is_defined_when_labels_are_all_alike(error: float, explained: float) -> None:
    """Nothing to explain: all of it for no error, none of it otherwise."""
    truth = np.full(20, 7.0)
    assert by_name(results(Metric.ERROR, truth + error, truth, 0.95))["r2"] == explained


def test_figures_lie_in_their_intervals_when_estimated() -> None:
    """Of every metric, and narrower with less confidence."""
    labels = CHANCE.integers(0, 3, 500)
    guesses = np.where(CHANCE.random(500) < 0.8, labels, 0)
    truth = CHANCE.normal(size=500)
    routes = CHANCE.random((500, 3))
    for metric, ours, held in (
        (Metric.ACCURACY, guesses, labels),
        (Metric.ACCURACY, NAMES[guesses], NAMES[labels]),
        (Metric.ERROR, truth + 0.3, truth),
        (Metric.REGRET, guesses, routes),
    ):
        wide, narrow = results(metric, ours, held, 0.99), results(metric, ours, held, 0.5)
        for one, other in zip(wide, narrow, strict=True):
            assert one.low - 1e-9 <= one.value <= one.high + 1e-9
            assert one.high - one.low >= other.high - other.low


def test_regret_is_what_the_best_route_would_have_given_when_routed() -> None:
    """Against the oracle of each row; a route as good as the best costs nothing."""
    routes = np.array([[3.0, 2.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 4.0]])
    guesses = np.array([1, 1, 2])
    assert losses(Metric.REGRET, guesses, routes).tolist() == [1.0, 0.0, 0.0]
    found = by_name(results(Metric.REGRET, guesses, routes, 0.95))
    assert found == {"regret": pytest.approx(1 / 3), "best_route": pytest.approx(2 / 3)}


def test_drop_counts_rows_when_sides_differ() -> None:
    """Only rows that one side alone has right matter."""
    labels = np.zeros(100, dtype=np.int64)
    theirs, ours = labels.copy(), labels.copy()
    ours[:6], theirs[4:9] = 1, 1
    found = difference(Metric.ACCURACY, ours, theirs, labels, 0.95)
    assert (found.worse_rows, found.better_rows, found.is_same) == (4, 3, False)
    assert found.value == pytest.approx(0.01)
    assert found.low < 0 < found.high
    assert difference(Metric.ACCURACY, ours, ours, labels, 0.95).is_same


@pytest.mark.parametrize(
    ("ours", "theirs", "value"),
    [(1.0, 1.0, 1.0), (0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.2, 1.0, 1.2), (1.0, 0.0, 1e9)],
)
def test_ratio_has_a_value_when_an_error_is_nothing(ours: float, theirs: float, value: float) -> None:
    """No infinity: facts travel as JSON."""
    truth = np.zeros(50)
    found = difference(Metric.ERROR, truth + ours, truth + theirs, truth, 0.95)
    assert (found.value, found.low, found.high) == pytest.approx((value, value, value))


CLASSES = arrays.arrays(np.int64, 30, elements=st.integers(0, 3))


@given(CLASSES, CLASSES)
def test_shares_stay_shares_when_guesses_are_any(guesses: Array, labels: Array) -> None:
    """Every figure and both ends of its interval lie between 0 and 1."""
    for one in results(Metric.ACCURACY, guesses, labels, 0.95):
        assert -1e-9 <= one.low <= one.high <= 1 + 1e-9
        assert -1e-9 <= one.value <= 1 + 1e-9


def test_positive_class_is_the_second_when_there_are_two() -> None:
    """In the order of numbers or of the alphabet."""
    assert positive_class(np.array([0, 1, 1])) == "1"
    assert positive_class(NAMES[[1, 0]]) == "dog"
    assert positive_class(np.array([0, 1, 2])) is None
