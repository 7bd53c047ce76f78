"""Model folders: what they hold is told from their content; what cannot be served is refused by name."""

import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from serving.core.errors import ArtifactRefused
from serving.core.model import Format, TensorSpec
from serving.formats.artifact import inspect_artifact, payload_digest, payload_files
from serving.formats.golden import Golden, read_golden, write_golden
from tests import models


@pytest.mark.parametrize(
    ("make", "want"), [(models.onnx_adder, Format.ONNX), (models.torch_adder, Format.TORCHSCRIPT)]
)
def test_folder_is_recognised_when_it_has_no_description(make: object, want: Format, tmp_path: Path) -> None:
    """The content decides."""
    assert callable(make)
    found = inspect_artifact(make(tmp_path))
    assert (found.format, found.flavors, found.example, found.golden) == (want, (), None, None)


def refused(folder: Path) -> str:
    with pytest.raises(ArtifactRefused) as caught:
        inspect_artifact(folder)
    return str(caught.value)


def test_folder_is_refused_when_it_is_missing_or_empty(tmp_path: Path) -> None:
    """Nothing to serve, and where to look."""
    assert "'gone' holds no model files" in refused(tmp_path / "gone")
    (tmp_path / "requirements.txt").write_text("onnx")
    assert "holds no model files" in refused(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("model.onnx", b"", "'model.onnx' is empty"),
        ("model.onnx", b"version https://git-lfs.github.com/spec/v1\n", "is a text file, not a model"),
        ("model.onnx", pickle.dumps({}), "is a pickle"),
        ("model.onnx", b"PK\x03\x04rest", "truncated or damaged archive"),
        ("model.pkl", pickle.dumps({}), "is a pickle"),
        ("model.pt", pickle.dumps({}), "pickled eager PyTorch model"),
        ("model.pt", b"", "'model.pt' is empty"),
        ("model.h5", b"\x89HDF\r\n\x1a\n", "found none"),
        ("notes.md", b"hello", "found none"),
    ],
)
def test_file_is_refused_when_it_is_no_model(name: str, content: bytes, problem: str, tmp_path: Path) -> None:
    """The refusal says what the file is instead."""
    (tmp_path / name).write_bytes(content)
    assert problem in refused(tmp_path)


def test_folder_is_refused_when_it_holds_two_models(tmp_path: Path) -> None:
    """No guessing which one was meant."""
    models.onnx_adder(tmp_path)
    models.torch_adder(tmp_path)
    assert "found model.onnx, model.pt" in refused(tmp_path)


def test_archive_is_refused_when_it_is_some_other_zip(tmp_path: Path) -> None:
    """A zip is not a model."""
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as archive:
        archive.writestr("a/b.txt", "hello")
    assert "an archive, but not a TorchScript or torch.export one" in refused(tmp_path)


@pytest.mark.parametrize(
    ("flavor", "problem", "step"),
    [
        ("sklearn", "a sklearn model", "skl2onnx"),
        ("xgboost", "a xgboost model", "onnxmltools"),
        ("prophet", "a prophet model", "export it to ONNX"),
        ("keras", "a keras model", "model.export"),
    ],
)
def test_flavor_is_refused_by_name_when_it_cannot_be_served(
    flavor: str, problem: str, step: str, tmp_path: Path
) -> None:
    """Each refusal ends with the way to ONNX."""
    (tmp_path / "model.bin").write_bytes(b"\x00")
    message = refused(models.describe(tmp_path, flavor=flavor))
    assert problem in message
    assert step in message


@pytest.mark.parametrize(
    "content",
    ["", "[]", "flavors: 3", "{", "a: b: c", "\x00", "!!python/object/apply:os.system ['true']", "[" * 5000],
    ids=lambda content: content[:20],
)
def test_description_is_refused_when_it_is_not_what_mlflow_writes(content: str, tmp_path: Path) -> None:
    """Damaged or hostile YAML is data, and never more."""
    models.onnx_adder(tmp_path)
    (tmp_path / "MLmodel").write_text(content)
    assert "MLmodel" in refused(tmp_path)


@pytest.mark.parametrize("data", ["../model.onnx", "/etc/hostname", "link.onnx"])
def test_description_is_refused_when_it_names_a_file_outside(data: str, tmp_path: Path) -> None:
    """Links are followed first."""
    models.onnx_adder(tmp_path)
    folder = models.onnx_adder(tmp_path / "inner")
    (folder / "link.onnx").symlink_to(tmp_path / "model.onnx")
    (folder / "MLmodel").write_text(json.dumps({"flavors": {"onnx": {"data": data}}}))
    assert "names a file outside the model's folder" in refused(folder)


@pytest.mark.parametrize("data", ["gone.onnx", "inner"])
def test_description_is_refused_when_its_file_is_missing(data: str, tmp_path: Path) -> None:
    """A cut-off upload is named as such."""
    models.onnx_adder(tmp_path / "inner")
    (tmp_path / "MLmodel").write_text(json.dumps({"flavors": {"onnx": {"data": data}}}))
    assert "upload may have been cut short" in refused(tmp_path)


