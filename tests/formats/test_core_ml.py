"""Core ML: Apple's runtime behind a small port on macOS, the ONNX translation elsewhere."""

import shutil
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.core.datatypes import Array
from serving.core.errors import ArtifactRefused
from serving.core.model import Format, TensorSpec
from serving.formats.artifact import inspect_artifact, payload_digest, payload_files
from serving.formats.core_ml import native_model
from serving.formats.loader import load
from tests import coreml_models, models
from tests.coreml_models import TRANSLATION


class Recorder:
    """Apple's runtime: remembers what it was asked, answers in double precision, takes one at a time."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Array]] = []
        self.inside = 0
        self.most_inside = 0

    def predict(self, data: dict[str, Array]) -> Mapping[str, Any]:
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        self.asked.append(data)
        answer = {"y": data["x"].astype(np.float64) + 1, "debug": 0}
        self.inside -= 1
        return answer


def described(change: Callable[[Any], object] = lambda description: None) -> Any:
    """The ModelDescription of a real network, changed."""
    from coremltools.proto import Model_pb2

    spec = Model_pb2.Model()
    for features in (spec.description.input, spec.description.output):
        feature = features.add(name="x" if features is spec.description.input else "y")
        feature.type.multiArrayType.dataType = 65568
        feature.type.multiArrayType.shape.extend([2, 3])
    change(spec.description)
    return spec.description


def test_native_model_asks_the_runtime_when_it_predicts() -> None:
    """Arrays go in as they are; declared outputs come back in their declared type, others are left out."""
    recorder = Recorder()
    model = native_model(recorder, described(), "coreml_mlprogram")
    assert model.platform == "coreml_mlprogram"
    assert model.inputs == (TensorSpec("x", "FP32", (2, 3)),)
    answer = model.predict({"x": np.ones((2, 3), np.float32)})
    assert list(answer) == ["y"]
    assert (answer["y"].dtype, answer["y"].tolist()) == (np.dtype(np.float32), [[2.0] * 3] * 2)
    assert recorder.asked[0]["x"].dtype == np.float32


def test_native_model_is_asked_by_one_thread_when_many_ask() -> None:
    """Apple's documentation allows one at a time."""
    recorder = Recorder()
    model = native_model(recorder, described(), "coreml_mlprogram")
    threads = [
        threading.Thread(target=lambda: model.predict({"x": np.ones((2, 3), np.float32)})) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(recorder.asked), recorder.most_inside) == (8, 1)


def test_native_model_refuses_to_answer_when_closed() -> None:
    """As every other model."""
    model = native_model(Recorder(), described(), "coreml_mlprogram")
    model.close()
    with pytest.raises(RuntimeError, match="closed"):
        model.predict({"x": np.ones((2, 3), np.float32)})


def ranged(description: Any) -> None:
    sizes = description.input[0].type.multiArrayType.shapeRange.sizeRanges
    sizes.add(lowerBound=1, upperBound=-1)
    sizes.add(lowerBound=3, upperBound=3)


def enumerated(description: Any) -> None:
    shapes = description.input[0].type.multiArrayType.enumeratedShapes.shapes
    shapes.add(shape=[2, 3])
    shapes.add(shape=[4, 3])


def of_two_ranks(description: Any) -> None:
    shapes = description.input[0].type.multiArrayType.enumeratedShapes.shapes
    shapes.add(shape=[2, 3])
    shapes.add(shape=[4])


def half(description: Any) -> None:
    description.input[0].type.multiArrayType.dataType = 65552


def unshaped(description: Any) -> None:
    del description.input[0].type.multiArrayType.shape[:]


