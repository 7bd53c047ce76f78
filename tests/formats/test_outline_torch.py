"""Outlines of PyTorch's two archives: the program's operators with their weights, and the extra files."""

import zipfile
from pathlib import Path

import pytest

from serving.formats.artifact import inspect_artifact
from serving.formats.extra_files import read_extra_files
from serving.formats.loader import load
from serving.formats.outline import Layer, Outline, outline
from tests import models, nets

EXTRA = {"labels.txt": "zero\none\n", "config.txt": '{"author": "Ann", "license": "MIT", "stride": 8}'}
OPERATORS = {"conv2d": 1, "relu": 1, "max_pool2d": 1, "flatten": 1, "linear": 1}


def outlined(folder: Path) -> Outline:
    artifact = inspect_artifact(folder)
    model = load(artifact, threads=1)
    try:
        return outline(artifact, model)
    finally:
        model.close()


def test_script_outline_names_layers_by_module_when_read(tmp_path: Path) -> None:
    """What a module does only while training is no part of it; extra files are read."""
    found = outlined(nets.save_script(tmp_path, EXTRA))
    assert found.operators == OPERATORS
    assert (found.layer_count, found.parameter_count) == (5, nets.PARAMETERS)
    weighted = [layer for layer in found.layers if layer.parameter_count]
    assert weighted == [Layer("stroke", "conv2d", 40), Layer("head", "linear", 650)]
    assert (found.told.author, found.told.licence, found.told.labels) == ("Ann", "MIT", ("zero", "one"))
    assert found.told.properties == {"stride": "8"}
    assert (found.producer, found.producer_version, found.notes) == ("torch", None, ())


def test_script_outline_counts_weights_when_the_module_was_frozen(tmp_path: Path) -> None:
    """Its weights are constants of the graph, and no parameters any more."""
    found = outlined(nets.save_script(tmp_path, freeze=True))
    assert found.operators == OPERATORS
    assert found.parameter_count == nets.PARAMETERS


def test_script_outline_follows_lists_when_a_layer_takes_its_weights_as_one(tmp_path: Path) -> None:
    """As recurrent layers do."""
    lines = [
        "def forward(self, x: Tensor) -> Tensor:",
        "    w = [torch.ones(8, 3), torch.ones(8, 2), torch.ones(8), torch.ones(8)]",
        "    state = [torch.zeros(1, x.size(1), 2), torch.zeros(1, x.size(1), 2)]",
        "    return torch.lstm(x, state, w, True, 1, 0.0, False, False, False)[0]",
    ]
    found = outlined(models.save_torch_script(tmp_path, "\n".join(lines)))
    assert found.operators["lstm"] == 1
    assert found.parameter_count == 0


def test_script_outline_names_the_writer_when_mlflow_logged_it(tmp_path: Path) -> None:
    """The archive does not say which torch wrote it, MLflow's description does."""
    folder = nets.save_script(tmp_path)
    models.describe(folder)
    text = (folder / "MLmodel").read_text()
    known = text.replace('"model_data"', '"pytorch_version": "2.13.0+cpu", "model_data"')
    (folder / "MLmodel").write_text(known)
    found = outlined(folder)
    assert (found.producer_version, found.runtimes) == ("2.13.0", {"torch": ">=2.13.0"})


def test_export_outline_agrees_with_the_script_when_both_hold_one_network(tmp_path: Path) -> None:
    """Operators, weights and layers' names; free axes by their symbol; torch that wrote it."""
    found = outlined(nets.save_export(tmp_path, EXTRA))
    assert found.operators == OPERATORS
    assert found.parameter_count == nets.PARAMETERS
    weighted = [layer for layer in found.layers if layer.parameter_count]
    assert weighted == [Layer("stroke", "conv2d", 40), Layer("head", "linear", 650)]
    free, *fixed = found.shapes["x"]
    assert isinstance(free, str)
    assert fixed == [1, 8, 8]
    assert found.shapes["OUTPUT__0"] == (free, 10)
    assert found.opsets["aten"] > 0
    assert found.runtimes == {"torch": f">={found.producer_version}"}
    assert (found.told.author, found.told.labels) == ("Ann", ("zero", "one"))


def test_extra_files_are_passed_over_with_a_note_when_too_large_or_many(tmp_path: Path) -> None:
    """Nothing is unpacked beyond the bound."""
    path = tmp_path / "a.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/extra/description.txt", "Reads digits.")
        archive.writestr("a/extra/huge.txt", b"0" * (2 << 20))
        for number in range(60):
            archive.writestr(f"a/extra/{number}.txt", "x")
    found = read_extra_files(path)
    assert found.told.description == "Reads digits."
    assert "'huge.txt' is larger than" in found.notes[0]
    assert found.notes[1] == "only 50 of 62 extra files were read"


def test_outline_is_a_note_when_the_file_is_strange(tmp_path: Path) -> None:
    """No version is refused for what cannot be read out of it."""
    folder = nets.save_export(tmp_path)
    artifact = inspect_artifact(folder)
    model = load(artifact, threads=1)
    (folder / "model.pt2").write_bytes(b"PK\x03\x04")
    found = outline(artifact, model)
    assert found.operators == {}
    [note] = found.notes
    assert note.startswith("the inside of 'model.pt2' could not be read (BadZipFile")


@pytest.mark.parametrize("text", [b"\xff\xfe\x00", b"{" * 10_000])
def test_extra_file_is_text_when_it_is_no_json(text: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/extra/odd", text)
    assert list(read_extra_files(path).told.properties) == ["odd"]
