"""Reading from and writing to positions that are data themselves."""

from collections.abc import Callable

import numpy as np
from onnx import TensorProto

from flows.translation.call import Call, Names

_REDUCTIONS = {
    "update": "none",
    "add": "add",
    "sub": "add",
    "mul": "mul",
    "div": "mul",
    "max": "max",
    "min": "min",
}


def _gather(call: Call) -> str:
    batches, rank = call.integer("batch_dims", 0), call.rank("x")
    axis = call.axis("axis", 0, rank)
    if batches == 0:
        return call.add("Gather", call.tensor("x"), call.tensor("indices"), axis=axis)
    return _batched_gather(call, batches % call.rank("indices"), axis)


def _batched_gather(call: Call, batches: int, axis: int) -> str:
    """The gathered axis is moved behind the batch axes; what it gives is moved back in its place."""
    rank, wide = call.rank("x"), call.rank("indices") - batches
    between = list(range(batches, axis))
    order = [*range(batches), axis, *between, *range(axis + 1, rank)]
    moved = call.add("Transpose", call.tensor("x"), perm=order)
    indices = call.add("Unsqueeze", call.longs("indices"), call.graph.ints(-1))
    found = call.add("GatherND", moved, indices, batch_dims=batches)
    first, after = batches + wide, batches + wide + len(between)
    back = [*range(batches), *range(first, after), *range(batches, first), *range(after, rank - 1 + wide)]
    return call.add("Transpose", found, perm=back)


def _gather_along_axis(call: Call) -> str:
    axis = call.integer("axis", 0)
    return call.add("GatherElements", call.tensor("x"), call.tensor("indices"), axis=axis)


def _gather_nd(call: Call) -> str:
    batches = call.integer("batch_dims", 0)
    return call.add("GatherND", call.tensor("x"), call.longs("indices"), batch_dims=batches)


def _scatter(call: Call) -> str:
    """One index per slice along the axis, spread over the slice."""
    rank, axis = call.rank("data"), call.axis("axis", 0, call.rank("data"))
    shape = [-1 if at == axis else 1 for at in range(rank)]
    spread = call.add("Reshape", call.longs("indices"), call.graph.ints(*shape))
    updates, reduction = _updates(call)
    indices = call.add("Expand", spread, call.add("Shape", updates))
    return call.add("ScatterElements", call.tensor("data"), indices, updates, axis=axis, reduction=reduction)


def _scatter_along_axis(call: Call) -> str:
    updates, reduction = _updates(call)
    indices, axis = call.longs("indices"), call.integer("axis", 0)
    return call.add("ScatterElements", call.tensor("data"), indices, updates, axis=axis, reduction=reduction)


def _scatter_nd(call: Call) -> str:
    updates, reduction = _updates(call)
    return call.add("ScatterND", call.tensor("data"), call.longs("indices"), updates, reduction=reduction)


def _updates(call: Call) -> tuple[str, str]:
    """The updates and ONNX's reduction; a difference adds the negative, a quotient the reciprocal."""
    mode, updates = call.text("mode", "add"), call.tensor("updates")
    if mode not in _REDUCTIONS or (mode == "div" and not call.is_float("updates")):
        raise call.refused(f"has mode '{mode}' for its type, which has no ONNX counterpart")
    if mode == "sub":
        updates = call.add("Neg", updates)
    if mode == "div":
        updates = call.add("Reciprocal", updates)
    return updates, _REDUCTIONS[mode]


def _one_hot(call: Call) -> str:
    """Computed in float32 and cast: ONNX Runtime has few element types for it."""
    off, on = float(call.value("off_value")), float(call.value("on_value"))
    values = call.graph.constant(np.array([off, on], np.float32), "values")
    depth = call.add("Reshape", call.longs("one_hot_vector_size"), call.graph.ints(1))
    hot = call.add("OneHot", call.longs("indices"), depth, values, axis=call.integer("axis", -1))
    return hot if call.output_type() == TensorProto.FLOAT else call.cast(hot, call.output_type())


def _non_zero(call: Call) -> str:
    found = call.add("NonZero", call.tensor("x"))
    return call.cast(call.add("Transpose", found, perm=[1, 0]), call.output_type())


TRANSLATORS: dict[str, Callable[[Call], Names]] = {
    "gather": _gather,
    "gather_along_axis": _gather_along_axis,
    "gather_nd": _gather_nd,
    "non_zero": _non_zero,
    "one_hot": _one_hot,
    "scatter": _scatter,
    "scatter_along_axis": _scatter_along_axis,
    "scatter_nd": _scatter_nd,
}
