"""Matrix products: fully connected layers, batched products, dot products and embeddings."""

from typing import Any

import numpy as np

from flows.translation.layers.layer import Inconsistent, Layer, NoCounterpart, Outputs, column, translates
from flows.translation.layers.tape import Tape, Tensor
from serving.core.datatypes import Array


@translates("innerProduct")
def inner_product(tape: Tape, layer: Layer) -> Outputs:
    """Up to rank 3 over the last axis; from rank 4 on over the last three, which become (C_out, 1, 1)."""
    params, x = layer.params, layer.x
    weights = layer.weights("weights", params.outputChannels, params.inputChannels)
    bias = layer.weights("bias", params.outputChannels) if params.hasBias else None
    if x.rank <= 3:
        return _product(tape, x, weights, bias)
    if x.rank > 5:
        raise Inconsistent(f"takes an input of rank 1 to 5, not {list(x.shape)}")
    leading = [tape.size(x, axis) for axis in range(x.rank - 3)]
    flat = tape.reshape(x, [*leading, params.inputChannels])
    return tape.unsqueeze(_product(tape, flat, weights, bias), -2, -1)


def _product(tape: Tape, x: Tensor, weights: Array, bias: Array | None) -> Tensor:
    """x (..., I) times weights (O, I) transposed."""
    if isinstance(x.shape[-1], int) and x.shape[-1] != weights.shape[1]:
        raise Inconsistent(f"takes {weights.shape[1]} values, and its input has shape {list(x.shape)}")
    if x.rank == 2:
        added = None if bias is None else tape.constant(bias, "bias")
        return tape.add("Gemm", x, tape.constant(weights, "weights"), added, transB=1)
    done = tape.add("MatMul", x, tape.constant(np.ascontiguousarray(weights.T), "weights"))
    return done if bias is None else tape.add("Add", done, tape.constant(bias, "bias"))


@translates("batchedMatmul")
def batched_product(tape: Tape, layer: Layer) -> Outputs:
    """A vector is made a matrix first and stays one, unlike in numpy."""
    params = layer.params
    if len(layer.inputs) == 1:
        rows, columns = params.weightMatrixFirstDimension, params.weightMatrixSecondDimension
        weights = layer.weights("weights", columns, rows)
        return _product(tape, layer.x, weights, layer.weights("bias", columns) if params.hasBias else None)
    left, right = layer.require(2)[:2]
    left = tape.unsqueeze(left, 0) if left.rank == 1 else left
    right = tape.unsqueeze(right, 1) if right.rank == 1 else right
    left = _swapped(tape, left) if params.transposeA else left
    right = _swapped(tape, right) if params.transposeB else right
    return tape.add("MatMul", left, right)


def _swapped(tape: Tape, x: Tensor) -> Tensor:
    return tape.transpose(x, [*range(x.rank - 2), x.rank - 1, x.rank - 2])


@translates("embedding")
def embedding(tape: Tape, layer: Layer) -> Outputs:
    """Input (..., 1, 1, 1) of whole numbers, output (..., C, 1, 1)."""
    params = layer.params
    x = layer.require_rank(4)
    flat = tape.reshape(x, [tape.size(x, axis) for axis in range(x.rank - 3)])
    found = _looked_up(tape, layer, flat, params.inputDim, params.outputChannels)
    return tape.unsqueeze(found, -2, -1)


@translates("embeddingND")
def embedding_nd(tape: Tape, layer: Layer) -> Outputs:
    """Input (..., 1) of whole numbers, output (..., C)."""
    params = layer.params
    x = layer.require_rank(2)
    return _looked_up(tape, layer, tape.squeeze(x, -1), params.vocabSize, params.embeddingSize)


def _looked_up(tape: Tape, layer: Layer, indices: Tensor, entries: int, size: int) -> Tensor:
    """Stored as (size, entries); the table is turned so that one entry lies together."""
    table = np.ascontiguousarray(layer.weights("weights", size, entries).T)
    found = tape.add("Gather", tape.constant(table, "table"), tape.integers(indices), axis=0)
    if not layer.params.hasBias:
        return found
    return tape.add("Add", found, tape.constant(layer.weights("bias", size), "bias"))


@translates("dot")
def dot_product(tape: Tape, layer: Layer) -> Outputs:
    """Over the channels; with `cosineSimilarity` of the inputs scaled to length 1."""
    layer.require_rank(3)
    left, right = layer.require(2)[:2]
    channels = tape.ints(-3)
    product = tape.add("ReduceSum", tape.add("Mul", left, right), channels, keepdims=1)
    if not layer.params.cosineSimilarity:
        return product
    lengths = (tape.add("ReduceL2", one, channels, keepdims=1) for one in (left, right))
    return tape.add("Div", product, tape.add("Mul", *lengths))


@translates("bias")
def bias(tape: Tape, layer: Layer) -> Outputs:
    layer.require_rank(3)
    return tape.add("Add", layer.x, _broadcast(tape, layer, "bias", layer.params.shape))


@translates("scale")
def scale(tape: Tape, layer: Layer) -> Outputs:
    params = layer.params
    layer.require_rank(3)
    product = tape.add("Mul", layer.x, _broadcast(tape, layer, "scale", params.shapeScale))
    if not params.hasBias:
        return product
    return tape.add("Add", product, _broadcast(tape, layer, "bias", params.shapeBias))


def _broadcast(tape: Tape, layer: Layer, field: str, shape: Any) -> Tensor:
    """Numbers of shape [1], [C], [1, H, W] or [C, H, W], which apply to the last three axes."""
    shape = tuple(int(size) for size in shape) or (1,)
    if len(shape) not in (1, 3):
        raise NoCounterpart(f"stores its {field} in shape {list(shape)}")
    stored = layer.weights(field, *shape)
    return tape.constant(column(stored) if len(shape) == 1 else stored, field)
