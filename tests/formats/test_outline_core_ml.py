"""A Core ML model's outline: both kinds of program, their weights, labels, authorship and systems."""

from pathlib import Path

import pytest

from serving.formats.artifact import Artifact
from serving.formats.model_file import format_of
from serving.formats.outline import Outline, outline
from tests import coreml_models, nets
from tests.versions import ScriptedModel, adds


def outlined(path: Path) -> Outline:
    return outline(Artifact(path.parent, format_of(path), path), ScriptedModel(adds(0.0)))


def test_program_outline_counts_weights_in_their_own_file_when_read(tmp_path: Path) -> None:
    """Operators without constants, the free axis, labels of the classifier, and the systems it needs."""
    told = {"training_dataset": "UCI", "metric.accuracy": "0.97"}
    found = outlined(nets.save_coreml(tmp_path, kind="mlprogram", metadata=told) / "model.mlpackage")
    assert {"conv", "relu", "max_pool", "linear", "classify"} <= found.operators.keys()
    assert "const" not in found.operators
    assert found.parameter_count == nets.PARAMETERS
    assert found.shapes["x"] == (-1, 1, 8, 8)
    assert found.runtimes == {"iOS": ">=15", "macOS": ">=12"}
    assert (found.versions["specification"], found.versions["kind"]) == ("6", "mlProgram")
    assert (found.told.description, found.told.author, found.told.licence) == ("Reads digits.", "Ann", "MIT")
    assert found.told.labels[:2] == ("digit 0", "digit 1")
    assert (found.told.training_dataset, found.told.metrics) == ("UCI", {"accuracy": 0.97})
    assert found.told.properties["model_version"] == "1.2"
    assert found.producer == "coremltools"
    assert found.notes == ()


def test_network_outline_counts_weights_in_its_layers_when_read(tmp_path: Path) -> None:
    """Activations go by the function they apply."""
    found = outlined(nets.save_coreml(tmp_path, kind="neuralnetwork") / "model.mlmodel")
    assert {"convolution", "ReLU", "pooling", "innerProduct"} <= found.operators.keys()
    assert found.parameter_count == nets.PARAMETERS
    assert found.told.labels[-1] == "digit 9"
    assert found.versions["kind"] == "neuralNetworkClassifier"


@pytest.mark.parametrize(
    ("make", "name", "parameters"),
    [
        (coreml_models.save_network, "model.mlmodel", 0),
        # coremltools adds a bias of zeros.
        (coreml_models.save_package, "model.mlpackage", 192 + 64),
    ],
)
def test_outline_is_whole_when_nobody_told_anything(
    make: object, name: str, parameters: int, tmp_path: Path
) -> None:
    assert callable(make)
    found = outlined(make(tmp_path) / name)
    assert found.layer_count == 1
    assert found.parameter_count == parameters
    assert found.told.author is None
    assert found.notes == ()
