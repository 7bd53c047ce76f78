"""Activations. All take floats and keep the shape."""

from collections.abc import Callable
from functools import partial

import numpy as np

from flows.translation.call import Call
from serving.core.datatypes import Array


def _plain(operator: str, call: Call) -> str:
    return call.add(operator, call.tensor("x"))


def _relu6(call: Call) -> str:
    return call.add("Clip", call.tensor("x"), call.graph.number(0.0), call.graph.number(6.0))


def _leaky_relu(call: Call) -> str:
    return call.add("LeakyRelu", call.tensor("x"), alpha=call.number("alpha"))


def _elu(call: Call) -> str:
    return call.add("Elu", call.tensor("x"), alpha=call.number("alpha"))


def _prelu(call: Call) -> str:
    return call.add("PRelu", call.tensor("x"), _per_channel(call, "alpha", call.rank("x") - 1))


def _softplus_parametric(call: Call) -> str:
    rank = call.rank("x")
    inner = call.add("Mul", call.tensor("x"), _per_channel(call, "beta", rank - 1))
    return call.add("Mul", call.add("Softplus", inner), _per_channel(call, "alpha", rank - 1))


def _per_channel(call: Call, name: str, dimensions: int) -> str:
    """A vector of one number per channel, shaped (C, 1, ...) so that it broadcasts from the second axis."""
    values: Array = call.array(name).astype(np.float32)
    return call.graph.constant(values.reshape(-1, *[1] * (dimensions - 1)), name)


def _gelu(call: Call) -> str:
    source, mode = call.tensor("x"), call.text("mode", "EXACT")
    if mode == "SIGMOID_APPROXIMATION":
        gate = call.add("Sigmoid", call.add("Mul", source, call.graph.number(1.702)))
        return call.add("Mul", source, gate)
    return call.add("Gelu", source, approximate="tanh" if mode == "TANH_APPROXIMATION" else "none")


def _silu(call: Call) -> str:
    source = call.tensor("x")
    return call.add("Mul", source, call.add("Sigmoid", source))


def _sigmoid_hard(call: Call) -> str:
    return call.add("HardSigmoid", call.tensor("x"), alpha=call.number("alpha"), beta=call.number("beta"))


def _scaled_tanh(call: Call) -> str:
    inner = call.add("Mul", call.tensor("x"), call.graph.number(call.number("beta")))
    return call.add("Mul", call.add("Tanh", inner), call.graph.number(call.number("alpha")))


def _linear_activation(call: Call) -> str:
    scaled = call.add("Mul", call.tensor("x"), call.graph.number(call.number("alpha")))
    return call.add("Add", scaled, call.graph.number(call.number("beta")))


def _clamped_relu(call: Call) -> str:
    leaky = call.add("LeakyRelu", call.tensor("x"), alpha=call.number("alpha"))
    return call.add("Min", leaky, call.graph.number(call.number("beta")))


def _thresholded_relu(call: Call) -> str:
    """x where x >= alpha, else 0; ONNX's operator of that name leaves out x == alpha."""
    source = call.tensor("x")
    kept = call.add("GreaterOrEqual", source, call.graph.number(call.number("alpha")))
    return call.add("Where", kept, source, call.graph.number(0.0))


def _softmax(call: Call) -> str:
    return call.add("Softmax", call.tensor("x"), axis=call.integer("axis", -1))


_PLAIN = {
    "relu": "Relu",
    "sigmoid": "Sigmoid",
    "softplus": "Softplus",
    "softsign": "Softsign",
    "tanh": "Tanh",
}

TRANSLATORS: dict[str, Callable[[Call], str]] = {
    **{name: partial(_plain, operator) for name, operator in _PLAIN.items()},
    "clamped_relu": _clamped_relu,
    "elu": _elu,
    "gelu": _gelu,
    "leaky_relu": _leaky_relu,
    "linear_activation": _linear_activation,
    "prelu": _prelu,
    "relu6": _relu6,
    "scaled_tanh": _scaled_tanh,
    "sigmoid_hard": _sigmoid_hard,
    "silu": _silu,
    "softmax": _softmax,
    "softplus_parametric": _softplus_parametric,
    "thresholded_relu": _thresholded_relu,
}
