"""Scores of one batch: which metric, what cannot be scored, and what was guessed."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from flows.catalog.facts import Metric
from flows.catalog.scores import guesses, metric_of, right, unscorable

Array = npt.NDArray[Any]

LOGITS = np.array([[2.0, 1.0, 0.0], [0.0, 1.0, 0.0]], np.float32)
FLOATS = np.array([[1.5], [2.0]], np.float32)
NUMBERS = np.array([0, 1])
NAMES = np.array(["cat", "dog"], dtype=object)
ROUTES = np.array([[3.0, 2.0, 1.0], [0.0, 1.0, 5.0]])


@pytest.mark.parametrize(
    ("model_type", "output", "metric"),
    [
        pytest.param(None, LOGITS, Metric.ACCURACY, id="scores per class"),
        pytest.param(None, FLOATS, Metric.ERROR, id="one float per row"),
        pytest.param(None, FLOATS[:, 0], Metric.ERROR, id="one float per row, flat"),
        pytest.param(None, NUMBERS, Metric.ACCURACY, id="one integer per row"),
        pytest.param("predictor", LOGITS, Metric.ERROR, id="declared predictor"),
        pytest.param("classifier", FLOATS, Metric.ACCURACY, id="declared classifier"),
        pytest.param("extractor", LOGITS, Metric.NEIGHBOURS, id="declared extractor"),
        pytest.param("router", LOGITS, Metric.REGRET, id="declared router"),
        pytest.param("oracle", LOGITS, None, id="unknown type"),
    ],
)
def test_metric_follows_type_then_output_when_chosen(
    model_type: str | None, output: Array, metric: Metric | None
) -> None:
    """The declared type decides; without one, the shape of the first output."""
    assert metric_of(model_type, output) is metric


def test_router_is_a_classifier_when_its_set_names_best_routes_only() -> None:
    """Regret needs what every route is worth; a label says only which is best."""
    assert metric_of("router", LOGITS, has_routes=False) is Metric.ACCURACY


@pytest.mark.parametrize(
    ("output", "labels", "which"),
    [
        pytest.param(LOGITS, np.array([0, 1]), [True, True], id="both right"),
        pytest.param(LOGITS, np.array([0.0, 2.0]), [True, False], id="integral floats as labels"),
        pytest.param(NAMES, np.array(["cat", "cat"], dtype=object), [True, False], id="names"),
        pytest.param(NUMBERS[:, None], np.array([1, 1]), [False, True], id="class numbers"),
    ],
)
def test_rows_are_right_when_guessed_as_labelled(output: Array, labels: Array, which: list[bool]) -> None:
    """Scores guess their largest column; named classes are the guess itself."""
    assert unscorable(Metric.ACCURACY, output, labels) is None
    assert right(output, labels).tolist() == which


@pytest.mark.parametrize(
    ("metric", "output", "guessed"),
    [
        pytest.param(Metric.ERROR, FLOATS, [1.5, 2.0], id="predictions"),
        pytest.param(Metric.REGRET, LOGITS, [0, 1], id="scored routes"),
        pytest.param(Metric.REGRET, NUMBERS, [0, 1], id="named routes"),
        pytest.param(Metric.NEIGHBOURS, LOGITS[:, :, None], LOGITS.tolist(), id="embeddings, flattened"),
    ],
)
def test_guesses_have_one_form_when_outputs_have_many(metric: Metric, output: Array, guessed: Any) -> None:
    """Whatever shape a model gives, one row of a guess is comparable with another's."""
    assert guesses(metric, output).tolist() == guessed


@pytest.mark.parametrize(
    ("metric", "output", "truth", "why"),
    [
        pytest.param(Metric.ACCURACY, LOGITS, np.array([0, 3]), "class number below 3", id="label too high"),
        pytest.param(Metric.ACCURACY, LOGITS, np.array([0, -1]), "class number below 3", id="label too low"),
        pytest.param(Metric.ACCURACY, LOGITS, np.array([0, 0.5]), "class number", id="label in between"),
        pytest.param(Metric.ACCURACY, LOGITS, NAMES, "array 'classes'", id="names against scores"),
        pytest.param(Metric.ACCURACY, NAMES, NUMBERS, "as text or as numbers", id="numbers against names"),
        pytest.param(Metric.ACCURACY, FLOATS, NUMBERS, "one score per class", id="one float is no class"),
        pytest.param(Metric.ACCURACY, LOGITS[:1], NUMBERS, "for 2 rows", id="rows lost"),
        pytest.param(Metric.ACCURACY, LOGITS * np.nan, NUMBERS, "not finite", id="NaN"),
        pytest.param(Metric.ERROR, LOGITS, NUMBERS, "one number per row", id="scores as prediction"),
        pytest.param(Metric.ERROR, FLOATS, NAMES, "no number", id="names as target"),
        pytest.param(Metric.ERROR, FLOATS, np.array([np.nan, 1]), "no number", id="NaN as target"),
        pytest.param(
            Metric.NEIGHBOURS, FLOATS, NUMBERS, "an embedding per row", id="one number as embedding"
        ),
        pytest.param(Metric.NEIGHBOURS, LOGITS, np.array([0.5, 1]), "no class number", id="graded labels"),
        pytest.param(Metric.REGRET, LOGITS[:, :2], ROUTES, "one score per route (3", id="too few routes"),
        pytest.param(Metric.REGRET, np.array([0, 3]), ROUTES, "none of the 3", id="unknown route"),
        pytest.param(Metric.REGRET, NAMES, ROUTES, "number them", id="routes as text"),
    ],
)
def test_unscorable_batch_is_explained_when_given(
    metric: Metric, output: Array, truth: Array, why: str
) -> None:
    """What cannot be scored says why, in place of a number that means nothing."""
    assert why in (unscorable(metric, output, truth) or "")