def test_signature_is_read_when_it_is_made_of_tensors(tmp_path: Path) -> None:
    """Names may be absent; columns of a data frame say nothing about tensors."""
    folder = models.onnx_adder(tmp_path)
    models.describe(folder, flavor="onnx", inputs=[("x", "int64", [-1, 2])], outputs=[("", "float32", [-1])])
    found = inspect_artifact(folder)
    assert found.signature_inputs == (TensorSpec("x", "INT64", (-1, 2)),)
    assert found.signature_outputs == (TensorSpec("", "FP32", (-1,)),)


@pytest.mark.parametrize(
    "inputs", ["nonsense", "[]", '[{"type": "double", "name": "a"}]', '[{"tensor-spec": 1}]', 7]
)
def test_signature_is_ignored_when_it_says_nothing_of_tensors(inputs: object, tmp_path: Path) -> None:
    """A model without a usable signature is still a model."""
    folder = models.onnx_adder(tmp_path)
    content = {"flavors": {"onnx": {"data": "model.onnx"}}, "signature": {"inputs": inputs}}
    (folder / "MLmodel").write_text(json.dumps(content))
    assert inspect_artifact(folder).signature_inputs is None


def test_example_is_read_when_it_is_nested_lists(tmp_path: Path) -> None:
    """In the signature's datatype where there is one."""
    folder = models.onnx_adder(tmp_path)
    models.describe(folder, flavor="onnx", inputs=[("", "float32", [-1, 2])], example=[[1, 2]])
    example = inspect_artifact(folder).example
    assert example is not None
    assert (example[""].dtype, example[""].tolist()) == (np.dtype(np.float32), [[1.0, 2.0]])


@pytest.mark.parametrize("example", [[[1], [2, 3]], {"x": None}, [None]])
def test_example_is_noted_and_left_out_when_it_is_unreadable(example: object, tmp_path: Path) -> None:
    """It would have helped; its absence is reported, not fatal."""
    found = inspect_artifact(models.describe(models.onnx_adder(tmp_path), flavor="onnx", example=example))
    assert found.example is None
    assert "input example could not be read" in found.notes[0]


def test_digest_covers_the_payload_only_when_descriptions_change(tmp_path: Path) -> None:
    """Logging the same weights twice gives the same digest; another weight another one."""
    folder = models.onnx_adder(tmp_path)
    before = payload_digest(folder)
    (folder / "MLmodel").write_text("flavors: {}")
    (folder / "conda.yaml").write_text("a: 1")
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "a.pyc").write_bytes(b"1")
    write_golden(folder, Golden({"x": np.ones(1)}, {"y": np.ones(1)}))
    assert payload_digest(folder) == before
    assert [path.name for path in payload_files(folder)] == ["model.onnx"]
    models.onnx_adder(folder, constant=2.0)
    assert payload_digest(folder) != before


def test_digest_sees_a_file_when_it_is_only_named_like_a_description(tmp_path: Path) -> None:
    """Descriptions lie at the top of the folder; deeper down a name means nothing."""
    folder = models.onnx_adder(tmp_path)
    (folder / "sub").mkdir()
    (folder / "sub" / "conda.yaml").write_text("weights")
    assert [path.name for path in payload_files(folder)] == ["model.onnx", "conda.yaml"]


def test_golden_set_comes_back_when_written(tmp_path: Path) -> None:
    """Numbers and text, without a pickle."""
    golden = Golden({"x": np.ones((1, 2), np.float32)}, {"y": np.array(["a", "bc"], dtype=np.object_)})
    write_golden(tmp_path, golden)
    found = read_golden(tmp_path)
    assert found is not None
    np.testing.assert_array_equal(found.inputs["x"], golden.inputs["x"])
    assert found.outputs["y"].tolist() == ["a", "bc"]


def test_golden_set_is_refused_when_it_holds_a_pickle(tmp_path: Path) -> None:
    """Object arrays would run code on reading."""
    arrays = {"input:x": np.array([{}], dtype=object), "output:y": np.ones(1)}
    np.savez(tmp_path / "golden.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(ArtifactRefused, match="record the golden set again"):
        read_golden(tmp_path)


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04broken"])
def test_golden_set_is_refused_when_it_is_damaged(content: bytes, tmp_path: Path) -> None:
    """A check that was asked for must not vanish quietly."""
    models.onnx_adder(tmp_path)
    (tmp_path / "golden.npz").write_bytes(content)
    assert "'golden.npz'" in refused(tmp_path)


def test_golden_set_is_refused_when_its_names_are_foreign(tmp_path: Path) -> None:
    """Keys say what is input and what is output."""
    np.savez(tmp_path / "golden.npz", x=np.ones(1))
    with pytest.raises(ArtifactRefused, match="input:<name>"):
        read_golden(tmp_path)
