"""Layers that move elements without changing them: reshapes, transposes, flattening, blocks."""

from collections.abc import Sequence

from flows.translation.layers.layer import Inconsistent, Layer, NoCounterpart, Outputs, choice, translates
from flows.translation.layers.tape import Dim, Size, Tape, Tensor

_CHANNEL_LAST = 1


@translates("reshapeStatic", "rankPreservingReshape")
def static(tape: Tape, layer: Layer) -> Outputs:
    """0 keeps the input's dimension, -1 is what is left."""
    target = [int(size) for size in layer.params.targetShape]
    return _reshaped(tape, layer.x, target)


def _reshaped(tape: Tape, x: Tensor, target: Sequence[int]) -> Tensor:
    if sum(size == -1 for size in target) > 1 or any(size < -1 for size in target):
        raise Inconsistent(f"has the target shape {list(target)}")
    if any(size == 0 and place >= x.rank for place, size in enumerate(target)):
        raise Inconsistent(f"keeps a dimension that an input of shape {list(x.shape)} does not have")
    dims = [tape.size(x, place) if size == 0 else size for place, size in enumerate(target)]
    _check_count(x, dims)
    return tape.reshape(x, dims)


def _check_count(x: Tensor, dims: Sequence[int | Size]) -> None:
    if x.count is None or not all(isinstance(dim, int) for dim in dims):
        return
    product = 1
    for dim in dims:
        product *= dim if isinstance(dim, int) and dim != -1 else 1
    fits = product == x.count if -1 not in dims else product > 0 and x.count % product == 0
    if not fits:
        raise Inconsistent(f"turns shape {list(x.shape)} into {[int(str(dim)) for dim in dims]}")


@translates("reshapeLike")
def like(tape: Tape, layer: Layer) -> Outputs:
    x, reference = layer.require(2)[:2]
    dims = [tape.size(reference, axis) for axis in range(reference.rank)]
    _check_count(x, dims)
    return tape.reshape(x, dims)


@translates("reshapeDynamic")
def dynamic(tape: Tape, layer: Layer) -> Outputs:
    x, target = layer.require(2)[:2]
    return tape.shaped("Reshape", x, tape.integers(target), shape=open_shape(tape, target))


def open_shape(tape: Tape, target: Tensor) -> list[Dim]:
    """Dimensions of a result whose shape is held by `target`: only their number is known."""
    if target.rank != 1 or not isinstance(target.shape[0], int):
        raise NoCounterpart("takes a shape whose rank only the run would tell")
    return [tape.open_dim() for _ in range(target.shape[0])]


@translates("reshape")
def channelwise(tape: Tape, layer: Layer) -> Outputs:
    """To [C, H, W], which keeps the leading axes, or to [Seq, C, H, W], which keeps the batch."""
    target = [int(size) for size in layer.params.targetShape]
    x = layer.require_rank(3)
    last = layer.params.mode == _CHANNEL_LAST
    if len(target) not in (3, 4):
        raise Inconsistent(f"has a target shape of {len(target)} numbers; 3 or 4 belong there")
    if last:
        x = tape.transpose(x, _moved(x.rank, x.rank - 3, x.rank - 1))
        target = [*target[:-3], *target[-2:], target[-3]]
    if len(target) == 3:
        leading = [tape.size(x, axis) for axis in range(x.rank - 3)]
        done = tape.reshape(x, [*leading, *target])
    else:
        done = _resequenced(tape, x, target)
    return tape.transpose(done, _moved(done.rank, done.rank - 1, done.rank - 3)) if last else done


def _resequenced(tape: Tape, x: Tensor, target: Sequence[int]) -> Tensor:
    """Elements move between the sequence and the rest, so the batch steps out of the way."""
    if x.rank != 5:
        raise Inconsistent(f"sets a sequence length, which an input of shape {list(x.shape)} does not have")
    batch = tape.size(x, 1)
    first = tape.transpose(x, [1, 0, 2, 3, 4])
    return tape.transpose(tape.reshape(first, [batch, *target]), [1, 0, 2, 3, 4])


