"""Activations: the `activation` layer's kinds, and the layers of later versions that are one."""

import math

from flows.translation.layers.layer import (
    Inconsistent,
    Layer,
    NoCounterpart,
    Outputs,
    choice,
    column,
    translates,
)
from flows.translation.layers.tape import Tape, Tensor
from flows.translation.layers.weights import flat_array

_PLAIN = {
    "ReLU": "Relu",
    "tanh": "Tanh",
    "sigmoid": "Sigmoid",
    "softsign": "Softsign",
    "softplus": "Softplus",
}
_SIGMOID_GELU = 1.702


@translates("activation")
def activation(tape: Tape, layer: Layer) -> Outputs:
    kind = layer.params.WhichOneof("NonlinearityType")
    x = layer.x
    if kind in _PLAIN:
        return tape.add(_PLAIN[kind], x)
    if kind is None:
        raise NoCounterpart("names no activation that is known here")
    chosen = getattr(layer.params, kind)
    match kind:
        case "linear":
            return scaled(tape, x, chosen.alpha, chosen.beta)
        case "leakyReLU":
            return tape.add("LeakyRelu", x, alpha=chosen.alpha)
        case "ELU":
            return tape.add("Elu", x, alpha=chosen.alpha)
        case "sigmoidHard":
            return tape.add("HardSigmoid", x, alpha=chosen.alpha, beta=chosen.beta)
        case "scaledTanh":
            return scaled(tape, tape.add("Tanh", scaled(tape, x, chosen.beta)), chosen.alpha)
        case "thresholdedReLU":
            kept = tape.add("GreaterOrEqual", x, tape.number(chosen.alpha))
            return tape.add("Where", kept, x, tape.number(0))
        case "PReLU":
            return tape.add("PRelu", x, _per_channel(tape, layer, "alpha"))
        case "parametricSoftplus":
            inner = tape.add("Mul", x, _per_channel(tape, layer, "beta"))
            return tape.add("Mul", tape.add("Softplus", inner), _per_channel(tape, layer, "alpha"))
    raise NoCounterpart(f"is of kind '{kind}', which is not known here")


def scaled(tape: Tape, x: Tensor, factor: float, shift: float = 0.0) -> Tensor:
    """factor * x + shift, in as few nodes as that takes."""
    product = x if factor == 1 else tape.add("Mul", x, tape.number(factor))
    if shift == 0:
        return tape.add("Identity", x) if product is x else product
    return tape.add("Add", product, tape.number(shift))


def _per_channel(tape: Tape, layer: Layer, field: str) -> Tensor:
    """One number for all channels, or one for each of axis -3."""
    kind = layer.params.WhichOneof("NonlinearityType")
    chosen = getattr(layer.params, kind)
    x = layer.require_rank(3)
    stored = flat_array(getattr(chosen, field))
    if stored.size != 1 and isinstance(x.shape[-3], int) and stored.size != x.shape[-3]:
        raise Inconsistent(f"field '{field}' holds {stored.size} numbers for {x.shape[-3]} channels")
    return tape.constant(column(stored), field)


@translates("clip")
def clip(tape: Tape, layer: Layer) -> Outputs:
    return tape.add("Clip", layer.x, tape.number(layer.params.minVal), tape.number(layer.params.maxVal))


@translates("clampedReLU")
def clamped_relu(tape: Tape, layer: Layer) -> Outputs:
    leaky = tape.add("LeakyRelu", layer.x, alpha=layer.params.alpha)
    return tape.add("Min", leaky, tape.number(layer.params.beta))


@translates("gelu")
def gelu(tape: Tape, layer: Layer) -> Outputs:
    mode = choice(layer.params, "mode")
    x = layer.x
    if mode == "SIGMOID_APPROXIMATION":
        return tape.add("Mul", x, tape.add("Sigmoid", scaled(tape, x, _SIGMOID_GELU)))
    return tape.add("Gelu", x, approximate="tanh" if mode == "TANH_APPROXIMATION" else "none")


@translates("softmax", "softmaxND")
def softmax(tape: Tape, layer: Layer) -> Outputs:
    """The older layer always normalises over the channels."""
    if layer.kind == "softmax":
        layer.require_rank(3)
        return tape.add("Softmax", layer.x, axis=-3)
    return tape.add("Softmax", layer.x, axis=layer.axis(layer.params.axis))


@translates("unary")
def unary(tape: Tape, layer: Layer) -> Outputs:
    """f(scale * x + shift). Source: UnaryFunctionLayerParams, NeuralNetwork.proto."""
    params = layer.params
    x = scaled(tape, layer.x, params.scale or 1.0, params.shift)
    epsilon = params.epsilon or 1e-6
    match choice(params, "type"):
        case "SQRT":
            return tape.add("Sqrt", x)
        case "RSQRT":
            return tape.add("Reciprocal", tape.add("Sqrt", scaled(tape, x, 1.0, epsilon)))
        case "INVERSE":
            return tape.add("Reciprocal", scaled(tape, x, 1.0, epsilon))
        case "POWER":
            return tape.add("Pow", x, tape.number(params.alpha))
        case "EXP":
            return tape.add("Exp", x)
        case "LOG":
            return tape.add("Log", x)
        case "ABS":
            return tape.add("Abs", x)
        case "THRESHOLD":
            return tape.add("Max", x, tape.number(params.alpha))
    raise NoCounterpart(f"is of type {params.type}, which is not known here")


@translates("exp2")
def exp2(tape: Tape, layer: Layer) -> Outputs:
    return tape.add("Exp", scaled(tape, layer.x, math.log(2)))
