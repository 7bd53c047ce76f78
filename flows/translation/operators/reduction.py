"""Reductions over axes, positions of extremes, sorting and running sums."""

from collections.abc import Callable
from functools import partial

from onnx import TensorProto

from flows.translation.call import Call, Names


def _reduce(operator: str, call: Call) -> str:
    axes = [call.graph.ints(*call.integers("axes"))] if call.has("axes") else []
    kept = int(call.flag("keep_dims"))
    # ONNX Runtime has not every reduction for int32, and float32 would lose its last bits.
    if call.is_float("x"):
        return call.add(operator, call.tensor("x"), *axes, keepdims=kept)
    wide = call.cast(call.tensor("x"), TensorProto.DOUBLE)
    return call.cast(call.add(operator, wide, *axes, keepdims=kept), call.output_type())


def _argument(operator: str, call: Call) -> str:
    axis, kept = call.integer("axis", -1), int(call.flag("keep_dims"))
    found = call.add(operator, call.tensor("x"), axis=axis, keepdims=kept)
    return call.cast(found, call.output_type())


def _cumsum(call: Call) -> str:
    return call.add(
        "CumSum",
        call.tensor("x"),
        call.graph.integer(call.integer("axis", 0)),
        exclusive=int(call.flag("exclusive")),
        reverse=int(call.flag("reverse")),
    )


def _topk(call: Call) -> Names:
    axis = call.axis("axis", -1, call.rank("x"))
    if call.known("k") == -1:
        count = _length(call, axis)
    else:
        count = (
            call.add("Reshape", call.longs("k"), call.graph.ints(1)) if call.has("k") else call.graph.ints(1)
        )
    values, indices = _ordered(call, count, axis)
    if len(call.outputs) == 1:
        return values
    return values, call.cast(indices, call.output_type(1))


def _argsort(call: Call) -> str:
    axis = call.axis("axis", -1, call.rank("x"))
    return call.cast(_ordered(call, _length(call, axis), axis)[1], call.output_type())


def _ordered(call: Call, count: str, axis: int) -> tuple[str, str]:
    largest = int(not call.flag("ascending"))
    values, indices = call.graph.add_many(
        "TopK", call.tensor("x"), count, outputs=2, hint=call.outputs[0].name, axis=axis, largest=largest
    )
    return values, indices


def _length(call: Call, axis: int) -> str:
    return call.add("Shape", call.tensor("x"), start=axis, end=axis + 1)


_REDUCTIONS = {
    "reduce_l1_norm": "ReduceL1",
    "reduce_l2_norm": "ReduceL2",
    "reduce_log_sum": "ReduceLogSum",
    "reduce_log_sum_exp": "ReduceLogSumExp",
    "reduce_max": "ReduceMax",
    "reduce_mean": "ReduceMean",
    "reduce_min": "ReduceMin",
    "reduce_prod": "ReduceProd",
    "reduce_sum": "ReduceSum",
    "reduce_sum_square": "ReduceSumSquare",
}

TRANSLATORS: dict[str, Callable[[Call], Names]] = {
    **{name: partial(_reduce, operator) for name, operator in _REDUCTIONS.items()},
    "argsort": _argsort,
    "cumsum": _cumsum,
    "reduce_argmax": partial(_argument, "ArgMax"),
    "reduce_argmin": partial(_argument, "ArgMin"),
    "topk": _topk,
}
