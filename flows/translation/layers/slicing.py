"""Taking parts of a tensor: slices, crops and windows."""

from collections.abc import Sequence
from typing import Any

import numpy as np

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

_END = 2**63 - 1  # ONNX's word for "as far as there is"
_AXES = {"CHANNEL_AXIS": -3, "HEIGHT_AXIS": -2, "WIDTH_AXIS": -1}


@translates("slice")
def along_one_axis(tape: Tape, layer: Layer) -> Outputs:
    params = layer.params
    axis = _AXES[choice(params, "axis")]
    x = layer.require_rank(-axis)
    operands = (params.startIndex, params.endIndex, axis, int(params.stride) or 1)
    return tape.add("Slice", x, *(tape.ints(int(number)) for number in operands))


@translates("sliceStatic")
def static(tape: Tape, layer: Layer) -> Outputs:
    params, rank = layer.params, layer.x.rank
    begins = _numbers(params.beginIds, rank, "begins")
    return _sliced(tape, layer, tape.ints(*begins), _numbers(params.endIds, rank, "ends"))


@translates("sliceDynamic")
def dynamic(tape: Tape, layer: Layer) -> Outputs:
    """Begins, and where there is a third input also ends, are computed by other layers."""
    begins, *rest = layer.require(2)[1:]
    if len(rest) > 1:
        raise NoCounterpart("computes its strides or masks")
    ends = tape.integers(rest[0]) if rest else _numbers(layer.params.endIds, layer.x.rank, "ends")
    return _sliced(tape, layer, tape.integers(begins), ends)


def _numbers(stored: Sequence[int], rank: int, name: str) -> list[int]:
    """The first `rank` numbers; a builder may leave more."""
    if len(stored) < rank:
        raise Inconsistent(f"has {len(stored)} {name} for an input of rank {rank}")
    return [int(number) for number in stored[:rank]]


def _flags(stored: Sequence[bool], rank: int) -> list[bool]:
    return [bool(flag) for flag in stored[:rank]] + [False] * (rank - len(stored))


def _sliced(tape: Tape, layer: Layer, begins: Tensor, ends: Tensor | list[int]) -> Tensor:
    """A masked begin or end is ignored; a squeezed axis gives one element and is dropped."""
    params, x = layer.params, layer.x
    rank = x.rank
    strides = _numbers(params.strides, rank, "strides") if params.strides else [1] * rank
    squeezed = _flags(params.squeezeMasks, rank)
    strides = [1 if drop else stride for drop, stride in zip(squeezed, strides, strict=True)]
    if 0 in strides:
        raise Inconsistent("has a stride of 0")
    open_begins, open_ends = _flags(params.beginMasks, rank), _flags(params.endMasks, rank)
    free = [mask and not drop for mask, drop in zip(open_begins, squeezed, strict=True)]
    starts = _masked(tape, begins, free, [0 if stride > 0 else _END for stride in strides])
    stops = ends if isinstance(ends, Tensor) else tape.ints(*ends)
    stops = _masked(tape, stops, open_ends, [_END if stride > 0 else -_END for stride in strides])
    stops = _after_begin(tape, starts, stops, squeezed)
    axes = tape.ints(*range(rank))
    done = tape.add("Slice", x, starts, stops, axes, tape.ints(*strides))
    return _dropped(tape, done, squeezed)


def _masked(tape: Tape, numbers: Tensor, mask: list[bool], instead: list[int]) -> Tensor:
    if not any(mask):
        return numbers
    return tape.add("Where", tape.constant(np.array(mask)), tape.ints(*instead), numbers)


def _after_begin(tape: Tape, starts: Tensor, stops: Tensor, squeezed: list[bool]) -> Tensor:
    """One past the begin on squeezed axes; past the last element, which -1 names, it is the end."""
    if not any(squeezed):
        return stops
    after = tape.add("Add", starts, tape.ints(1))
    past_last = tape.add("Equal", after, tape.ints(0))
    after = tape.add("Where", past_last, tape.ints(_END), after)
    return tape.add("Where", tape.constant(np.array(squeezed)), after, stops)


def _dropped(tape: Tape, x: Tensor, squeezed: list[bool]) -> Tensor:
    axes = [axis for axis, drop in enumerate(squeezed) if drop]
    if len(axes) == x.rank:
        axes = axes[1:]
    known = Tensor(x.name, tuple(1 if axis in axes else dim for axis, dim in enumerate(x.shape)), x.dtype)
    return tape.squeeze(known, *axes)


@translates("sliceBySize")
def by_size(tape: Tape, layer: Layer) -> Outputs:
    """`size` elements from where the second input says."""
    x, begin = layer.require(2)[:2]
    axis, size = layer.axis(layer.params.axis), int(layer.params.size)
    start = tape.integers(tape.reshape(begin, [1]))
    stop = tape.add("Add", start, tape.ints(size))
    done = tape.add("Slice", x, start, stop, tape.ints(axis))
    shape = [size if at == axis else dim for at, dim in enumerate(x.shape)]
    return Tensor(done.name, tuple(shape), done.dtype)


@translates("crop")
def crop(tape: Tape, layer: Layer) -> Outputs:
    """The amounts are cut off; with a second input, its size from an offset on."""
    x = layer.require_rank(3)
    if len(layer.inputs) > 1:
        return _cut_to(tape, x, layer.inputs[1], pair(layer.params.offset, 0))
    (top, bottom), (left, right) = borders(layer.params.cropAmounts)
    ends = [-amount if amount else _END for amount in (bottom, right)]
    return tape.add("Slice", x, tape.ints(top, left), tape.ints(*ends), tape.ints(-2, -1))


def _cut_to(tape: Tape, x: Tensor, reference: Tensor, offset: tuple[int, int]) -> Tensor:
    for axis, start in zip((-2, -1), offset, strict=True):
        stop = tape.add("Add", tape.extent(reference, axis), tape.ints(start))
        cut = tape.add("Slice", x, tape.ints(start), stop, tape.ints(axis))
        shape = list(x.shape)
        shape[axis] = reference.shape[axis]
        x = Tensor(cut.name, tuple(shape), cut.dtype)
    return x


@translates("slidingWindows")
def windows(tape: Tape, layer: Layer) -> Outputs:
    """(..., L, ...) as (..., windows, window, ...)."""
    params: Any = layer.params
    axis = layer.axis(params.axis)
    size, step = int(params.windowSize), int(params.step) or 1
    length = layer.x.shape[axis]
    if isinstance(length, int) and not 0 < size <= length:
        raise Inconsistent(f"takes windows of {size} elements out of {length}")
    within = np.arange(size)
    if isinstance(length, int):
        starts = np.arange(0, length - size + 1, step)[:, None]
        return tape.add("Gather", layer.x, tape.constant(starts + within), axis=axis)
    last = tape.add("Add", tape.extent(layer.x, axis), tape.ints(1 - size))
    first, stride = tape.constant(np.int64(0)), tape.constant(np.int64(step))
    opened = tape.add("Range", first, tape.squeeze(last, 0), stride)
    places = tape.add("Add", tape.unsqueeze(opened, 1), tape.constant(within))
    return tape.add("Gather", layer.x, places, axis=axis)
