"""Putting tensors together and taking them apart along an axis; repeating and reversing them."""

from flows.translation.layers.layer import Inconsistent, Layer, Outputs, translates
from flows.translation.layers.reshaping import open_shape
from flows.translation.layers.tape import Tape, Tensor

_END = 2**63 - 1  # ONNX's word for "as far as there is"


@translates("concat")
def channels(tape: Tape, layer: Layer) -> Outputs:
    """Along the channels, or with `sequenceConcat` along the sequence."""
    axis = -5 if layer.params.sequenceConcat else -3
    layer.require_rank(-axis)
    return _joined(tape, layer.inputs, layer.axis(axis))


@translates("concatND")
def concat(tape: Tape, layer: Layer) -> Outputs:
    axis = layer.axis(layer.params.axis)
    if not layer.params.interleave or len(layer.inputs) == 1:
        return _joined(tape, layer.inputs, axis)
    stacked = tape.add("Concat", *(tape.unsqueeze(one, axis + 1) for one in layer.inputs), axis=axis + 1)
    dims = [tape.size(layer.x, at) for at in range(layer.x.rank)]
    dims[axis] = -1
    return tape.reshape(stacked, dims)


def _joined(tape: Tape, tensors: tuple[Tensor, ...], axis: int) -> Tensor:
    """Of equal sizes but for `axis`, or Inconsistent: the run would only say so in ONNX's words."""
    first = tensors[0]
    for other in tensors[1:]:
        dims = zip(first.shape, other.shape, strict=False)
        clash = any(
            isinstance(one, int) and isinstance(two, int) and one != two
            for at, (one, two) in enumerate(dims)
            if at != axis
        )
        if clash or other.rank != first.rank:
            raise Inconsistent(f"joins shapes {list(first.shape)} and {list(other.shape)} along axis {axis}")
    return tape.add("Concat", *tensors, axis=axis)


@translates("stack")
def stack(tape: Tape, layer: Layer) -> Outputs:
    axis = layer.axis(layer.params.axis, layer.x.rank + 1)
    return _joined(tape, tuple(tape.unsqueeze(one, axis) for one in layer.inputs), axis)


@translates("split")
def split_channels(tape: Tape, layer: Layer) -> Outputs:
    layer.require_rank(3)
    return _split(tape, layer, layer.axis(-3), [])


@translates("splitND")
def split(tape: Tape, layer: Layer) -> Outputs:
    return _split(tape, layer, layer.axis(layer.params.axis), [int(size) for size in layer.params.splitSizes])


def _split(tape: Tape, layer: Layer, axis: int, sizes: list[int]) -> Outputs:
    """Into as many equal parts as there are outputs, unless sizes are given."""
    parts, length = len(layer.outputs), layer.x.shape[axis]
    if not sizes and isinstance(length, int):
        if length % parts:
            raise Inconsistent(f"splits {length} elements into {parts} equal parts")
        sizes = [length // parts] * parts
    if not sizes:
        return tape.add_many("Split", layer.x, outputs=parts, axis=axis, num_outputs=parts)
    if len(sizes) != parts or (isinstance(length, int) and sum(sizes) != length):
        raise Inconsistent(f"splits {length} elements into {parts} parts of sizes {sizes}")
    return tape.add_many("Split", layer.x, tape.ints(*sizes), outputs=parts, axis=axis)


@translates("sequenceRepeat")
def repeat_sequence(tape: Tape, layer: Layer) -> Outputs:
    x = layer.require_rank(5)
    counts = [1] * x.rank
    counts[-5] = int(layer.params.nRepetitions) or 1
    return tape.add("Tile", x, tape.ints(*counts))


@translates("tile")
def tile(tape: Tape, layer: Layer) -> Outputs:
    """A second input takes the place of the stored counts; missing leading counts are 1."""
    x = layer.x
    if len(layer.inputs) > 1:
        counts = tape.integers(layer.inputs[1])
        return tape.shaped("Tile", x, counts, shape=open_shape(tape, layer.inputs[1]))
    stored = [int(count) for count in layer.params.reps]
    if len(stored) > x.rank:
        raise Inconsistent(f"repeats {len(stored)} axes of an input of shape {list(x.shape)}")
    return tape.add("Tile", x, tape.ints(*[1] * (x.rank - len(stored)), *stored))


@translates("reverse")
def reverse(tape: Tape, layer: Layer) -> Outputs:
    axes = [axis for axis, turned in enumerate(layer.params.reverseDim) if turned]
    if len(layer.params.reverseDim) != layer.x.rank:
        raise Inconsistent(f"marks {len(layer.params.reverseDim)} axes of an input of rank {layer.x.rank}")
    if not axes:
        return tape.add("Identity", layer.x)
    starts, ends, steps = ([number] * len(axes) for number in (-1, -_END, -1))
    operands = (tape.ints(*numbers) for numbers in (starts, ends, axes, steps))
    return tape.add("Slice", layer.x, *operands)


@translates("reverseSeq")
def reverse_sequences(tape: Tape, layer: Layer) -> Outputs:
    """Each batch element as far as the second input says; ONNX wants both axes first."""
    x, lengths = layer.require(2)[:2]
    batch, time = layer.axis(layer.params.batchAxis), layer.axis(layer.params.sequenceAxis)
    if batch == time:
        raise Inconsistent(f"reverses axis {time} for each element of the same axis")
    order = [time, batch, *(axis for axis in range(x.rank) if axis not in (batch, time))]
    turned = tape.add(
        "ReverseSequence", tape.transpose(x, order), tape.integers(lengths), batch_axis=1, time_axis=0
    )
    return tape.transpose(turned, [order.index(axis) for axis in range(x.rank)])
