"""Logs the models that only benchmarks need; run as a program, like `tests.training`.

    python -m benchmarks.models http://127.0.0.1:5000 image mobilenet heavy:1 heavy:2x6

`image` and `mobilenet` take (n, 3, 224, 224) FP32: the one computes next to nothing and gives ten numbers,
the other is a picture network as people serve them and gives a thousand. `heavy:C` adds C to (n, 3) and
carries 34 MB of weights that it really multiplies, `heavy:CxL` as many layers of them.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.training import LoggedModel

IMAGE = (3, 224, 224)
_HEAVY_SIDE = 2980  # squared, of 4 bytes: 34 MB
LAYER_MB = _HEAVY_SIDE**2 * 4 / (1 << 20)
_OPSET = 17
# Channels after each pair of layers, and the stride between them.
_MOBILENET = (
    *((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)),
    *((512, 1),) * 5,
    *((1024, 2), (1024, 1)),
)


def image() -> onnx.ModelProto:
    """A mean over each colour and a small layer: cheap to compute, dear to carry."""
    weight = np.random.default_rng(7).standard_normal((3, 10)).astype(np.float32)
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["means"]),
        helper.make_node("Flatten", ["means"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weight"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "image",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", *IMAGE])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 10])],
        [numpy_helper.from_array(weight, "weight")],
    )
    return _model(graph)


def mobilenet() -> onnx.ModelProto:
    """MobileNet: 569 million products per picture, 4.2 million weights, nothing trained.

    Source: Howard et al., "MobileNets", 2017, table 1, with its batch norms folded into the convolutions as
    exporters do.
    """
    chance = np.random.default_rng(7)
    nodes: list[onnx.NodeProto] = []
    numbers = {"none": np.zeros((), np.float32), "six": np.full((), 6, np.float32)}

    def convolve(name: str, given: str, into: int, of: int, size: int, stride: int, groups: int = 1) -> str:
        per_group = of // groups
        spread = np.sqrt(2 / (per_group * size * size)).astype(np.float32)
        numbers[f"{name}.w"] = chance.standard_normal((into, per_group, size, size), np.float32) * spread
        numbers[f"{name}.b"] = chance.standard_normal(into, np.float32) * np.float32(0.1)
        pads = [size // 2] * 4
        taken = [given, f"{name}.w", f"{name}.b"]
        options = {"kernel_shape": [size, size], "strides": [stride] * 2, "pads": pads, "group": groups}
        nodes.append(helper.make_node("Conv", taken, [f"{name}.c"], **options))
        nodes.append(helper.make_node("Clip", [f"{name}.c", "none", "six"], [name]))
        return name

    at, channels = convolve("stem", "image", 32, 3, 3, 2), 32
    for number, (wide, stride) in enumerate(_MOBILENET):
        at = convolve(f"deep{number}", at, channels, channels, 3, stride, groups=channels)
        at, channels = convolve(f"wide{number}", at, wide, channels, 1, 1), wide
    numbers["scores.w"] = chance.standard_normal((channels, 1000), np.float32) / np.float32(channels)
    nodes += [
        helper.make_node("GlobalAveragePool", [at], ["means"]),
        helper.make_node("Flatten", ["means"], ["flat"]),
        helper.make_node("MatMul", ["flat", "scores.w"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "mobilenet",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", *IMAGE])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 1000])],
        [numpy_helper.from_array(array, name) for name, array in numbers.items()],
    )
    return _model(graph)


def heavy(constant: float, layers: int = 1) -> onnx.ModelProto:
    """x + constant, by way of large products of nothing.

    Every layer has numbers of its own: ONNX Runtime keeps equal weights once.
    """
    chance = np.random.default_rng([layers, int(constant)])
    shape = (_HEAVY_SIDE, _HEAVY_SIDE)
    weights = {
        "into": np.zeros((3, _HEAVY_SIDE), np.float32),
        **{f"large{number}": chance.random(shape, np.float32) - 0.5 for number in range(layers)},
        "out": np.zeros((_HEAVY_SIDE, 3), np.float32),
    }
    steps = ["x", *(f"through_{name}" for name in weights)]
    nodes = [
        helper.make_node("MatMul", [before, weight], [after])
        for before, weight, after in zip(steps, weights, steps[1:], strict=False)
    ]
    nodes += [
        helper.make_node("Add", ["x", steps[-1]], ["same"]),
        helper.make_node("Add", ["same", "constant"], ["y"]),
    ]
    numbers = weights | {"constant": np.asarray(constant, np.float32)}
    graph = helper.make_graph(
        nodes,
        "heavy",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(array, name) for name, array in numbers.items()],
    )
    return _model(graph)


def _model(graph: onnx.GraphProto) -> onnx.ModelProto:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def _log(recipe: str) -> LoggedModel:
    import mlflow.onnx

    kind, _, size = recipe.partition(":")
    constant, _, layers = size.partition("x")
    recipes: dict[str, Callable[[], Any]] = {
        "image": image,
        "mobilenet": mobilenet,
        "heavy": lambda: heavy(float(constant), int(layers or 1)),
    }
    with mlflow.start_run() as run:
        told = mlflow.onnx.log_model(recipes[kind](), name="model", pip_requirements=["onnxruntime"])
    return LoggedModel(recipe, told.model_uri, told.model_id, run.info.run_id)


def main() -> None:
    import mlflow

    mlflow.set_tracking_uri(sys.argv[1])
    for recipe in sys.argv[2:]:
        print("logged " + json.dumps(asdict(_log(recipe))), flush=True)


if __name__ == "__main__":
    main()
