"""Normalisations: batch, instance, layer, L2 and local response."""

from collections.abc import Callable

import numpy as np

from flows.translation.call import Call


def _channels(call: Call, name: str, default: float) -> str:
    """A vector of one number per channel, filled with the default where it was left out."""
    if call.has(name):
        return call.tensor(name)
    count = call.shape("x")[1]
    if count is None:
        raise call.refused(f"has no '{name}' and a number of channels only known at run time")
    return call.graph.constant(np.full(count, default, np.float32), name)


def _batch_norm(call: Call) -> str:
    return call.add(
        "BatchNormalization",
        call.tensor("x"),
        _channels(call, "gamma", 1.0),
        _channels(call, "beta", 0.0),
        call.tensor("mean"),
        call.tensor("variance"),
        epsilon=call.number("epsilon", 1e-5),
    )


def _instance_norm(call: Call) -> str:
    return call.add(
        "InstanceNormalization",
        call.tensor("x"),
        _channels(call, "gamma", 1.0),
        _channels(call, "beta", 0.0),
        epsilon=call.number("epsilon", 1e-5),
    )


def _layer_norm(call: Call) -> str:
    rank = call.rank("x")
    axes = sorted(axis % rank for axis in call.integers("axes") or range(rank))
    trailing = axes == list(range(rank - len(axes), rank))
    return _trailing_norm(call, axes[0]) if trailing and call.has("gamma") else _any_norm(call, axes)


def _trailing_norm(call: Call, axis: int) -> str:
    scale = [call.tensor("gamma"), *([call.tensor("beta")] if call.has("beta") else [])]
    epsilon = call.number("epsilon", 1e-5)
    return call.add("LayerNormalization", call.tensor("x"), *scale, axis=axis, epsilon=epsilon)


def _any_norm(call: Call, axes: list[int]) -> str:
    """Over axes anywhere, spelt out."""
    source, over = call.tensor("x"), call.graph.ints(*axes)
    centred = call.add("Sub", source, call.add("ReduceMean", source, over, keepdims=1))
    variance = call.add("ReduceMean", call.add("Mul", centred, centred), over, keepdims=1)
    shifted = call.add("Add", variance, call.graph.number(call.number("epsilon", 1e-5)))
    result = call.add("Div", centred, call.add("Sqrt", shifted))
    for operator, name in (("Mul", "gamma"), ("Add", "beta")):
        if call.has(name):
            values = call.array(name).astype(np.float32)
            shape = [1] * call.rank("x")
            for axis, size in zip(axes, values.shape, strict=True):
                shape[axis] = size
            result = call.add(operator, result, call.graph.constant(values.reshape(shape), name))
    return result


def _l2_norm(call: Call) -> str:
    """Over the last three axes together."""
    source = call.tensor("x")
    total = call.add("ReduceSumSquare", source, call.graph.ints(-3, -2, -1), keepdims=1)
    shifted = call.add("Add", total, call.graph.number(call.number("epsilon", 1e-6)))
    return call.add("Div", source, call.add("Sqrt", shifted))


def _local_response_norm(call: Call) -> str:
    """Spelt out as an average over neighbouring channels: ONNX Runtime's own knows odd sizes only."""
    source, size = call.tensor("x"), call.integer("size")
    rank = call.rank("x") - 1
    square = call.add("Unsqueeze", call.add("Mul", source, source), call.graph.ints(1))
    pads = [size // 2, *[0] * (rank - 1), (size - 1) // 2, *[0] * (rank - 1)]
    kernel = [size, *[1] * (rank - 1)]
    mean = call.add("AveragePool", square, kernel_shape=kernel, pads=pads, count_include_pad=1)
    scaled = call.add(
        "Mul",
        call.add("Squeeze", mean, call.graph.ints(1)),
        call.graph.number(call.number("alpha", 1e-4)),
    )
    base = call.add("Add", scaled, call.graph.number(call.number("k", 1.0)))
    return call.add("Div", source, call.add("Pow", base, call.graph.number(call.number("beta", 0.75))))


TRANSLATORS: dict[str, Callable[[Call], str]] = {
    "batch_norm": _batch_norm,
    "instance_norm": _instance_norm,
    "l2_norm": _l2_norm,
    "layer_norm": _layer_norm,
    "local_response_norm": _local_response_norm,
}
