"""Tensors out of nothing or out of a shape: constants, fills, ranges, one-hot vectors, masks."""

from collections.abc import Sequence

import numpy as np
from onnx import helper

from flows.translation.layers.layer import Inconsistent, Layer, Outputs, translates
from flows.translation.layers.reshaping import open_shape
from flows.translation.layers.tape import Dim, Tape, Tensor

_MAX_ELEMENTS = 2**31  # a range or fill beyond this is a typing error or an attack


@translates("loadConstant")
def constant(tape: Tape, layer: Layer) -> Outputs:
    """(C, H, W) as the (1, 1, C, H, W) of the first versions."""
    shape = [int(size) for size in layer.params.shape]
    if len(shape) != 3:
        raise Inconsistent(f"holds a constant of shape {shape}; it must have 3 axes")
    return tape.constant(layer.weights("data", *shape)[None, None])


@translates("loadConstantND")
def constant_nd(tape: Tape, layer: Layer) -> Outputs:
    shape = [int(size) for size in layer.params.shape]
    return tape.constant(layer.weights("data", *shape))


@translates("fillStatic")
def fill(tape: Tape, layer: Layer) -> Outputs:
    shape = [int(size) for size in layer.params.targetShape]
    _check_size(float(np.prod(shape, dtype=np.float64)))
    return _filled(tape, tape.ints(*shape), layer.params.value)


@translates("fillLike")
def fill_like(tape: Tape, layer: Layer) -> Outputs:
    filled = _filled(tape, tape.add("Shape", layer.x), layer.params.value, layer.x.shape)
    return Tensor(filled.name, layer.x.shape)


@translates("fillDynamic")
def fill_dynamic(tape: Tape, layer: Layer) -> Outputs:
    return _filled(tape, tape.integers(layer.x), layer.params.value, open_shape(tape, layer.x))


def _filled(tape: Tape, shape: Tensor, value: float, known: Sequence[Dim] | None = None) -> Tensor:
    number = helper.make_tensor("value", 1, [1], [value])
    if known is None:
        return tape.add("ConstantOfShape", shape, value=number)
    return tape.shaped("ConstantOfShape", shape, shape=known, value=number)


def _check_size(elements: float) -> None:
    if not elements <= _MAX_ELEMENTS:
        raise Inconsistent(f"makes {elements:.3g} elements, more than the {_MAX_ELEMENTS:,} that are allowed")


@translates("broadcastToStatic")
def broadcast(tape: Tape, layer: Layer) -> Outputs:
    shape = [int(size) for size in layer.params.targetShape]
    _check_size(float(np.prod(shape, dtype=np.float64)))
    return tape.add("Expand", layer.x, tape.ints(*shape))


@translates("broadcastToLike")
def broadcast_like(tape: Tape, layer: Layer) -> Outputs:
    x, reference = layer.require(2)[:2]
    return tape.shaped("Expand", x, tape.add("Shape", reference), shape=reference.shape)


@translates("broadcastToDynamic")
def broadcast_dynamic(tape: Tape, layer: Layer) -> Outputs:
    x, shape = layer.require(2)[:2]
    return tape.shaped("Expand", x, tape.integers(shape), shape=open_shape(tape, shape))


@translates("getShape")
def shape_of(tape: Tape, layer: Layer) -> Outputs:
    return tape.floats(tape.add("Shape", layer.x))


@translates("rangeStatic")
def fixed_range(tape: Tape, layer: Layer) -> Outputs:
    params = layer.params
    if params.stepSizeValue == 0:
        raise Inconsistent("counts in steps of 0")
    _check_size(abs((params.endValue - params.startValue) / params.stepSizeValue))
    values = np.arange(float(params.startValue), float(params.endValue), float(params.stepSizeValue))
    return tape.constant(values)


@translates("rangeDynamic")
def computed_range(tape: Tape, layer: Layer) -> Outputs:
    """Inputs are the end, then the start, then the step; the last two may be stored instead."""
    params = layer.params
    end = _scalar(tape, layer.x)
    start = _scalar(tape, layer.inputs[1]) if len(layer.inputs) > 1 else tape.number(params.startValue)
    step = _scalar(tape, layer.inputs[2]) if len(layer.inputs) > 2 else tape.number(params.stepSizeValue)
    return tape.add("Range", start, end, step)


def _scalar(tape: Tape, tensor: Tensor) -> Tensor:
    return tape.reshape(tensor, []) if tensor.rank else tensor


@translates("oneHot")
def one_hot(tape: Tape, layer: Layer) -> Outputs:
    """An index outside the vector gives off values only, so indices below 0 do not count from the end."""
    params = layer.params
    size = (
        tape.integers(tape.reshape(layer.inputs[1], [1]))
        if len(layer.inputs) > 1
        else tape.ints(int(params.oneHotVectorSize))
    )
    places = tape.integers(layer.x)
    outside = tape.add("Less", places, tape.ints(0))
    kept = tape.add("Where", outside, size, places)
    values = tape.constant(np.array([params.offValue, params.onValue], np.float32))
    axis = layer.axis(params.axis, layer.x.rank + 1)
    return tape.add("OneHot", kept, size, values, axis=axis)


@translates("whereNonZero")
def places_of_nonzero(tape: Tape, layer: Layer) -> Outputs:
    """(N, rank): one row for each element that is not zero."""
    found = tape.add("NonZero", layer.x)
    return tape.floats(tape.transpose(found, [1, 0]))


@translates("lowerTriangular", "upperTriangular")
def triangle(tape: Tape, layer: Layer) -> Outputs:
    return _triangle(tape, layer.require_rank(2), int(layer.params.k), layer.kind == "upperTriangular")


@translates("matrixBandPart")
def band(tape: Tape, layer: Layer) -> Outputs:
    """A negative number of diagonals keeps all on that side."""
    kept = layer.require_rank(2)
    if layer.params.numLower >= 0:
        kept = _triangle(tape, kept, -int(layer.params.numLower), upper=True)
    if layer.params.numUpper >= 0:
        kept = _triangle(tape, kept, int(layer.params.numUpper), upper=False)
    return kept if kept is not layer.x else tape.add("Identity", kept)


def _triangle(tape: Tape, x: Tensor, diagonal: int, upper: bool) -> Tensor:
    return tape.add("Trilu", x, tape.constant(np.int64(diagonal)), upper=int(upper))