def _moved(rank: int, source: int, target: int) -> list[int]:
    """The order of axes after taking one out at `source` and putting it back at `target`."""
    order = [axis for axis in range(rank) if axis != source]
    order.insert(target, source)
    return order


@translates("flatten")
def flatten(tape: Tape, layer: Layer) -> Outputs:
    """(..., C, H, W) as (..., C * H * W, 1, 1)."""
    x = layer.require_rank(3)
    if layer.params.mode == _CHANNEL_LAST:
        x = tape.transpose(x, _moved(x.rank, x.rank - 3, x.rank - 1))
    leading = [tape.size(x, axis) for axis in range(x.rank - 3)]
    return tape.reshape(x, [*leading, -1, 1, 1])


@translates("flattenTo2D")
def matrix(tape: Tape, layer: Layer) -> Outputs:
    """Axis `rank` itself is allowed: everything before it, and 1."""
    axis = int(layer.params.axis)
    at = axis if axis == layer.x.rank else layer.axis(axis)
    return tape.add("Flatten", layer.x, axis=at)


@translates("permute")
def permute(tape: Tape, layer: Layer) -> Outputs:
    """An order of (Seq, C, H, W); the batch stays second."""
    order = [int(axis) for axis in layer.params.axis] or [0, 1, 2, 3]
    x = layer.require_rank(4)
    if sorted(order) != [0, 1, 2, 3]:
        raise Inconsistent(f"permutes the axes by {order}")
    if x.rank == 4:
        if order[0] != 0:
            raise Inconsistent(
                f"moves a sequence axis, which an input of shape {list(x.shape)} does not have"
            )
        return tape.transpose(x, order)
    place = [0, 2, 3, 4]
    first, *others = (place[axis] for axis in order)
    return tape.transpose(x, [first, 1, *others])


@translates("transpose")
def transpose(tape: Tape, layer: Layer) -> Outputs:
    order = [int(axis) for axis in layer.params.axes]
    if sorted(order) != list(range(layer.x.rank)):
        raise Inconsistent(f"permutes {layer.x.rank} axes by {order}")
    return tape.add("Transpose", layer.x, perm=order)


@translates("expandDims")
def expand(tape: Tape, layer: Layer) -> Outputs:
    axes = [int(axis) for axis in layer.params.axes]
    rank = layer.x.rank + len(axes)
    return tape.unsqueeze(layer.x, *sorted(layer.axis(axis, rank) for axis in axes))


@translates("squeeze")
def squeeze(tape: Tape, layer: Layer) -> Outputs:
    """What would become a scalar keeps one axis."""
    x = layer.x
    if layer.params.squeezeAll:
        axes = [axis for axis, dim in enumerate(x.shape) if dim == 1]
    else:
        axes = sorted({layer.axis(axis) for axis in layer.params.axes})
    if any(isinstance(x.shape[axis], int) and x.shape[axis] != 1 for axis in axes):
        raise Inconsistent(f"drops axes {axes} of an input of shape {list(x.shape)}")
    if len(axes) == x.rank:
        axes = axes[1:]
    return tape.squeeze(x, *axes) if axes else tape.add("Identity", x)


@translates("reorganizeData")
def blocks(tape: Tape, layer: Layer) -> Outputs:
    size = int(layer.params.blockSize)
    layer.require_rank(3)
    x = tape.fold(layer.x)
    match choice(layer.params, "mode"):
        case "SPACE_TO_DEPTH":
            done = tape.add("SpaceToDepth", x, blocksize=size)
        case "DEPTH_TO_SPACE":
            done = tape.add("DepthToSpace", x, blocksize=size, mode="DCR")
        case _:
            done = tape.add("DepthToSpace", x, blocksize=size, mode="CRD")
    return tape.unfold(done, layer.x)
