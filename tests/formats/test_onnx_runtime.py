"""ONNX: specs are what the file promises, weights stay in the folder, unservable graphs are named."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from serving.core.datatypes import DTYPES
from serving.core.errors import ArtifactRefused
from serving.core.model import TensorSpec
from serving.formats.artifact import inspect_artifact
from serving.formats.loader import LoadedModel, load
from serving.formats.onnx_data import check_external_data
from tests import models


def loaded(folder: Path) -> LoadedModel:
    return load(inspect_artifact(folder), threads=1)


def test_onnx_declares_the_promise_when_the_graph_returns_something_else(tmp_path: Path) -> None:
    """The declared shape is reported, not the one the runtime would infer."""
    model = loaded(models.onnx_wrong_shape(tmp_path))
    assert model.outputs == (TensorSpec("y", "FP32", (-1, 10)),)
    assert model.predict({"x": np.zeros((2, 10), np.float32)})["y"].shape == (2, 9)


def test_onnx_is_not_narrowed_when_the_signature_fixes_inner_dimensions(tmp_path: Path) -> None:
    """MLflow's signature records one example's lengths; the file knows better."""
    folder = models.onnx_echo(tmp_path, dims=("batch", 3, "height", "width"))
    tensors = [("x", "float32", [-1, 3, 8, 8])]
    model = loaded(models.describe(folder, flavor="onnx", inputs=tensors, outputs=tensors))
    assert model.inputs == (TensorSpec("x", "FP32", (-1, 3, -1, -1)),)
    assert model.predict({"x": np.zeros((1, 3, 5, 6), np.float32)})["y"].shape == (1, 3, 5, 6)


def test_onnx_leaves_weights_out_when_they_are_listed_as_inputs(tmp_path: Path) -> None:
    """Old exporters repeat every initializer among the inputs."""
    constant = models.scalar("constant", 2.0)
    proto = models.onnx_graph([helper.make_node("Add", ["x", "constant"], ["y"])], weights=[constant])
    proto.graph.input.append(helper.make_tensor_value_info("constant", TensorProto.FLOAT, [1]))
    model = loaded(models.save_onnx(tmp_path, proto))
    assert [spec.name for spec in model.inputs] == ["x"]
    assert model.predict({"x": np.zeros((1, 3), np.float32)})["y"].tolist() == [[2, 2, 2]]


def test_onnx_reports_unknown_rank_when_an_output_has_no_shape(tmp_path: Path) -> None:
    """No shape is not the same as shape []."""
    proto = models.onnx_graph([helper.make_node("Identity", ["x"], ["y"])])
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    assert loaded(models.save_onnx(tmp_path, proto)).outputs == (TensorSpec("y", "FP32", None),)


@pytest.mark.parametrize("datatype", sorted(set(DTYPES) - {"BF16"}))
def test_onnx_echoes_when_asked_in_any_datatype(datatype: str, tmp_path: Path) -> None:
    """Every datatype the runtime knows goes through unchanged."""
    elem_type = (
        TensorProto.STRING if datatype == "BYTES" else helper.np_dtype_to_tensor_dtype(DTYPES[datatype])
    )
    model = loaded(models.onnx_echo(tmp_path, elem_type))
    assert model.inputs[0].datatype == model.outputs[0].datatype == datatype
    x = np.array([["a", "", "ü"]] if datatype == "BYTES" else [[1, 0, 1]]).astype(DTYPES[datatype])
    np.testing.assert_array_equal(model.predict({"x": x})["y"], x)


def test_onnx_is_refused_when_an_input_is_bfloat16(tmp_path: Path) -> None:
    """The runtime takes no arrays of it; better known before the first request."""
    with pytest.raises(ArtifactRefused, match=r"element type BFLOAT16.*cast it to FP32"):
        loaded(models.onnx_echo(tmp_path, TensorProto.BFLOAT16))


def test_onnx_is_refused_when_an_output_is_no_tensor(tmp_path: Path) -> None:
    """As scikit-learn's converter writes class probabilities by default."""
    proto = models.onnx_graph([helper.make_node("SequenceConstruct", ["x"], ["y"])])
    proto.graph.output[0].CopyFrom(
        helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, ["batch", 3])
    )
    with pytest.raises(ArtifactRefused, match=r"output 'y' is a sequence.*zipmap"):
        loaded(models.save_onnx(tmp_path, proto))


