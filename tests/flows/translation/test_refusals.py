"""What cannot be translated: each refusal names the culprit, and leaves no file behind."""

import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flows.translation.core_ml import translate
from flows.translation.graph import Graph
from flows.translation.refusal import TranslationRefused
from tests.flows.translation.parity import quiet

with quiet():
    import coremltools as ct
    from coremltools.converters.mil import Builder as mb
    from coremltools.converters.mil.mil import types


def _saved(body: Callable[[Any], Any], folder: Path, version: Any = None, shape: Any = (4, 40)) -> Path:
    source = folder / "model.mlpackage"
    version = version or ct.target.iOS15
    with quiet():
        program = mb.program(input_specs=[mb.TensorSpec(shape=shape)], opset_version=version)(body)
        ct.convert(
            program,
            convert_to="mlprogram",
            compute_precision=ct.precision.FLOAT32,
            minimum_deployment_target=version,
            pass_pipeline=ct.PassPipeline.EMPTY,
        ).save(str(source))
    return source


def _refused(source: Path, folder: Path) -> TranslationRefused:
    target = folder / "model.onnx"
    with pytest.raises(TranslationRefused) as caught:
        translate(source, target)
    assert not target.exists()
    return caught.value


def _layer(x: Any) -> Any:
    weight = np.random.default_rng(0).normal(size=(40, 40)).astype(np.float32)
    return mb.linear(x=x, weight=weight, name="y")


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A healthy package of one layer with its weights in a file."""
    return _saved(_layer, tmp_path)


def _weights(package: Path) -> Path:
    return next(package.rglob("weight.bin"))


def _specification(package: Path) -> Path:
    return next(package.rglob("*.mlmodel"))


def _rewritten(package: Path, change: Callable[[Any], None]) -> None:
    """The package with its program changed."""
    path = _specification(package)
    spec = ct.proto.Model_pb2.Model()
    spec.ParseFromString(path.read_bytes())
    change(spec)
    path.write_bytes(spec.SerializeToString())


def _operations(spec: Any) -> Any:
    block = next(iter(spec.mlProgram.functions["main"].block_specializations.values()))
    return block.operations


def test_healthy_package_is_translated_before_it_is_damaged(package: Path, tmp_path: Path) -> None:
    """The refusals below are due to the damage."""
    assert translate(package, tmp_path / "model.onnx").operators == {"linear": 1}


def test_every_unsupported_operator_is_named_when_there_are_several(tmp_path: Path) -> None:
    """Each with the variable that it gives."""

    def body(x: Any) -> Any:
        noise = mb.random_normal(shape=[4, 40], name="noise")
        boxes = mb.reshape(x=mb.add(x=x, y=noise), shape=[1, 40, 4])
        scores = mb.reduce_sum(x=boxes, axes=[2], keep_dims=True)
        return mb.non_maximum_suppression(
            boxes=boxes, scores=scores, iou_threshold=0.5, score_threshold=0.1, max_boxes=3, name="kept"
        )

    refused = _refused(_saved(body, tmp_path), tmp_path)
    assert [one.operator for one in refused.unsupported] == ["random_normal", "non_maximum_suppression"]
    assert (refused.operator, refused.variable) == ("random_normal", "noise")
    assert "operator 'random_normal' (output 'noise') is random" in str(refused)
    assert "operator 'non_maximum_suppression' (output 'kept_0') has no ONNX translation" in str(refused)


def test_every_unsupported_form_is_named_when_operators_are_known(tmp_path: Path) -> None:
    """Operators that are translated in general say what about this use is not."""

    def body(x: Any) -> Any:
        image = mb.reshape(x=x, shape=[1, 4, 5, 8])
        resized = mb.resize_bilinear(
            x=image, target_size_height=1, target_size_width=4, sampling_mode="ALIGN_CORNERS", name="thin"
        )
        windows = mb.scatter(
            data=x, indices=[0], updates=np.ones((1, 40), np.float32), mode="div", name="cut"
        )
        return resized, mb.lstm(
            x=mb.reshape(x=windows, shape=[4, 8, 5]),
            initial_h=np.zeros((8, 2), np.float32),
            initial_c=np.zeros((8, 2), np.float32),
            weight_ih=np.ones((8, 5), np.float32),
            weight_hh=np.ones((8, 2), np.float32),
            clip=np.float32(3),
            name="steps",
        )[0]

    refused = _refused(_saved(body, tmp_path), tmp_path)
    assert [(one.operator, one.variable) for one in refused.unsupported] == [
        ("resize_bilinear", "thin"),
        ("lstm", "steps_0"),
    ]
    assert "ALIGN_CORNERS" in str(refused)
    assert "clips its cell" in str(refused)


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        pytest.param("sampling_mode", "bicubic", id="mode"),
        pytest.param("coordinates_mode", "polar", id="coordinates"),
        pytest.param("padding_mode", "reflection", id="padding at edges"),
    ],
)
def test_sampling_is_refused_when_onnx_has_no_counterpart(parameter: str, value: str, tmp_path: Path) -> None:
    """coremltools lets these pass; the refusal names the value."""

    def body(x: Any) -> Any:
        given = {
            "sampling_mode": "bilinear",
            "padding_mode": "constant",
            "padding_value": 0.0,
            "coordinates_mode": "unnormalized",
            "align_corners": False,
        }
        points = np.zeros((1, 2, 2, 2), np.float32)
        image = mb.reshape(x=x, shape=[1, 4, 5, 8])
        return mb.resample(x=image, coordinates=points, name="y", **(given | {parameter: value}))

    refused = _refused(_saved(body, tmp_path), tmp_path)
    assert (refused.operator, refused.variable) == ("resample", "y")
    assert f"'{value}'" in str(refused)


def test_pool_is_refused_when_its_last_window_lies_outside(tmp_path: Path) -> None:
    """Ceil mode without padding promises an output that no element decides."""

    def body(x: Any) -> Any:
        image = mb.reshape(x=x, shape=[1, 1, 16, 10])
        window = {"kernel_sizes": [1, 1], "strides": [3, 4], "pad_type": "valid", "ceil_mode": True}
        return mb.max_pool(x=image, name="y", **window)

    refused = _refused(_saved(body, tmp_path), tmp_path)
    assert (refused.operator, refused.variable) == ("max_pool", "y")
    assert "wholly outside" in str(refused)


def test_operator_is_named_when_coremltools_does_not_know_it(package: Path, tmp_path: Path) -> None:
    """A file of a future version is refused before coremltools stumbles over it."""
    _rewritten(package, lambda spec: setattr(_operations(spec)[-1], "type", "linear_of_tomorrow"))
    refused = _refused(package, tmp_path)
    assert (refused.operator, refused.variable) == ("linear_of_tomorrow", "y")


def test_state_is_refused_when_the_program_keeps_one(tmp_path: Path) -> None:
    """Calls of a served model stand alone."""
    source = tmp_path / "model.mlpackage"
    with quiet():
        specs = [mb.TensorSpec(shape=(2,)), mb.StateTensorSpec(shape=(2,), dtype=types.fp16)]

        @mb.program(input_specs=specs, opset_version=ct.target.iOS18)  # type: ignore[untyped-decorator]
        def program(x: Any, memory: Any) -> Any:
            return mb.add(x=x, y=mb.cast(x=mb.read_state(input=memory, name="kept"), dtype="fp32"))

        ct.convert(program, convert_to="mlprogram", minimum_deployment_target=ct.target.iOS18).save(
            str(source)
        )
    refused = _refused(source, tmp_path)
    assert refused.operator == "read_state"
    assert "keeps a state between calls" in str(refused)


@pytest.mark.parametrize("content", [b"", b"not a model at all", b"\x08\x07\x12"])
def test_file_is_refused_when_it_is_no_model(content: bytes, tmp_path: Path) -> None:
    """Empty, foreign and truncated files say so, with a next step."""
    source = tmp_path / "model.mlmodel"
    source.write_bytes(content)
    refused = _refused(source, tmp_path)
    assert "save the model again" in refused.next_step


def test_model_is_refused_when_there_is_none(tmp_path: Path) -> None:
    """The path is named."""
    assert str(tmp_path / "nothing.mlpackage") in str(_refused(tmp_path / "nothing.mlpackage", tmp_path))


def test_package_is_refused_when_its_manifest_is_damaged(package: Path, tmp_path: Path) -> None:
    """A manifest that is no JSON, and a package without its program."""
    (package / "Manifest.json").write_text("{")
    assert "not a readable Core ML model" in str(_refused(package, tmp_path))
    shutil.rmtree(package / "Data")
    assert "not a readable Core ML model" in str(_refused(package, tmp_path))


def test_package_is_refused_when_its_program_is_truncated(package: Path, tmp_path: Path) -> None:
    """Half a program is none."""
    path = _specification(package)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    _refused(package, tmp_path)


def test_weight_is_named_when_its_file_is_missing(package: Path, tmp_path: Path) -> None:
    """The package was copied without its weights."""
    _weights(package).unlink()
    refused = _refused(package, tmp_path)
    assert "weight file 'weight.bin' is missing" in str(refused)
    assert "weights included" in refused.next_step


def test_weight_is_refused_when_its_file_is_a_link_to_elsewhere(package: Path, tmp_path: Path) -> None:
    """A package cannot make the server read another file."""
    path = _weights(package)
    outside = tmp_path / "outside.bin"
    path.rename(outside)
    path.symlink_to(outside)
    assert "a link out of the model's folder" in str(_refused(package, tmp_path))


def test_weight_is_named_when_its_file_is_cut(package: Path, tmp_path: Path) -> None:
    """Its record is there, part of its data is not."""
    path = _weights(package)
    path.write_bytes(path.read_bytes()[:-1000])
    assert "beyond the end of its weight file" in str(_refused(package, tmp_path))


@pytest.mark.parametrize("offset", [8, 128, 2**20, 2**63])
def test_weight_is_named_when_its_offset_points_to_nothing(
    offset: int, package: Path, tmp_path: Path
) -> None:
    """Inside the header, into another weight's data, beyond the file, beyond any file."""

    def change(spec: Any) -> None:
        for operation in _operations(spec):
            for value in operation.attributes.values():
                if value.WhichOneof("value") == "blobFileValue":
                    value.blobFileValue.offset = offset

    _rewritten(package, change)
    refused = _refused(package, tmp_path)
    assert refused.variable is not None
    assert "cannot be read" in str(refused)


