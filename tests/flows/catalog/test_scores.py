"""Scores of one batch: which metric, what cannot be scored, and the points themselves."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from flows.catalog.facts import Metric
from flows.catalog.scores import metric_of, points, unscorable

Array = npt.NDArray[Any]

LOGITS = np.array([[2.0, 1.0, 0.0], [0.0, 1.0, 0.0]], np.float32)
FLOATS = np.array([[1.5], [2.0]], np.float32)
NUMBERS = np.array([0, 1])
NAMES = np.array(["cat", "dog"], dtype=object)


@pytest.mark.parametrize(
    ("model_type", "output", "metric"),
    [
        pytest.param(None, LOGITS, Metric.ACCURACY, id="scores per class"),
        pytest.param(None, FLOATS, Metric.ERROR, id="one float per row"),
        pytest.param(None, FLOATS[:, 0], Metric.ERROR, id="one float per row, flat"),
        pytest.param(None, NUMBERS, Metric.ACCURACY, id="one integer per row"),
        pytest.param("predictor", LOGITS, Metric.ERROR, id="declared predictor"),
        pytest.param("classifier", FLOATS, Metric.ACCURACY, id="declared classifier"),
        pytest.param("extractor", LOGITS, None, id="declared extractor"),
    ],
)
def test_metric_follows_type_then_output_when_chosen(
    model_type: str | None, output: Array, metric: Metric | None
) -> None:
    """The declared type decides; without one, the shape of the first output."""
    assert metric_of(model_type, output) is metric


@pytest.mark.parametrize(
    ("metric", "output", "labels", "score"),
    [
        pytest.param(Metric.ACCURACY, LOGITS, np.array([0, 1]), 2, id="both right"),
        pytest.param(Metric.ACCURACY, LOGITS, np.array([0.0, 2.0]), 1, id="integral floats as labels"),
        pytest.param(Metric.ACCURACY, NAMES, np.array(["cat", "cat"], dtype=object), 1, id="names"),
        pytest.param(Metric.ACCURACY, NUMBERS[:, None], np.array([1, 1]), 1, id="class numbers"),
        pytest.param(Metric.ERROR, FLOATS, np.array([1.0, 4.0]), 2.5, id="absolute errors"),
        pytest.param(Metric.ERROR, FLOATS[:, 0], np.array([1, 4]), 2.5, id="integer labels"),
    ],
)
def test_points_add_up_when_scorable(metric: Metric, output: Array, labels: Array, score: float) -> None:
    """Right answers are counted, absolute errors summed."""
    assert unscorable(metric, output, labels) is None
    assert points(metric, output, labels) == pytest.approx(score)


@pytest.mark.parametrize(
    ("metric", "output", "labels", "why"),
    [
        pytest.param(Metric.ACCURACY, LOGITS, np.array([0, 3]), "class number below 3", id="label too high"),
        pytest.param(Metric.ACCURACY, LOGITS, np.array([0, -1]), "class number below 3", id="label too low"),
        pytest.param(Metric.ACCURACY, LOGITS, np.array([0, 0.5]), "class number", id="label in between"),
        pytest.param(Metric.ACCURACY, LOGITS, NAMES, "labels are text", id="names against scores"),
        pytest.param(Metric.ACCURACY, NAMES, NUMBERS, "as text or as numbers", id="numbers against names"),
        pytest.param(Metric.ACCURACY, FLOATS, NUMBERS, "one score per class", id="one float is no class"),
        pytest.param(Metric.ACCURACY, LOGITS[:1], NUMBERS, "for 2 rows", id="rows lost"),
        pytest.param(Metric.ACCURACY, LOGITS * np.nan, NUMBERS, "not finite", id="NaN"),
        pytest.param(Metric.ERROR, LOGITS, NUMBERS, "one number per row", id="scores as prediction"),
        pytest.param(Metric.ERROR, FLOATS, NAMES, "no number", id="names as target"),
        pytest.param(Metric.ERROR, FLOATS, np.array([np.nan, 1]), "no number", id="NaN as target"),
    ],
)
def test_unscorable_batch_is_explained_when_given(
    metric: Metric, output: Array, labels: Array, why: str
) -> None:
    """What cannot be scored says why, in place of a number that means nothing."""
    assert why in (unscorable(metric, output, labels) or "")