@pytest.mark.parametrize(
    ("change", "want"),
    [
        (ranged, TensorSpec("x", "FP32", (-1, 3))),
        (enumerated, TensorSpec("x", "FP32", (-1, 3))),
        (of_two_ranks, TensorSpec("x", "FP32", None)),
        (half, TensorSpec("x", "FP16", (2, 3))),
        (unshaped, TensorSpec("x", "FP32", None)),
    ],
)
def test_native_model_declares_what_the_description_allows(
    change: Callable[[Any], object], want: TensorSpec
) -> None:
    """What may vary is variable."""
    assert native_model(Recorder(), described(change), "coreml_mlprogram").inputs == (want,)


def test_native_model_is_refused_when_an_input_is_an_image() -> None:
    """A request carries tensors."""

    def change(description: Any) -> None:
        description.input[0].type.imageType.width = 3

    with pytest.raises(ArtifactRefused, match="input 'x' is of Core ML type image"):
        native_model(Recorder(), described(change), "coreml_mlprogram")


@pytest.mark.parametrize(
    ("save", "data", "platform"),
    [
        (coreml_models.save_network, "model.mlmodel", "coreml_neuralnetwork"),
        (coreml_models.save_package, "model.mlpackage", "coreml_mlprogram"),
    ],
)
@pytest.mark.parametrize("described", [True, False])
def test_version_answers_through_its_translation_when_not_on_a_mac(
    save: Callable[[Path], Path], data: str, platform: str, described: bool, tmp_path: Path
) -> None:
    """With `MLmodel` or by the files alone; both files are payload."""
    save(tmp_path)
    shutil.move(models.onnx_adder(tmp_path / "made") / "model.onnx", tmp_path / TRANSLATION)
    (tmp_path / "made").rmdir()
    if described:
        flavor = f'{{"data": "{data}", "translation": "{TRANSLATION}"}}'
        (tmp_path / "MLmodel").write_text(f'{{"flavors": {{"coreml": {flavor}}}}}')
    artifact = inspect_artifact(tmp_path)
    assert (artifact.format, artifact.payload.name, artifact.translation) == (
        Format.COREML,
        data,
        tmp_path / TRANSLATION,
    )
    model = load(artifact, threads=1)
    assert model.platform == platform
    assert model.predict({"x": np.ones((1, 3), np.float32)})["y"].tolist() == [[2.0] * 3]
    assert tmp_path / TRANSLATION in payload_files(tmp_path)


def test_digest_changes_when_original_or_translation_does(tmp_path: Path) -> None:
    """Neither can be exchanged behind the other's back."""
    folder = coreml_models.translated(models.onnx_adder)(tmp_path)
    digests = {payload_digest(folder)}
    for name in ("model.mlmodel", TRANSLATION):
        (folder / name).write_bytes((folder / name).read_bytes() + b"\0")
        digests.add(payload_digest(folder))
    assert len(digests) == 3


def test_version_is_refused_when_it_has_no_translation(tmp_path: Path) -> None:
    """With the way to get one."""
    artifact = inspect_artifact(coreml_models.save_package(tmp_path))
    with pytest.raises(ArtifactRefused, match=r"runs on macOS.*signalbox register"):
        load(artifact, threads=1)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("model.mlmodel", "truncated or damaged Core ML"),
        (TRANSLATION, "'translation.onnx' is not a readable"),
    ],
)
def test_version_is_refused_when_either_file_is_cut_short(name: str, problem: str, tmp_path: Path) -> None:
    """A damaged original is refused where only the translation would run."""
    folder = coreml_models.translated(models.onnx_adder)(tmp_path)
    (folder / name).write_bytes((folder / name).read_bytes()[:-5])
    with pytest.raises(ArtifactRefused, match=problem):
        load(inspect_artifact(folder), threads=1)


def test_version_is_refused_when_its_translation_is_named_and_missing(tmp_path: Path) -> None:
    """As any file that `MLmodel` names."""
    folder = coreml_models.translated(models.onnx_adder)(tmp_path)
    (folder / TRANSLATION).unlink()
    with pytest.raises(ArtifactRefused, match=r"'translation.onnx' named in MLmodel is missing"):
        inspect_artifact(folder)
