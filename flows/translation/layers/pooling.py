"""Pooling: maximum, average and L2, over two and three spatial axes."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from flows.translation.layers.convolution import Window, flat, same_mode, same_pads, window3d
from flows.translation.layers.layer import (
    Inconsistent,
    Layer,
    NoCounterpart,
    Outputs,
    borders,
    choice,
    pair,
    translates,
)
from flows.translation.layers.tape import Tape, Tensor
from serving.core.datatypes import Array

_REDUCTIONS = {"MAX": "ReduceMax", "AVERAGE": "ReduceMean", "L2": "ReduceL2"}
_LOWEST = float(np.finfo(np.float32).min)


@translates("pooling")
def pooling(tape: Tape, layer: Layer) -> Outputs:
    params = layer.params
    kind = choice(params, "type")
    layer.require_rank(3)
    if params.globalPooling:
        return tape.add(_REDUCTIONS[kind], layer.x, tape.ints(-2, -1), keepdims=1)
    x = tape.fold(layer.x)
    kernel, strides = pair(params.kernelSize, 3), pair(params.stride, 1)
    padding = params.WhichOneof("PoolingPaddingType")
    same = same_mode(params) if padding == "same" else None
    pads = borders(params.valid.paddingAmounts)
    if padding == "includeLastPixel":
        top, left = pair(params.includeLastPixel.paddingAmounts, 0)
        pads = ((top, top), (left, left))
    window = Window(kernel, strides, (1, 1), pads, same)
    done = _pooled(tape, x, kind, window, params.avgPoolExcludePadding, padding == "includeLastPixel")
    return tape.unfold(done, layer.x)


@translates("pooling3d")
def pooling3d(tape: Tape, layer: Layer) -> Outputs:
    """Input (N, C, D, H, W)."""
    params = layer.params
    x = layer.require_volume()
    return _pooled(tape, x, choice(params, "type"), window3d(params), params.countExcludePadding, False)


@translates("globalPooling3d")
def global_pooling3d(tape: Tape, layer: Layer) -> Outputs:
    x = layer.require_volume()
    kind = choice(layer.params, "type")
    return tape.add(_REDUCTIONS[kind], x, tape.ints(-3, -2, -1), keepdims=1)


def _pooled(tape: Tape, x: Tensor, kind: str, window: Window, excluding: bool, complete: bool) -> Tensor:
    """`complete` lets the last window reach past the padding, so that no input element is left out."""
    spatial = x.sizes(2)
    if spatial is None:
        return _pooled_open(tape, x, kind, window, excluding, complete)
    pads = window.pads if window.same is None else same_pads(window, spatial)
    reached = _completed(window, pads, spatial) if complete else pads
    padded = [sum(edge) + size for edge, size in zip(reached, spatial, strict=True)]
    if any(size < kernel for size, kernel in zip(padded, window.kernel, strict=True)):
        raise Inconsistent(f"pools over {list(window.kernel)} elements of an image of {list(spatial)}")
    fits = all(max(edge) < size for edge, size in zip(reached, window.kernel, strict=True))
    if kind == "MAX":
        if not fits:
            x, reached = _padded(tape, x, reached, _LOWEST), [(0, 0)] * len(pads)
        return tape.add("MaxPool", x, **_attributes(window, reached))
    squares = tape.add("Mul", x, x) if kind == "L2" else x
    ready = _padded(tape, squares, reached, 0.0)
    mean = tape.add("AveragePool", ready, **_attributes(window, [(0, 0)] * len(pads)))
    if kind == "L2":
        return tape.add("Sqrt", tape.add("Mul", mean, tape.number(float(np.prod(window.kernel)))))
    counted = [(0, 0)] * len(pads) if excluding else list(pads)
    return _recounted(tape, mean, window, spatial, reached, counted)


def _attributes(window: Window, pads: Sequence[tuple[int, int]]) -> dict[str, Any]:
    return {"kernel_shape": list(window.kernel), "strides": list(window.strides), "pads": flat(pads)}


def _padded(tape: Tape, x: Tensor, pads: Sequence[tuple[int, int]], value: float) -> Tensor:
    if not any(before or after for before, after in pads):
        return x
    amounts = flat([(0, 0), (0, 0), *pads])
    return tape.add("Pad", x, tape.ints(*amounts), tape.number(value), mode="constant")


def _completed(
    window: Window, pads: Sequence[tuple[int, int]], spatial: Sequence[int]
) -> list[tuple[int, int]]:
    """The padding at the end that the last window needs. Source: PoolingLayerParams, NeuralNetwork.proto."""
    padded = any(before for before, _ in pads)
    reached = []
    for size, (before, _), kernel, stride in zip(spatial, pads, window.kernel, window.strides, strict=True):
        steps = -(-(size + 2 * before - kernel) // stride) + 1
        if padded and (steps - 1) * stride >= size + before:
            steps -= 1
        reached.append((before, max(0, (steps - 1) * stride + kernel - size - before)))
    return reached


def _recounted(
    tape: Tape,
    mean: Tensor,
    window: Window,
    spatial: Sequence[int],
    reached: Sequence[tuple[int, int]],
    counted: Sequence[tuple[int, int]],
) -> Tensor:
    """A mean over whole windows as the mean over the elements that count: the input and `counted` padding."""
    factor = np.ones((), np.float64)
    for axis, size in enumerate(spatial):
        before, after = reached[axis]
        marks = np.zeros(before + size + after)
        first = before - min(counted[axis][0], before)
        marks[first : before + size + counted[axis][1]] = 1
        shares = _sums(marks, window.kernel[axis], window.strides[axis]) / window.kernel[axis]
        factor = np.multiply.outer(factor, shares)
    if np.all(factor == 1):
        return mean
    return tape.add("Div", mean, tape.constant(factor.astype(np.float32)[None, None], "counted"))


def _sums(marks: Array, kernel: int, stride: int) -> Array:
    return np.asarray(np.lib.stride_tricks.sliding_window_view(marks, kernel)[::stride].sum(axis=-1))


def _pooled_open(tape: Tape, x: Tensor, kind: str, window: Window, excluding: bool, complete: bool) -> Tensor:
    """Over axes of open size, where ONNX itself works out padding and counts."""
    if kind == "L2" or any(max(edge) >= size for edge, size in zip(window.pads, window.kernel, strict=True)):
        raise NoCounterpart("pools in this mode over an input of open height or width")
    attributes = window.attributes() | {"ceil_mode": int(complete)}
    attributes.pop("dilations")
    if kind == "MAX":
        return tape.add("MaxPool", x, **attributes)
    return tape.add("AveragePool", x, count_include_pad=int(not excluding), **attributes)
