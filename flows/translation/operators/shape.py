"""Operators that give elements another shape or order, without selecting among them."""

from collections.abc import Callable

import numpy as np

from flows.translation.call import Call, Names


def _reshape(call: Call) -> str:
    shape = call.known("shape")
    if shape is None:
        return call.add("Reshape", call.tensor("x"), call.longs("shape"))
    wanted = [int(size) for size in np.ravel(shape)]
    if 0 in wanted and len(wanted) != call.rank("x"):
        return call.add("Reshape", call.tensor("x"), _inherited(call, wanted))
    return call.add("Reshape", call.tensor("x"), call.graph.ints(*wanted))


def _inherited(call: Call, wanted: list[int]) -> str:
    """A 0 takes the input's dimension counted from the right, or 1 where there is none."""
    rank, parts = call.rank("x"), []
    for at, size in enumerate(wanted):
        axis = rank - len(wanted) + at
        if size == 0 and axis >= 0:
            parts.append(call.add("Shape", call.tensor("x"), start=axis, end=axis + 1))
        else:
            parts.append(call.graph.ints(size or 1))
    return call.add("Concat", *parts, axis=0)


def _reshape_like(call: Call) -> str:
    begins, ends = call.variable("begins"), call.variable("ends")
    masks, parts = call.variable("end_masks"), []
    for source, begin, end, mask in zip(call.tensors("ref_tensors"), begins, ends, masks, strict=True):
        stop = None if mask.val else int(end.val)
        parts.append(call.add("Shape", source, start=int(begin.val), end=stop))
    return call.add("Reshape", call.tensor("x"), call.add("Concat", *parts, axis=0))


def _transpose(call: Call) -> str:
    rank = call.rank("x")
    return call.add("Transpose", call.tensor("x"), perm=[axis % rank for axis in call.integers("perm")])


def _expand_dims(call: Call) -> str:
    return call.add("Unsqueeze", call.tensor("x"), call.graph.ints(*call.integers("axes")))


def _squeeze(call: Call) -> str:
    """Axes of another size than 1 are left alone, as the program's author sees them."""
    shape = call.shape("x")
    axes = [axis % len(shape) for axis in call.integers("axes")] if call.has("axes") else range(len(shape))
    single = [axis for axis in axes if shape[axis] == 1]
    if not single:
        return call.add("Identity", call.tensor("x"))
    return call.add("Squeeze", call.tensor("x"), call.graph.ints(*single))


def _shape(call: Call) -> str:
    return call.cast(call.add("Shape", call.tensor("x")), call.output_type())


def _flatten2d(call: Call) -> str:
    return call.add("Flatten", call.tensor("x"), axis=call.integer("axis", 1))


def _concat(call: Call) -> str:
    parts, rank = call.tensors("values"), len(call.variable("values")[0].shape)
    axis = call.axis("axis", 0, max(rank, 1))
    if rank == 0:
        return call.add("Concat", *_stretched(call, parts, 0), axis=0)
    if not call.flag("interleave"):
        return call.add("Concat", *parts, axis=axis)
    side_by_side = call.add("Concat", *_stretched(call, parts, axis + 1), axis=axis + 1)
    shape = call.add("Shape", parts[0])
    factors = [len(parts) if at == axis else 1 for at in range(rank)]
    return call.add("Reshape", side_by_side, call.add("Mul", shape, call.graph.ints(*factors)))


def _stack(call: Call) -> str:
    parts = call.tensors("values")
    axis = call.axis("axis", 0, len(call.variable("values")[0].shape) + 1)
    return call.add("Concat", *_stretched(call, parts, axis), axis=axis)


def _stretched(call: Call, parts: list[str], axis: int) -> list[str]:
    return [call.add("Unsqueeze", part, call.graph.ints(axis)) for part in parts]


