"""Normalisation: batch, instance, layer, mean and variance, L2, and local response."""

import numpy as np

from flows.translation.layers.activation import scaled
from flows.translation.layers.layer import Inconsistent, Layer, Outputs, column, translates
from flows.translation.layers.tape import Tape, Tensor

_BATCH_EPSILON = 1e-5
_EPSILON = 1e-6


@translates("batchnorm")
def batch(tape: Tape, layer: Layer) -> Outputs:
    """Over axis -3. `computeMeanVar` ignores the stored mean and variance."""
    params = layer.params
    layer.require_rank(3)
    x = tape.fold(layer.x)
    if isinstance(x.shape[1], int) and x.shape[1] != params.channels:
        raise Inconsistent(f"takes {params.channels} channels, and its input has {x.shape[1]}")
    gamma, beta = layer.weights("gamma", params.channels), layer.weights("beta", params.channels)
    epsilon = params.epsilon or _BATCH_EPSILON
    if not params.computeMeanVar:
        stored = [gamma, beta, layer.weights("mean", params.channels)]
        stored.append(layer.weights("variance", params.channels))
        constants = [tape.constant(one.astype(np.float32), "batchnorm") for one in stored]
        return tape.unfold(tape.add("BatchNormalization", x, *constants, epsilon=epsilon), layer.x)
    axes = (2, 3) if params.instanceNormalization else (0, 2, 3)
    centred = _centred(tape, x, axes)
    normal = tape.add("Div", centred, _deviation(tape, centred, axes, epsilon))
    product = tape.add("Mul", normal, tape.constant(column(gamma), "gamma"))
    return tape.unfold(tape.add("Add", product, tape.constant(column(beta), "beta")), layer.x)


def _centred(tape: Tape, x: Tensor, axes: tuple[int, ...]) -> Tensor:
    return tape.add("Sub", x, tape.add("ReduceMean", x, tape.ints(*axes), keepdims=1))


def _deviation(tape: Tape, centred: Tensor, axes: tuple[int, ...], epsilon: float) -> Tensor:
    squares = tape.add("Mul", centred, centred)
    variance = tape.add("ReduceMean", squares, tape.ints(*axes), keepdims=1)
    return tape.add("Sqrt", scaled(tape, variance, 1.0, epsilon))


@translates("mvn")
def mean_variance(tape: Tape, layer: Layer) -> Outputs:
    layer.require_rank(3)
    axes = (-3, -2, -1) if layer.params.acrossChannels else (-2, -1)
    centred = _centred(tape, layer.x, axes)
    if not layer.params.normalizeVariance:
        return centred
    epsilon = layer.params.epsilon or _EPSILON
    return tape.add("Div", centred, _deviation(tape, centred, axes, epsilon))


@translates("l2normalize")
def length(tape: Tape, layer: Layer) -> Outputs:
    """Over the last three axes together."""
    x = layer.require_rank(3)
    squares = tape.add("ReduceSumSquare", x, tape.ints(-3, -2, -1), keepdims=1)
    epsilon = layer.params.epsilon or _EPSILON
    return tape.add("Div", x, tape.add("Sqrt", scaled(tape, squares, 1.0, epsilon)))


@translates("lrn")
def local_response(tape: Tape, layer: Layer) -> Outputs:
    params = layer.params
    layer.require_rank(3)
    normal = tape.add(
        "LRN",
        tape.fold(layer.x),
        alpha=params.alpha,
        beta=params.beta,
        bias=params.k or 1.0,
        size=int(params.localSize),
    )
    return tape.unfold(normal, layer.x)


@translates("layerNormalization")
def over_last_axes(tape: Tape, layer: Layer) -> Outputs:
    params = layer.params
    shape = tuple(int(size) for size in params.normalizedShape)
    x = layer.require_rank(max(1, len(shape)))
    if not shape:
        raise Inconsistent("names no axes to normalise over")
    gamma = tape.constant(layer.weights("gamma", *shape), "gamma")
    beta = tape.constant(layer.weights("beta", *shape), "beta")
    return tape.add("LayerNormalization", x, gamma, beta, axis=-len(shape), epsilon=params.eps)
