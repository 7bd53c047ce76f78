"""Tiny real models, written to disk as ONNX and TorchScript files; for every test that needs a version.

Each factory fills a folder and returns it. Tensors are named `x` and `y` in ONNX; TorchScript
takes `x` and answers `OUTPUT__0`.
"""

import itertools
import json
import linecache
import textwrap
import typing
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Dims = Sequence[int | str]


def onnx_graph(
    nodes: Sequence[onnx.NodeProto],
    *,
    x: Dims = ("batch", 3),
    y: Dims = ("batch", 3),
    weights: Sequence[onnx.TensorProto] = (),
    elem_type: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    """A graph from `x` to `y` of one element type."""
    inputs = [helper.make_tensor_value_info("x", elem_type, x)]
    outputs = [helper.make_tensor_value_info("y", elem_type, y)]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def scalar(name: str, value: float) -> onnx.TensorProto:
    return helper.make_tensor(name, TensorProto.FLOAT, [1], [value])


def save_onnx(folder: Path, model: onnx.ModelProto) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return folder


def onnx_adder(folder: Path, constant: float = 1.0, width: int = 3) -> Path:
    """`y = x + constant`, FP32 (batch, width)."""
    node = helper.make_node("Add", ["x", "constant"], ["y"])
    dims = ("batch", width)
    return save_onnx(folder, onnx_graph([node], x=dims, y=dims, weights=[scalar("constant", constant)]))


def onnx_echo(folder: Path, elem_type: int = TensorProto.FLOAT, dims: Dims = ("batch", 3)) -> Path:
    """`y = x` in any element type."""
    node = helper.make_node("Identity", ["x"], ["y"])
    return save_onnx(folder, onnx_graph([node], x=dims, y=dims, elem_type=elem_type))


def onnx_net(folder: Path, channels: int = 4, properties: Mapping[str, str] | None = None) -> Path:
    """A small convolutional classifier, FP32 (batch, 1, 8, 8) to (batch, 10), with metadata properties."""
    chance = np.random.default_rng(7)
    sizes = {"kernel": (channels, 1, 3, 3), "kernel_bias": (channels,), "head": (channels * 16, 10)}
    weights = [
        numpy_helper.from_array(chance.normal(size=size).astype(np.float32), name)
        for name, size in (*sizes.items(), ("head_bias", (10,)))
    ]
    nodes = [
        helper.make_node("Conv", ["x", "kernel", "kernel_bias"], ["strokes"], "stroke", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["strokes"], ["active"]),
        helper.make_node("MaxPool", ["active"], ["pooled"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "head", "head_bias"], ["y"], "head"),
    ]
    model = onnx_graph(nodes, x=("batch", 1, 8, 8), y=("batch", 10), weights=weights)
    model.producer_name, model.producer_version = "tiny-exporter", "1.4"
    helper.set_model_props(model, dict(properties or {}))
    return save_onnx(folder, model)


def onnx_wrong_shape(folder: Path) -> Path:
    """Declares `y` (batch, 10) and returns (batch, 9); the checker accepts it."""
    bounds = [helper.make_tensor(name, TensorProto.INT64, [1], [value]) for name, value in _SLICE]
    node = helper.make_node("Slice", ["x", "start", "end", "axis"], ["y"])
    model = onnx_graph([node], x=("batch", 10), y=("batch", 10), weights=bounds)
    onnx.checker.check_model(model)
    return save_onnx(folder, model)


_SLICE = (("start", 0), ("end", 9), ("axis", 1))


def onnx_raises_on_negative(folder: Path) -> Path:
    """`y = x`, but any negative element makes a lookup run out of bounds; zeros pass."""
    nodes = [
        helper.make_node("ReduceMin", ["x"], ["lowest"], keepdims=0),
        helper.make_node("Less", ["lowest", "zero"], ["negative"]),
        helper.make_node("Where", ["negative", "out_of_bounds", "first"], ["index"]),
        helper.make_node("Gather", ["zero", "index"], ["looked_up"]),
        helper.make_node("Add", ["x", "looked_up"], ["y"]),
    ]
    weights = [
        scalar("zero", 0.0),
        helper.make_tensor("out_of_bounds", TensorProto.INT64, [1], [7]),
        helper.make_tensor("first", TensorProto.INT64, [1], [0]),
    ]
    return save_onnx(folder, onnx_graph(nodes, weights=weights))


def onnx_nan(folder: Path) -> Path:
    """`y = sqrt(x - 1)`: NaN wherever `x` is below 1, zeros included."""
    nodes = [helper.make_node("Sub", ["x", "one"], ["less"]), helper.make_node("Sqrt", ["less"], ["y"])]
    return save_onnx(folder, onnx_graph(nodes, weights=[scalar("one", 1.0)]))


def save_torch_script(folder: Path, forward: str) -> Path:
    """Script a module with the given source of `forward`, and save it as `model.pt`."""
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    scope: dict[str, Any] = {"torch": torch, "Tensor": torch.Tensor} | vars(typing)
    source = "class Tiny(torch.nn.Module):\n" + textwrap.indent(forward, "    ") + "\n"
    name = f"<tiny module {next(_serial)}>"
    # The scripting compiler asks for the source of what it compiles; this is where Python looks.
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    exec(compile(source, name, "exec"), scope)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(scope["Tiny"]()).save(str(folder / "model.pt"))
    return folder


_serial = itertools.count()


def torch_adder(folder: Path, constant: float = 1.0) -> Path:
    """`OUTPUT__0 = x + constant`, any shape."""
    return save_torch_script(folder, f"def forward(self, x: Tensor) -> Tensor:\n    return x + {constant}")


def torch_raises_on_negative(folder: Path) -> Path:
    lines = ("if bool((x < 0).any()):", "    raise RuntimeError('negative input')", "return x + 0")
    source = "def forward(self, x: Tensor) -> Tensor:\n" + "\n".join(f"    {line}" for line in lines)
    return save_torch_script(folder, source)


def torch_slow(folder: Path, steps: int = 40_000) -> Path:
    """`OUTPUT__0 = x`, after `steps` of about 1.5 µs each."""
    lines = ("y = x", f"for _ in range({steps}):", "    y = y + 0.0", "return y")
    source = "def forward(self, x: Tensor) -> Tensor:\n" + "\n".join(f"    {line}" for line in lines)
    return save_torch_script(folder, source)


def torch_hangs_on_negative(folder: Path, constant: float = 1.0) -> Path:
    """`OUTPUT__0 = x + constant`, but with any negative element it never returns; zeros pass."""
    lines = ("y = x", "while bool((y < 0).any()):", "    y = y + 0.0", f"return y + {constant}")
    source = "def forward(self, x: Tensor) -> Tensor:\n" + "\n".join(f"    {line}" for line in lines)
    return save_torch_script(folder, source)


def torch_nan(folder: Path) -> Path:
    return save_torch_script(folder, "def forward(self, x: Tensor) -> Tensor:\n    return (x - 1).sqrt()")


def describe(
    folder: Path,
    *,
    flavor: str = "pytorch",
    inputs: Sequence[tuple[str, str, Sequence[int]]] | None = None,
    outputs: Sequence[tuple[str, str, Sequence[int]]] | None = None,
    example: object = None,
) -> Path:
    """Write an `MLmodel` as MLflow does; tensors are (name or '', dtype, shape)."""
    data = {
        "onnx": {"data": "model.onnx"},
        "pytorch": {"model_data": "model.pt"},
        "pt2": {"data": "model.pt2"},
        "coreml": {"data": "model.mlmodel", "translation": "translation.onnx"},
    }
    content: dict[str, Any] = {"flavors": {flavor: data.get(flavor, {}), "python_function": {}}}
    if inputs is not None:
        content["signature"] = {"inputs": _signature(inputs), "outputs": _signature(outputs or ())}
    if example is not None:
        (folder / "input_example.json").write_text(json.dumps(example))
        content["saved_input_example_info"] = {"artifact_path": "input_example.json", "type": "ndarray"}
    (folder / "MLmodel").write_text(json.dumps(content))  # JSON is YAML
    return folder


def _signature(tensors: Sequence[tuple[str, str, Sequence[int]]]) -> str:
    entries: list[dict[str, Any]] = []
    for name, dtype, shape in tensors:
        entry: dict[str, Any] = {"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": list(shape)}}
        entries.append(entry | ({"name": name} if name else {}))
    return json.dumps(entries)