def test_weight_is_named_when_its_record_claims_more_than_the_file_holds(
    package: Path, tmp_path: Path
) -> None:
    """The size in the record is not believed."""
    path = _weights(package)
    content = bytearray(path.read_bytes())
    content[64 + 8 : 64 + 16] = struct.pack("<Q", 2**40)
    path.write_bytes(content)
    assert "beyond the end of its weight file" in str(_refused(package, tmp_path))


def test_weight_is_named_when_it_is_smaller_than_its_type(package: Path, tmp_path: Path) -> None:
    """A declared shape that the stored bytes cannot fill."""
    path = _weights(package)
    content = bytearray(path.read_bytes())
    content[64 + 8 : 64 + 16] = struct.pack("<Q", 16)
    path.write_bytes(content)
    assert "16 bytes for 1600 elements" in str(_refused(package, tmp_path))


def test_tensor_is_named_when_its_declared_size_is_huge(package: Path, tmp_path: Path) -> None:
    """Nothing is allocated for it."""

    def change(spec: Any) -> None:
        kind = _operations(spec)[-1].outputs[0].type.tensorType
        kind.dimensions[0].constant.size = 2**40

    _rewritten(package, change)
    refused = _refused(package, tmp_path)
    assert (refused.operator, refused.variable) == ("linear", "y")
    assert "elements" in str(refused)


