"""Operators that cut out or reverse parts of a tensor, and the one that writes into a part."""

from collections.abc import Callable

import numpy as np

from flows.translation.call import Call

_LAST = 2**31 - 1  # beyond every dimension: "to the end"
_FIRST = -(2**31)  # before every dimension, where a step goes backwards


def _slice_by_index(call: Call) -> str:
    sliced = _sliced(call, call.tensor("x"))
    squeezed = [axis for axis, squeeze in enumerate(_mask(call, "squeeze_mask")) if squeeze]
    return call.add("Squeeze", sliced, call.graph.ints(*squeezed)) if squeezed else sliced


def _sliced(call: Call, source: str) -> str:
    """`source`, of x's shape, cut to the part that begin, end, stride and the masks describe."""
    rank = call.rank("x")
    steps = call.integers("stride") or [1] * rank
    begins, ends = _begins(call, steps), _ends(call, steps)
    steps = [1 if one else step for step, one in zip(steps, _mask(call, "squeeze_mask"), strict=True)]
    axes, strides = call.graph.ints(*range(rank)), call.graph.ints(*steps)
    return call.add("Slice", source, begins, ends, axes, strides)


def _mask(call: Call, name: str) -> list[bool]:
    if not call.has(name):
        return [False] * call.rank("x")
    return [bool(one) for one in np.ravel(call.value(name))]


def _begins(call: Call, steps: list[int]) -> str:
    neutral = [0 if step > 0 else _LAST for step in steps]
    masks = _mask(call, "begin_mask")
    if call.known("begin") is not None:
        chosen = zip(call.integers("begin"), neutral, masks, strict=True)
        return call.graph.ints(*(instead if masked else begin for begin, instead, masked in chosen))
    return _replaced(call, call.longs("begin"), neutral, masks)


def _ends(call: Call, steps: list[int]) -> str:
    """Where an axis is squeezed, the end is one past its begin, whatever was given."""
    neutral = [_LAST if step > 0 else _FIRST for step in steps]
    masks, single = _mask(call, "end_mask"), _mask(call, "squeeze_mask")
    if call.known("end") is not None and (call.known("begin") is not None or not any(single)):
        ends = [
            instead if masked else end
            for end, instead, masked in zip(call.integers("end"), neutral, masks, strict=True)
        ]
        for axis in (axis for axis, one in enumerate(single) if one):
            ends[axis] = call.integers("begin")[axis] + 1 or _LAST
        return call.graph.ints(*ends)
    ends_name = _replaced(call, call.longs("end"), neutral, masks)
    return call.add("Where", _booleans(call, single), _past(call), ends_name) if any(single) else ends_name


def _past(call: Call) -> str:
    """One past each begin; after -1, the last element, that is the end of the axis."""
    past = call.add("Add", call.longs("begin"), call.graph.ints(1))
    return call.add("Where", call.add("Equal", past, call.graph.ints(0)), call.graph.ints(_LAST), past)


def _replaced(call: Call, source: str, neutral: list[int], masks: list[bool]) -> str:
    return (
        call.add("Where", _booleans(call, masks), call.graph.ints(*neutral), source) if any(masks) else source
    )


def _booleans(call: Call, values: list[bool]) -> str:
    return call.graph.constant(np.array(values), "mask")


def _slice_by_size(call: Call) -> str:
    begins, sizes = call.longs("begin"), call.longs("size")
    last = call.graph.ints(_LAST)
    past = call.add("Add", begins, sizes)
    # From the end, a slice up to the end would stop at 0, which ONNX reads as the front.
    from_end = call.add("Less", begins, call.graph.ints(0))
    to_end = call.add("And", from_end, call.add("GreaterOrEqual", past, call.graph.ints(0)))
    whole = call.add("Or", to_end, call.add("Less", sizes, call.graph.ints(0)))
    ends = call.add("Where", whole, last, past)
    return call.add("Slice", call.tensor("x"), begins, ends, call.graph.ints(*range(call.rank("x"))))


def _slice_update(call: Call) -> str:
    """Positions in the flat tensor are sliced like the tensor, and the update is scattered to them."""
    source = call.tensor("x")
    shape, size = call.add("Shape", source), call.add("Size", source)
    count = call.add("Range", call.graph.integer(0), size, call.graph.integer(1))
    positions = _sliced(call, call.add("Reshape", count, shape))
    flat, minus_one = call.add("Reshape", source, call.graph.ints(-1)), call.graph.ints(-1)
    written = call.add(
        "ScatterElements",
        flat,
        call.add("Reshape", positions, minus_one),
        call.add("Reshape", call.tensor("update"), minus_one),
        axis=0,
    )
    return call.add("Reshape", written, shape)


def _crop(call: Call) -> str:
    (top, bottom), (left, right) = call.integers("crop_height"), call.integers("crop_width")
    ends = call.graph.ints(-bottom or _LAST, -right or _LAST)
    return call.add("Slice", call.tensor("x"), call.graph.ints(top, left), ends, call.graph.ints(-2, -1))


def _reverse(call: Call) -> str:
    axes = call.integers("axes") if call.has("axes") else list(range(call.rank("x")))
    return flipped(call, call.tensor("x"), axes)


def flipped(call: Call, source: str, axes: list[int]) -> str:
    """`source` with the order along the axes turned round."""
    count = len(axes)
    starts, ends = call.graph.ints(*[_LAST] * count), call.graph.ints(*[_FIRST] * count)
    return call.add("Slice", source, starts, ends, call.graph.ints(*axes), call.graph.ints(*[-1] * count))


def _reverse_sequence(call: Call) -> str:
    """ONNX knows time and batch as the first two axes only, so they are moved there and back."""
    rank = call.rank("x")
    time, batch = call.axis("seq_axis", 0, rank), call.axis("batch_axis", 0, rank)
    order = [time, batch, *(axis for axis in range(rank) if axis not in (time, batch))]
    if time == batch:
        raise call.refused("has the same axis for time and batch")
    moved = call.add("Transpose", call.tensor("x"), perm=order)
    turned = call.add("ReverseSequence", moved, call.longs("lengths"), time_axis=0, batch_axis=1)
    return call.add("Transpose", turned, perm=[order.index(axis) for axis in range(rank)])


def _sliding_windows(call: Call) -> str:
    axis = call.axis("axis", 0, call.rank("x"))
    length, size, stride = call.shape("x")[axis], call.integer("size"), call.integer("stride", 1)
    if length is None:
        raise call.refused("slides along an axis whose length is only known at run time")
    starts = np.arange((length - size) // stride + 1) * stride
    positions = starts[:, None] + np.arange(size)
    return call.add("Gather", call.tensor("x"), call.graph.constant(positions.astype(np.int64)), axis=axis)


TRANSLATORS: dict[str, Callable[[Call], str]] = {
    "crop": _crop,
    "reverse": _reverse,
    "reverse_sequence": _reverse_sequence,
    "slice_by_index": _slice_by_index,
    "slice_by_size": _slice_by_size,
    "slice_update": _slice_update,
    "sliding_windows": _sliding_windows,
}
