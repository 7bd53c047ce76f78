"""Descriptions: the same network told alike in every format, nothing lost in JSON, nobody refused."""

import json
import shutil
from pathlib import Path

import pytest

from flows.catalog.describe import architecture, describe
from flows.catalog.description import Description, Tensor, from_json
from serving.core.model import Format
from serving.formats.artifact import inspect_artifact
from serving.formats.loader import load
from serving.formats.outline import Outline
from serving.formats.told import Told
from tests import models, nets


def described(folder: Path) -> Description:
    artifact = inspect_artifact(folder)
    model = load(artifact, threads=1)
    try:
        return describe(artifact, model)
    finally:
        model.close()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[Format, Path]:
    """One network in four formats; Core ML with a translation, as it is registered."""
    root = tmp_path_factory.mktemp("formats")
    coreml = nets.save_coreml(root / "coreml", kind="mlprogram")
    shutil.copy(models.onnx_net(root / "translation") / "model.onnx", coreml / "translation.onnx")
    return {
        Format.ONNX: models.onnx_net(root / "onnx"),
        Format.TORCHSCRIPT: nets.save_script(root / "script"),
        Format.PT2: nets.save_export(root / "export"),
        Format.COREML: coreml,
    }


@pytest.mark.parametrize("kind", list(Format))
def test_description_counts_the_same_weights_in_every_format(
    kind: Format, folders: dict[Format, Path]
) -> None:
    """It is whole, says the format, measures the model without its translation, and survives JSON."""
    found = described(folders[kind])
    assert (found.format, found.notes) == (str(kind), ())
    assert found.parameter_count == nets.PARAMETERS
    assert found.architecture.endswith("; 690 parameters")
    own = [path for path in folders[kind].rglob("*") if path.is_file() and path.name != "translation.onnx"]
    assert found.size_bytes == sum(path.stat().st_size for path in own)
    assert from_json(json.loads(json.dumps(found.as_json()))) == found


def test_free_axes_keep_their_names_when_the_file_has_them(folders: dict[Format, Path]) -> None:
    """A served shape decides how many axes there are and which are free."""
    assert described(folders[Format.ONNX]).inputs == (Tensor("x", "FP32", ("batch", 1, 8, 8)),)
    assert described(folders[Format.TORCHSCRIPT]).inputs == (Tensor("x", "FP32", None),)
    [exported] = described(folders[Format.PT2]).inputs
    assert exported.shape is not None
    assert exported.shape[1:] == (1, 8, 8)


@pytest.mark.parametrize(
    ("operators", "parameters", "line"),
    [
        pytest.param({"Add": 1}, 0, "1 layer: Add 1; 0 parameters", id="one"),
        pytest.param({"b": 1, "a": 2}, 1234567, "3 layers: a 2, b 1; 1,234,567 parameters", id="order"),
        pytest.param({"a": 1}, None, "1 layer: a 1", id="weights unknown"),
        pytest.param({}, None, "unknown", id="nothing known"),
        pytest.param(
            dict.fromkeys("abcdefgh", 1), 0,
            "8 layers: a 1, b 1, c 1, d 1, e 1, f 1, 2 others; 0 parameters", id="many",
        ),
    ],
)  # fmt: skip
def test_architecture_is_one_line_when_summed_up(
    operators: dict[str, int], parameters: int | None, line: str
) -> None:
    count = sum(operators.values())
    assert architecture(Outline(operators=operators, layer_count=count, parameter_count=parameters)) == line


def test_dependencies_are_those_logged_when_mlflow_logged_them(tmp_path: Path) -> None:
    """Else those that somebody tells, else the runtime that the file needs."""
    folder = models.onnx_net(tmp_path)
    assert described(folder).dependencies == ("onnxruntime>=1.15",)
    told = described(folder).completed(Told(dependencies=("numpy",)))
    assert told.dependencies == ("numpy",)
    (folder / "requirements.txt").write_text("# made by hand\nonnxruntime==1.20\n\nnumpy\n")
    assert described(folder).dependencies == ("onnxruntime==1.20", "numpy")
    (folder / "requirements.txt").write_text("x" * (1 << 17))
    assert "requirements.txt is a link or too large" in described(folder).notes[0]


def test_side_words_fill_in_when_the_file_says_nothing(tmp_path: Path) -> None:
    found = described(models.onnx_net(tmp_path, properties={"model_author": "Ann"}))
    completed = found.completed(Told(author="Bob", description="Reads digits."))
    assert (completed.told.author, completed.told.description) == ("Ann", "Reads digits.")