def _split(call: Call) -> Names:
    count, axis = len(call.outputs), call.integer("axis")
    hint = call.outputs[0].name
    if call.has("split_sizes"):
        sizes = call.longs("split_sizes")
        return call.graph.add_many("Split", call.tensor("x"), sizes, outputs=count, hint=hint, axis=axis)
    return call.graph.add_many(
        "Split", call.tensor("x"), outputs=count, hint=hint, axis=axis, num_outputs=count
    )


def _tile(call: Call) -> str:
    return call.add("Tile", call.tensor("x"), call.longs("reps"))


def _depth_to_space(call: Call) -> str:
    return call.add("DepthToSpace", call.tensor("x"), blocksize=call.integer("block_size"), mode="DCR")


def _space_to_depth(call: Call) -> str:
    return call.add("SpaceToDepth", call.tensor("x"), blocksize=call.integer("block_size"))


def _pixel_shuffle(call: Call) -> str:
    return call.add("DepthToSpace", call.tensor("x"), blocksize=call.integer("upscale_factor"), mode="CRD")


def _pixel_unshuffle(call: Call) -> str:
    """ONNX orders the new channels block first, this operator channel first."""
    factor, channels = call.integer("downscale_factor"), call.shape("x")[1]
    if channels is None:
        raise call.refused("has a number of channels that is only known at run time")
    blocks = call.add("SpaceToDepth", call.tensor("x"), blocksize=factor)
    order = np.arange(channels * factor**2).reshape(factor**2, channels).T.ravel()
    return call.add("Gather", blocks, call.graph.constant(order.astype(np.int64), "order"), axis=1)


def _space_to_batch(call: Call) -> str:
    high, wide = call.integers("block_shape")
    (top, bottom), (left, right) = np.asarray(call.value("paddings")).tolist()
    batch, channels, height, width = _fixed(call)
    padded = call.add("Pad", call.tensor("x"), call.graph.ints(0, 0, top, left, 0, 0, bottom, right))
    rows, columns = (height + top + bottom) // high, (width + left + right) // wide
    split = call.add("Reshape", padded, call.graph.ints(batch, channels, rows, high, columns, wide))
    moved = call.add("Transpose", split, perm=[3, 5, 0, 1, 2, 4])
    return call.add("Reshape", moved, call.graph.ints(batch * high * wide, channels, rows, columns))


def _batch_to_space(call: Call) -> str:
    high, wide = call.integers("block_shape")
    (top, bottom), (left, right) = np.asarray(call.value("crops")).tolist()
    batch, channels, height, width = _fixed(call)
    rest = batch // (high * wide)
    split = call.add("Reshape", call.tensor("x"), call.graph.ints(high, wide, rest, channels, height, width))
    moved = call.add("Transpose", split, perm=[2, 3, 4, 0, 5, 1])
    whole = call.add("Reshape", moved, call.graph.ints(rest, channels, height * high, width * wide))
    ends = call.graph.ints(height * high - bottom, width * wide - right)
    return call.add("Slice", whole, call.graph.ints(top, left), ends, call.graph.ints(2, 3))


def _fixed(call: Call) -> tuple[int, int, int, int]:
    sizes = [size for size in call.shape("x") if size is not None]
    if len(sizes) != 4:
        raise call.refused("needs an input of fixed shape")
    batch, channels, height, width = sizes
    return batch, channels, height, width


TRANSLATORS: dict[str, Callable[[Call], Names]] = {
    "batch_to_space": _batch_to_space,
    "concat": _concat,
    "depth_to_space": _depth_to_space,
    "expand_dims": _expand_dims,
    "flatten2d": _flatten2d,
    "pixel_shuffle": _pixel_shuffle,
    "pixel_unshuffle": _pixel_unshuffle,
    "reshape": _reshape,
    "reshape_like": _reshape_like,
    "shape": _shape,
    "space_to_batch": _space_to_batch,
    "space_to_depth": _space_to_depth,
    "split": _split,
    "squeeze": _squeeze,
    "stack": _stack,
    "tile": _tile,
    "transpose": _transpose,
}
