"""An ONNX file's outline: operators, weights, free axes by name, required runtime, and what it says."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from serving.formats.artifact import inspect_artifact
from serving.formats.loader import load
from serving.formats.outline import MAX_LAYERS, Layer, Outline, outline
from serving.formats.outline_onnx import required_runtime
from tests import models


def outlined(folder: Path) -> Outline:
    artifact = inspect_artifact(folder)
    return outline(artifact, load(artifact, threads=1))


def test_outline_tells_operators_weights_and_authorship_when_a_network_is_read(tmp_path: Path) -> None:
    """Index tables are no weights; a layer counts those that it reads itself."""
    told = {"model_author": "Ann", "names": "{0: 'zero', 1: 'one'}", "task": "classify"}
    found = outlined(models.onnx_net(tmp_path, properties=told))
    assert found.operators == {"Conv": 1, "Relu": 1, "MaxPool": 1, "Flatten": 1, "Gemm": 1}
    assert (found.layer_count, found.parameter_count) == (5, 690)
    assert found.layers[0] == Layer("stroke", "Conv", 40)
    assert found.layers[4] == Layer("head", "Gemm", 650)
    assert found.shapes == {"x": ("batch", 1, 8, 8), "y": ("batch", 10)}
    assert (found.opsets, found.versions) == ({"ai.onnx": 17}, {"ir": "9"})
    assert (found.producer, found.producer_version) == ("tiny-exporter", "1.4")
    assert found.runtimes == {"onnxruntime": ">=1.15"}
    assert (found.told.author, found.told.labels) == ("Ann", ("zero", "one"))
    assert found.told.properties == {"task": "classify"}
    assert found.notes == ()


def test_outline_counts_weights_when_they_lie_in_another_file(tmp_path: Path) -> None:
    """External data is measured by its declared shape and not read."""
    folder = models.onnx_net(tmp_path)
    proto = onnx.load(folder / "model.onnx")
    onnx.save(proto, folder / "model.onnx", save_as_external_data=True, location="weights", size_threshold=0)
    assert outlined(folder).parameter_count == 690


def test_outline_looks_into_branches_when_a_graph_nests(tmp_path: Path) -> None:
    """Both branches of an If count, with their weights; constants and identities are no layers."""
    branches = {}
    for name, value in (("then_branch", 2.0), ("else_branch", 3.0)):
        output = helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, None)
        weight = numpy_helper.from_array(np.full(3, value, np.float32), f"{name}_weight")
        node = helper.make_node("Mul", ["x", weight.name], [output.name])
        branches[name] = helper.make_graph([node], name, [], [output], [weight])
    yes = numpy_helper.from_array(np.array(True), "yes")
    nodes = [
        helper.make_node("If", ["yes"], ["chosen"], **branches),
        helper.make_node("Constant", [], ["bias"], value=numpy_helper.from_array(np.ones(3, np.float32))),
        helper.make_node("Add", ["chosen", "bias"], ["sum"]),
        helper.make_node("Identity", ["sum"], ["y"]),
    ]
    found = outlined(models.save_onnx(tmp_path, models.onnx_graph(nodes, weights=[yes])))
    assert found.operators == {"Mul": 2, "If": 1, "Add": 1}
    assert found.parameter_count == 9


def test_outline_lists_the_first_layers_when_there_are_many(tmp_path: Path) -> None:
    """All are counted."""
    names = ["x", *(f"t{n}" for n in range(MAX_LAYERS + 49)), "y"]
    nodes = [helper.make_node("Relu", [a], [b]) for a, b in pairwise(names)]
    found = outlined(models.save_onnx(tmp_path, models.onnx_graph(nodes)))
    assert (found.layer_count, len(found.layers)) == (MAX_LAYERS + 50, MAX_LAYERS)


def test_outline_takes_prose_and_labels_from_the_graph_when_properties_lack_them(tmp_path: Path) -> None:
    """The documentation string, and the labels that a classical classifier holds itself."""
    node = helper.make_node(
        "LinearClassifier",
        ["x"],
        ["label", "y"],
        domain="ai.onnx.ml",
        coefficients=[1.0] * 6,
        intercepts=[0.0, 0.0],
        classlabels_strings=["cat", "dog"],
    )
    model = models.onnx_graph([node], y=("batch", 2))
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    model.doc_string = "Tells cats from dogs."
    found = outlined(models.save_onnx(tmp_path, model))
    assert (found.told.description, found.told.labels) == ("Tells cats from dogs.", ("cat", "dog"))
    assert found.opsets == {"ai.onnx": 17, "ai.onnx.ml": 3}


@pytest.mark.parametrize(
    ("opset", "ml_opset", "ir", "wanted"),
    [
        pytest.param(7, 0, 3, ">=1.0", id="oldest"),
        pytest.param(17, 0, 8, ">=1.12", id="by opset"),
        pytest.param(18, 0, 8, ">=1.14", id="one opset later"),
        pytest.param(13, 0, 8, ">=1.9", id="by IR version"),
        pytest.param(13, 4, 7, ">=1.17", id="by the classical operators' opset"),
        pytest.param(22, 0, 10, ">=1.21", id="last tabulated"),
        pytest.param(23, 0, 10, ">1.22", id="opset beyond the table"),
        pytest.param(17, 0, 11, ">1.22", id="IR version beyond the table"),
    ],
)
def test_runtime_is_the_oldest_that_does_all_when_tabulated(
    opset: int, ml_opset: int, ir: int, wanted: str
) -> None:
    assert required_runtime({"ai.onnx": opset, "ai.onnx.ml": ml_opset}, ir) == wanted
