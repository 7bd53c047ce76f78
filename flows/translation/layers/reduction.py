"""Reductions over axes, positions of extremes, and running sums.

Core ML's networks know no scalar: what would be one has shape (1,).
"""

from flows.translation.layers.activation import scaled
from flows.translation.layers.layer import Layer, NoCounterpart, Outputs, choice, translates
from flows.translation.layers.tape import Tape, Tensor

_REDUCED = {
    "reduceL1": "ReduceL1",
    "reduceL2": "ReduceL2",
    "reduceMax": "ReduceMax",
    "reduceMin": "ReduceMin",
    "reduceSum": "ReduceSum",
    "reduceProd": "ReduceProd",
    "reduceMean": "ReduceMean",
    "reduceLogSum": "ReduceLogSum",
    "reduceSumSquare": "ReduceSumSquare",
    "reduceLogSumExp": "ReduceLogSumExp",
}
_MODES = {
    "SUM": "ReduceSum",
    "AVG": "ReduceMean",
    "PROD": "ReduceProd",
    "SUMSQUARE": "ReduceSumSquare",
    "L1": "ReduceL1",
    "L2": "ReduceL2",
    "MAX": "ReduceMax",
    "MIN": "ReduceMin",
}
_AXES = {"CHW": (-3, -2, -1), "HW": (-2, -1), "C": (-3,), "H": (-2,), "W": (-1,)}


@translates(*_REDUCED)
def reduction(tape: Tape, layer: Layer) -> Outputs:
    params, x = layer.params, layer.x
    every = params.reduceAll or not params.axes
    axes = range(x.rank) if every else sorted({layer.axis(axis) for axis in params.axes})
    return _kept(tape, _REDUCED[layer.kind], x, list(axes), params.keepDims)


def _kept(tape: Tape, operator: str, x: Tensor, axes: list[int], keep: bool) -> Tensor:
    done = tape.add(operator, x, tape.ints(*axes), keepdims=int(keep))
    return done if done.rank else tape.reshape(done, [1])


@translates("reduce")
def channelwise(tape: Tape, layer: Layer) -> Outputs:
    """The layer of the first versions, over the last axes, which stay as 1."""
    params = layer.params
    mode = choice(params, "mode")
    axes = _AXES[choice(params, "axis")]
    x = layer.require_rank(-axes[0])
    if mode == "ARGMAX":
        if len(axes) > 1:
            raise NoCounterpart("finds the place of a maximum over several axes at once")
        return tape.floats(tape.add("ArgMax", x, axis=axes[0], keepdims=1))
    if mode == "LOGSUM":
        logs = tape.add("Log", scaled(tape, x, 1.0, params.epsilon or 1e-6))
        return tape.add("ReduceSum", logs, tape.ints(*axes), keepdims=1)
    return tape.add(_MODES[mode], x, tape.ints(*axes), keepdims=1)


@translates("argMax", "argMin")
def extreme(tape: Tape, layer: Layer) -> Outputs:
    operator = "ArgMax" if layer.kind == "argMax" else "ArgMin"
    keep = not layer.params.removeDim or layer.x.rank == 1
    axis = layer.axis(layer.params.axis)
    return tape.floats(tape.add(operator, layer.x, axis=axis, keepdims=int(keep)))


@translates("topK")
def top(tape: Tape, layer: Layer) -> Outputs:
    """Values and their places, best first."""
    params = layer.params
    x, axis = layer.x, layer.axis(layer.params.axis)
    if len(layer.inputs) > 1:
        count = tape.integers(tape.reshape(layer.inputs[1], [1]))
    else:
        count = tape.ints(int(params.K))
    values, places = tape.add_many(
        "TopK", x, count, outputs=2, axis=axis, largest=int(not params.useBottomK), sorted=1
    )
    return values, tape.floats(places)


@translates("argSort")
def order(tape: Tape, layer: Layer) -> Outputs:
    axis = layer.axis(layer.params.axis)
    largest = int(layer.params.descending)
    count = tape.extent(layer.x, axis)
    _, places = tape.add_many("TopK", layer.x, count, outputs=2, axis=axis, largest=largest, sorted=1)
    return tape.floats(Tensor(places.name, layer.x.shape, places.dtype))


@translates("cumSum")
def running_sum(tape: Tape, layer: Layer) -> Outputs:
    params = layer.params
    if len(layer.inputs) > 1:
        axis = tape.integers(tape.reshape(layer.inputs[1], [1]))
    else:
        axis = tape.ints(layer.axis(params.axis))
    exclusive, reverse = int(params.excludeFinalSum), int(params.reverse)
    return tape.add("CumSum", layer.x, axis, exclusive=exclusive, reverse=reverse)
