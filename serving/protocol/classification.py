"""Triton's classification extension: an output as its best classes instead of its values.

Source: Triton `extension_classification`: strings `<value>:<index>`, best first, per entry of the batch.
"""

import numpy as np

from serving.core.datatypes import Array
from serving.core.errors import InvalidRequest


def best_classes(name: str, array: Array, classes: int, *, first_axis_is_batch: bool) -> Array:
    """The `classes` largest elements as BYTES of shape (batch, classes), or (classes,) without a batch.

    Equal values rank by index. There are never more classes than elements.
    """
    if array.dtype.kind in "OUSb":
        raise InvalidRequest("has no classes to rank", tensor=name)
    if not (first_axis_is_batch and array.ndim > 0):
        return np.array(_ranked(array.ravel(), classes), dtype=np.object_)
    rows = array.reshape(array.shape[0], -1) if array.size else array.reshape(array.shape[0], 0)
    ranked = [_ranked(row, classes) for row in rows]
    width = min(classes, rows.shape[1])
    return np.array(ranked, dtype=np.object_).reshape(len(ranked), width)


def _ranked(values: Array, classes: int) -> list[str]:
    order = np.argsort(-values.astype(np.float64), kind="stable")[:classes]
    is_whole = values.dtype.kind in "iu"
    return [f"{_number(values[index], is_whole=is_whole)}:{index}" for index in order.tolist()]


def _number(value: object, *, is_whole: bool) -> str:
    return str(value) if is_whole else f"{float(value):f}"  # type: ignore[arg-type]
