"""Reading and writing at computed places: gathers and scatters."""

from flows.translation.layers.layer import Inconsistent, Layer, Outputs, choice, translates
from flows.translation.layers.tape import Tape, Tensor

# Subtracting and dividing are adding and multiplying by the inverse.
_MODES = {
    "SCATTER_UPDATE": ("none", None),
    "SCATTER_ADD": ("add", None),
    "SCATTER_SUB": ("add", "Neg"),
    "SCATTER_MUL": ("mul", None),
    "SCATTER_DIV": ("mul", "Reciprocal"),
    "SCATTER_MAX": ("max", None),
    "SCATTER_MIN": ("min", None),
}


@translates("gather")
def gather(tape: Tape, layer: Layer) -> Outputs:
    x, places = layer.require(2)[:2]
    return tape.add("Gather", x, tape.integers(places), axis=layer.axis(layer.params.axis))


@translates("gatherAlongAxis")
def gather_along(tape: Tape, layer: Layer) -> Outputs:
    x, places = layer.require(2)[:2]
    if x.rank != places.rank:
        raise Inconsistent(f"takes places of shape {list(places.shape)} in an input of shape {list(x.shape)}")
    return tape.add("GatherElements", x, tape.integers(places), axis=layer.axis(layer.params.axis))


@translates("gatherND")
def gather_points(tape: Tape, layer: Layer) -> Outputs:
    """Where nothing but points is left of the shape, it has at least one axis."""
    x, places = layer.require(2)[:2]
    return tape.add("GatherND", x, tape.integers(places))


@translates("scatter")
def scatter(tape: Tape, layer: Layer) -> Outputs:
    """`indices` of any rank stand in the updates where the axis stands in the container."""
    container, places, updates = layer.require(3)[:3]
    axis = layer.axis(layer.params.axis)
    reduction, given = _accumulated(tape, layer, updates)
    flat = _merged(tape, given, axis, places.rank) if places.rank > 1 else given
    line = tape.reshape(tape.integers(places), [-1])
    shape = [1] * container.rank
    shape[axis] = -1
    spread = tape.reshape(line, shape)
    wide = tape.add("Expand", spread, tape.add("Shape", flat))
    wide = Tensor(wide.name, flat.shape, wide.dtype)
    done = tape.add("ScatterElements", container, wide, flat, axis=axis, reduction=reduction)
    return Tensor(done.name, container.shape, done.dtype)


def _merged(tape: Tape, updates: Tensor, axis: int, count: int) -> Tensor:
    """`count` axes from `axis` on as one."""
    before = [tape.size(updates, at) for at in range(axis)]
    after = [tape.size(updates, at) for at in range(axis + count, updates.rank)]
    return tape.reshape(updates, [*before, -1, *after])


def _accumulated(tape: Tape, layer: Layer, updates: Tensor) -> tuple[str, Tensor]:
    """ONNX's reduction and what it takes."""
    mode = choice(layer.params, "mode")
    reduction, inverse = _MODES[mode]
    return reduction, updates if inverse is None else tape.add(inverse, updates)


@translates("scatterAlongAxis")
def scatter_along(tape: Tape, layer: Layer) -> Outputs:
    container, places, updates = layer.require(3)[:3]
    reduction, given = _accumulated(tape, layer, updates)
    axis = layer.axis(layer.params.axis)
    return tape.add(
        "ScatterElements", container, tape.integers(places), given, axis=axis, reduction=reduction
    )


@translates("scatterND")
def scatter_points(tape: Tape, layer: Layer) -> Outputs:
    container, places, updates = layer.require(3)[:3]
    reduction, given = _accumulated(tape, layer, updates)
    return tape.add("ScatterND", container, tape.integers(places), given, reduction=reduction)