@pytest.mark.parametrize("operator", ["NoSuchOperator", "Conv"])
def test_onnx_is_refused_when_the_runtime_cannot_run_it(operator: str, tmp_path: Path) -> None:
    """The runtime's reason is passed on in one line."""
    proto = models.onnx_graph([helper.make_node(operator, ["x"], ["y"])])
    with pytest.raises(ArtifactRefused, match=r"ONNX Runtime cannot load 'model\.onnx'") as caught:
        loaded(models.save_onnx(tmp_path, proto))
    assert "\n" not in str(caught.value)


def external(location: str) -> onnx.TensorProto:
    tensor = TensorProto(
        name="constant", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL
    )
    tensor.external_data.add(key="location", value=location)
    return tensor


def with_external_weight(folder: Path, location: str) -> Path:
    node = helper.make_node("Add", ["x", "constant"], ["y"])
    return models.save_onnx(folder, models.onnx_graph([node], weights=[external(location)]))


def test_onnx_loads_when_its_weights_lie_beside_it(tmp_path: Path) -> None:
    """External data inside the folder is normal."""
    folder = with_external_weight(tmp_path, "weights.data")
    (folder / "weights.data").write_bytes(np.array([5], np.float32).tobytes())
    assert loaded(folder).predict({"x": np.zeros((1, 3), np.float32)})["y"].tolist() == [[5, 5, 5]]


@pytest.mark.parametrize(
    "location",
    ["/etc/hostname", "../secret.data", "a/../../secret.data", "C:\\secret", "..\\secret", "\\\\host\\s", ""],
)
def test_onnx_is_refused_when_its_weights_lie_elsewhere(location: str, tmp_path: Path) -> None:
    """A model may read its own folder and nothing else."""
    (tmp_path / "secret.data").write_bytes(bytes(4))
    with pytest.raises(ArtifactRefused, match="lies outside the model's folder"):
        loaded(with_external_weight(tmp_path / "model", location))


def test_onnx_is_refused_when_its_weights_are_a_link_to_elsewhere(tmp_path: Path) -> None:
    """Links are followed before the folder is compared."""
    (tmp_path / "secret.data").write_bytes(bytes(4))
    folder = with_external_weight(tmp_path / "model", "weights.data")
    (folder / "weights.data").symlink_to(tmp_path / "secret.data")
    with pytest.raises(ArtifactRefused, match="lies outside the model's folder"):
        loaded(folder)


def test_onnx_is_refused_when_its_weights_are_missing(tmp_path: Path) -> None:
    """An upload without the weight file is named as such."""
    with pytest.raises(ArtifactRefused, match=r"'weights\.data' is missing"):
        loaded(with_external_weight(tmp_path, "weights.data"))


def test_external_data_is_found_when_it_hides_in_a_subgraph(tmp_path: Path) -> None:
    """Attributes, nested graphs, sparse weights and local functions are all looked at."""
    hidden = external("/etc/hostname")
    constant = helper.make_node("Constant", [], ["c"], value=hidden)
    inner = helper.make_graph([constant], "inner", [], [])
    branch = helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner)
    sparse = onnx.SparseTensorProto(values=hidden)
    function = helper.make_function("own", "f", [], ["c"], [constant], [helper.make_opsetid("", 17)])
    in_function = models.onnx_graph([])
    in_function.functions.append(function)
    in_sparse = models.onnx_graph([])
    in_sparse.graph.sparse_initializer.append(sparse)
    for proto in (models.onnx_graph([branch]), in_function, in_sparse):
        with pytest.raises(ArtifactRefused, match="lies outside"):
            check_external_data(proto, tmp_path)
