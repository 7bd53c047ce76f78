"""What one batch of answers says: which metric applies, what cannot be scored, and what was guessed.

Pure functions over outputs and truths; called for every batch of an evaluation, for candidate and
champion alike, and for the health of what is served.
"""

import numpy as np

from flows.catalog.facts import Metric
from serving.core.datatypes import FLOATS, Array, datatype_of, is_finite

_BY_TYPE = {
    "classifier": Metric.ACCURACY,
    "predictor": Metric.ERROR,
    "extractor": Metric.NEIGHBOURS,
    "router": Metric.REGRET,
}


def metric_of(model_type: str | None, output: Array, *, has_routes: bool = True) -> Metric | None:
    """What to measure; None for a declared type that is none of ours.

    Without a declared type, one float per row is a prediction and all else a classification. A router
    whose set names the best route only, not what each is worth, is a classifier of routes.
    """
    if model_type:
        metric = _BY_TYPE.get(model_type)
        return Metric.ACCURACY if metric is Metric.REGRET and not has_routes else metric
    one_float = datatype_of(output.dtype) in FLOATS and _one_per_row(output)
    return Metric.ERROR if one_float else Metric.ACCURACY


def unscorable(metric: Metric, output: Array, truth: Array) -> str | None:
    """Why this output cannot be held against these labels, in words, else None.

    `truth` is (rows,) labels, of a router's regret (rows, routes) what each route is worth.
    """
    if output.ndim == 0 or len(output) != len(truth):
        return f"the output has shape {list(output.shape)} for {len(truth)} rows"
    if not is_finite(output):
        return "the output is not finite"
    if metric is Metric.ERROR:
        if not _one_per_row(output) or not _is_number(output):
            return f"a predictor gives one number per row, the output has shape {list(output.shape)}"
        return None if _is_number(truth) and is_finite(truth) else "a label is no number"
    if metric is Metric.NEIGHBOURS:
        return _unembeddable(output, truth)
    return _unroutable(output, truth) if metric is Metric.REGRET else _unclassifiable(output, truth)


def guesses(metric: Metric, output: Array) -> Array:
    """What the answers come to: numbers (rows,), embeddings (rows, width), or classes and routes (rows,)."""
    if metric is Metric.ERROR:
        return output.astype(np.float64).reshape(-1)
    if metric is Metric.NEIGHBOURS:
        return output.astype(np.float32).reshape(len(output), -1)
    return output.reshape(-1) if _names_classes(output) else output.argmax(axis=1)


def right(output: Array, labels: Array) -> Array:
    """Which rows are classified as labelled, (rows,) bool."""
    found: Array = np.asarray(guesses(Metric.ACCURACY, output) == labels, dtype=np.bool_)
    return found


def _unclassifiable(output: Array, labels: Array) -> str | None:
    if _names_classes(output):
        alike = _is_number(output) == _is_number(labels)
        return None if alike else "the output names classes as text or as numbers, the labels do not"
    if output.ndim != 2 or output.shape[1] < 2:
        shape = list(output.shape)
        return f"a classifier gives one score per class, the output has shape {shape}; tag a predictor as one"
    if not _is_number(labels):
        return (
            "the labels are text, the output has one score per class: number the classes from 0, or "
            "name them in the set's array 'classes'"
        )
    if (labels < 0).any() or (labels >= output.shape[1]).any() or (labels != np.floor(labels)).any():
        return f"a label is no class number below {output.shape[1]}, the number of scores per row"
    return None


def _unembeddable(output: Array, labels: Array) -> str | None:
    if not _is_number(output) or output.size == len(output):
        return f"an extractor gives an embedding per row, the output has shape {list(output.shape)}"
    if datatype_of(labels.dtype) in FLOATS and (labels != np.floor(labels)).any():
        return "an extractor is scored by the classes of neighbours, and a label is no class number"
    return None


def _unroutable(output: Array, routes: Array) -> str | None:
    count = routes.shape[1]
    if _names_classes(output):
        if not _is_number(output):
            return "the output names routes as text: number them as in 'route_values'"
        known = (output >= 0).all() and (output < count).all()
        return None if known else f"the output names a route that is none of the {count} in the set"
    if output.ndim == 2 and output.shape[1] == count:
        return None
    return (
        f"a router gives one score per route ({count} in the set), the output has shape {list(output.shape)}"
    )


def _names_classes(output: Array) -> bool:
    """Whether the output says the class itself, as scikit-learn's converters have it, not scores."""
    return _one_per_row(output) and datatype_of(output.dtype) not in FLOATS


def _one_per_row(output: Array) -> bool:
    return output.ndim == 1 or (output.ndim == 2 and output.shape[1] == 1)


def _is_number(array: Array) -> bool:
    return datatype_of(array.dtype) != "BYTES"
