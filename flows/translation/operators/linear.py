"""Products of matrices: linear layers, matmul, einsum and attention."""

import math
from collections.abc import Callable

import numpy as np
from onnx import TensorProto

from flows.translation.call import Call


def _linear(call: Call) -> str:
    """x @ weight.T + bias, the weight kept as stored so that tied weights are stored once."""
    inputs = [call.tensor("x"), call.tensor("weight")]
    bias = [call.tensor("bias")] if call.has("bias") else []
    if call.rank("x") == 2 and call.type_of("x") == TensorProto.FLOAT:
        return call.add("Gemm", *inputs, *bias, transB=1)
    product = call.add("MatMul", inputs[0], call.add("Transpose", inputs[1], perm=[1, 0]))
    return call.add("Add", product, *bias) if bias else product


def _matmul(call: Call) -> str:
    left = _turned(call, "x", call.flag("transpose_x"))
    right = _turned(call, "y", call.flag("transpose_y"))
    return call.add("MatMul", left, right)


def _turned(call: Call, name: str, turn: bool) -> str:
    source, rank = call.tensor(name), call.rank(name)
    return _swap_last(call, source, rank) if turn and rank > 1 else source


def _swap_last(call: Call, source: str, rank: int) -> str:
    return call.add("Transpose", source, perm=[*range(rank - 2), rank - 1, rank - 2])


def _einsum(call: Call) -> str:
    return call.add("Einsum", *call.tensors("values"), equation=call.text("equation"))


def _attention(call: Call) -> str:
    width, rank = call.shape("query")[-1], call.rank("key")
    if width is None:
        raise call.refused("has an embedding width that is only known at run time")
    query = call.add("Mul", call.tensor("query"), call.graph.number(1 / math.sqrt(width)))
    scores = call.add("MatMul", query, _swap_last(call, call.tensor("key"), rank))
    if call.has("attn_mask"):
        scores = call.add("Add", scores, _additive_mask(call))
    return call.add("MatMul", call.add("Softmax", scores, axis=-1), call.tensor("value"))


def _additive_mask(call: Call) -> str:
    """True means "takes part": 0 is added to its score, minus infinity to the others."""
    if call.is_float("attn_mask"):
        return call.tensor("attn_mask")
    kept, left_out = call.graph.number(0.0), call.graph.number(-np.inf)
    return call.add("Where", call.booleans("attn_mask"), kept, left_out)


TRANSLATORS: dict[str, Callable[[Call], str]] = {
    "einsum": _einsum,
    "linear": _linear,
    "matmul": _matmul,
    "scaled_dot_product_attention": _attention,
}
