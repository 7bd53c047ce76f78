"""How right one batch of answers is: pure functions over outputs and labels.

Called for every batch of an evaluation, for candidate and champion alike.
"""

import numpy as np

from flows.catalog.facts import Metric
from serving.core.datatypes import FLOATS, Array, datatype_of, is_finite

_BY_TYPE = {"classifier": Metric.ACCURACY, "predictor": Metric.ERROR}


def metric_of(model_type: str | None, output: Array) -> Metric | None:
    """What to measure; None for a declared type that has neither accuracy nor error.

    Without a declared type, one float per row is a prediction and all else a classification.
    """
    if model_type:
        return _BY_TYPE.get(model_type)
    one_float = datatype_of(output.dtype) in FLOATS and _one_per_row(output)
    return Metric.ERROR if one_float else Metric.ACCURACY


def unscorable(metric: Metric, output: Array, labels: Array) -> str | None:
    """Why this output cannot be held against these labels, in words, else None."""
    if output.ndim == 0 or len(output) != len(labels):
        return f"the output has shape {list(output.shape)} for {len(labels)} rows"
    if not is_finite(output):
        return "the output is not finite"
    if metric is Metric.ERROR:
        if not _one_per_row(output) or not _is_number(output):
            return f"a predictor gives one number per row, the output has shape {list(output.shape)}"
        return None if _is_number(labels) and is_finite(labels) else "a label is no number"
    return _unclassifiable(output, labels)


def points(metric: Metric, output: Array, labels: Array) -> float:
    """The batch's share of the score before division by rows: right answers, or summed absolute errors."""
    if metric is Metric.ERROR:
        guesses = output.astype(np.float64).reshape(-1)
        return float(np.abs(guesses - labels.astype(np.float64)).sum())
    guesses = output.reshape(-1) if _names_classes(output) else output.argmax(axis=1)
    return float((guesses == labels).sum())


def _unclassifiable(output: Array, labels: Array) -> str | None:
    if _names_classes(output):
        alike = _is_number(output) == _is_number(labels)
        return None if alike else "the output names classes as text or as numbers, the labels do not"
    if output.ndim != 2 or output.shape[1] < 2:
        shape = list(output.shape)
        return f"a classifier gives one score per class, the output has shape {shape}; tag a predictor as one"
    if not _is_number(labels):
        return "the labels are text, the output has one score per class: number the classes from 0"
    if (labels < 0).any() or (labels >= output.shape[1]).any() or (labels != np.floor(labels)).any():
        return f"a label is no class number below {output.shape[1]}, the number of scores per row"
    return None


def _names_classes(output: Array) -> bool:
    """Whether the output says the class itself, as scikit-learn's converters have it, not scores."""
    return _one_per_row(output) and datatype_of(output.dtype) not in FLOATS


def _one_per_row(output: Array) -> bool:
    return output.ndim == 1 or (output.ndim == 2 and output.shape[1] == 1)


def _is_number(array: Array) -> bool:
    return datatype_of(array.dtype) != "BYTES"