def test_tensor_is_named_when_a_constant_shape_is_huge(tmp_path: Path) -> None:
    """Whatever its declared size, it is not computed."""
    source = _saved(lambda x: mb.add(x=x, y=mb.fill(shape=[4, 40], value=1.0, name="ones")), tmp_path)

    def change(spec: Any) -> None:
        (filled,) = (one for one in _operations(spec) if one.type == "fill")
        shape = filled.inputs["shape"].arguments[0].name
        (constant,) = (one for one in _operations(spec) if one.outputs[0].name == shape)
        constant.attributes["val"].immediateValue.tensor.ints.values[:] = [100_000, 100_000]

    _rewritten(source, change)
    refused = _refused(source, tmp_path)
    assert (refused.operator, refused.variable) == ("fill", "ones")
    assert "10,000,000,000 elements" in str(refused)


def test_functions_are_listed_when_none_is_the_default(package: Path, tmp_path: Path) -> None:
    """A package of several functions says which one it means, or is refused."""

    def change(spec: Any) -> None:
        main = spec.mlProgram.functions["main"]
        for name in ("first", "second"):
            spec.mlProgram.functions[name].CopyFrom(main)
        del spec.mlProgram.functions["main"]

    _rewritten(package, change)
    assert "it holds the functions first, second" in str(_refused(package, tmp_path))


def test_kind_is_named_when_it_is_neither_program_nor_network(tmp_path: Path) -> None:
    """Trees, pipelines and the like are other formats in the same file type."""
    spec = ct.proto.Model_pb2.Model()
    spec.specificationVersion = 1
    spec.treeEnsembleRegressor.treeEnsemble.numPredictionDimensions = 1
    source = tmp_path / "model.mlmodel"
    source.write_bytes(spec.SerializeToString())
    refused = _refused(source, tmp_path)
    assert refused.operator == "treeEnsembleRegressor"
    assert "of type 'treeEnsembleRegressor'" in str(refused)


def test_graph_is_refused_when_its_weights_exceed_one_file() -> None:
    """protobuf's limit is named; nothing is copied beyond it."""
    graph = Graph()
    huge = np.broadcast_to(np.float16(1), (1_100_000_000,))
    with pytest.raises(TranslationRefused, match="2,000,000,000 bytes that one ONNX file can hold"):
        graph.check_room(huge.nbytes)
