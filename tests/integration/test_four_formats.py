"""One digit classifier in four formats, five ways of logging it: the same numbers through serving."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from serving.core.model import Format
from tests.digits_formats import RECIPES
from tests.formats_report import Array, lines, pairs
from tests.integration.conftest import StartServing
from tests.mlflow_registry import MlflowRegistry, RegisteredModel, logged_by
from tests.mlflow_server import MlflowServer
from tests.serving_process import ServingProcess

pytestmark = [pytest.mark.integration, pytest.mark.slow]

# Sums of single precision in another order; logits of this network reach about 10.
TOLERANCE = 1e-5
PLATFORMS = {
    "digits onnx": ("onnx_onnxv1", Format.ONNX),
    "digits script": ("pytorch_torchscript", Format.TORCHSCRIPT),
    "digits pt2": ("pytorch_pt2", Format.PT2),
    "digits eager": ("pytorch_pt2", Format.PT2),
    "digits coreml": ("coreml_mlprogram", Format.COREML),
}


def alias_of(recipe: str) -> str:
    return recipe.removeprefix("digits ")


def is_served(serving: ServingProcess, path: str) -> bool:
    return serving.call("GET", path).status_code == 200


def answers(serving: ServingProcess, model: RegisteredModel, alias: str, images: Array) -> Array:
    """The logits that the version under `alias` answers to all images in one request."""
    tensor = {
        "name": "image",
        "datatype": "FP32",
        "shape": list(images.shape),
        "data": images.ravel().tolist(),
    }
    path = f"/v2/models/{model.name}/versions/{alias}/infer"
    response = serving.call("POST", path, json={"inputs": [tensor]})
    assert response.status_code == 200, response.text
    [output] = response.json()["outputs"]
    return np.array(output["data"], np.float32).reshape(output["shape"])


def test_formats_answer_the_same_when_they_hold_the_same_network(
    mlflow_server: MlflowServer,
    start_serving: StartServing,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Every pair, and each beside what torch itself answered when the network was trained."""
    mlflow_server.start()
    recorded = tmp_path / "answers.npz"
    registry = MlflowRegistry(
        mlflow_server, logged_by("tests.digits_formats", mlflow_server.url, str(recorded))
    )
    model = registry.model(*RECIPES, prefix="digits-formats")
    model.point("1")
    for number, recipe in enumerate(RECIPES, start=1):
        model.point(str(number), alias_of(recipe))
    serving = start_serving(model.name)
    for number, recipe in enumerate(RECIPES, start=1):
        path = f"/v2/models/{model.name}/versions/{alias_of(recipe)}"
        serving.wait(partial(is_served, serving, path), f"{recipe} is served")
        assert serving.get(path)["platform"] == PLATFORMS[recipe][0]
        assert str(number) in serving.get(path)["versions"]

    with np.load(recorded) as stored:
        images, logits = stored["images"], stored["logits"]
    found = {"torch itself": logits}
    found |= {alias_of(recipe): answers(serving, model, alias_of(recipe), images) for recipe in RECIPES}
    measured = pairs(found)
    with capsys.disabled():
        print("", *lines(measured, len(images)), sep="\n")
    assert len(measured) == 15
    assert max(pair.difference for pair in measured) < TOLERANCE
    versions = {entry["version"]: entry["format"] for entry in serving.model(model.name)["versions"]}
    assert versions == {str(number): PLATFORMS[recipe][1] for number, recipe in enumerate(RECIPES, start=1)}
    serving.assert_nothing_lost()
