"""The server the suite runs against: one of our own, or any other by its URL.

pytest tests/conformance --oip-url http://127.0.0.1:9000 --oip-model m --oip-input x:FP32:-1,64
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from onnx import TensorProto, helper

from tests.conformance.target import Target, Tensor
from tests.mlflow_double import MlflowDouble
from tests.models import onnx_adder, save_onnx
from tests.serving_process import ServingProcess


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("conformance")
    group.addoption("--oip-url", default="", help="run the conformance suite against this server")
    group.addoption("--oip-model", default="", help="the model to ask there")
    group.addoption("--oip-key", default="", help="sent there as X-API-Key")
    group.addoption("--oip-input", action="append", default=[], help="NAME:DATATYPE:SHAPE of an input there")


@pytest.fixture(scope="module")
def targets(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Target]]:
    """The models to ask: the one given, or ours, of which each case takes the first that can show it."""
    # The options exist only where this folder was named on the command line.
    options = request.config.option
    if url := getattr(options, "oip_url", ""):
        inputs = [Tensor.parse(text) for text in options.oip_input]
        with Target(url.rstrip("/"), options.oip_model, options.oip_key, inputs) as target:
            yield [target]
        return
    yield from own_server(tmp_path_factory.mktemp("conformance"))


def own_server(folder: Path) -> Iterator[list[Target]]:
    """A serving process with two versions of a model that adds, and one that takes numbers and text."""
    with MlflowDouble() as double:
        double.add("adder", *[onnx_adder(folder / "models" / str(number), number) for number in (1, 2)])
        double.point("adder", "2")
        double.point("adder", "1", "previous")
        double.add("pair", onnx_pair(folder / "models" / "pair"))
        double.point("pair", "1")
        serving = ServingProcess(folder / "home", double.url, "*")
        try:
            serving.start_ready()
            serving.wait_for("adder", "2")
            serving.wait_for("adder", "1", "previous")
            key = (folder / "home" / "admin.key").read_text()
            with Target(serving.url, "adder", key) as adder, Target(serving.url, "pair", key) as pair:
                yield [adder, pair]
        finally:
            serving.kill()


def onnx_pair(folder: Path) -> Path:
    """`twice = number + number` and `same = text`, FP32 (batch, 3) and BYTES (batch)."""
    tensors = {"number": (TensorProto.FLOAT, ["batch", 3]), "text": (TensorProto.STRING, ["batch"])}
    outputs = {"twice": tensors["number"], "same": tensors["text"]}
    nodes = [
        helper.make_node("Add", ["number", "number"], ["twice"]),
        helper.make_node("Identity", ["text"], ["same"]),
    ]
    inputs, given = (
        [helper.make_tensor_value_info(name, *described) for name, described in side.items()]
        for side in (tensors, outputs)
    )
    graph = helper.make_graph(nodes, "pair", inputs, given)
    opsets = [helper.make_opsetid("", 17)]
    return save_onnx(folder, helper.make_model(graph, opset_imports=opsets, ir_version=9))
