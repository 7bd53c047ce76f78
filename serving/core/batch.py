"""Requests joined into one execution and their answers parted again: pure functions over arrays.

Law: parting what joining gave returns every row to the request it came from, in its order.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from serving.core.datatypes import Array

Tensors = Mapping[str, Array]
Form = tuple[tuple[str, str, tuple[int, ...]], ...]


def rows_of(inputs: Tensors) -> int | None:
    """The common length of the first axis of all inputs; None where they have none in common."""
    lengths = {len(array) if array.ndim else -1 for array in inputs.values()}
    return lengths.pop() if len(lengths) == 1 and -1 not in lengths else None


def form_of(inputs: Tensors) -> Form:
    """What must be equal for inputs to be joined: names, types and all axes but the first."""
    return tuple((name, array.dtype.str, array.shape[1:]) for name, array in sorted(inputs.items()))


def join(requests: Sequence[Tensors]) -> dict[str, Array]:
    """One set of inputs, (sum of rows, ...), from several of one form; a single one comes back as it is."""
    if len(requests) == 1:
        return dict(requests[0])
    return {name: np.concatenate([inputs[name] for inputs in requests]) for name in requests[0]}


def part(outputs: Tensors, rows: Sequence[int]) -> list[dict[str, Array]] | None:
    """Each request's rows, as views; None where some output has not one row per row that went in."""
    total = sum(rows)
    if any(array.ndim == 0 or len(array) != total for array in outputs.values()):
        return None
    parted, start = [], 0
    for count in rows:
        parted.append({name: array[start : start + count] for name, array in outputs.items()})
        start += count
    return parted
