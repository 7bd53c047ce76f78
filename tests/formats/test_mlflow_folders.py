"""Folders as MLflow itself writes them: each is recognised, or refused by name."""

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from serving.core.errors import ArtifactRefused
from serving.core.model import Format, TensorSpec
from serving.formats.artifact import inspect_artifact
from serving.formats.loader import load
from serving.formats.selftest import Basis, Verdict, self_test
from tests import models

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore")]

EXAMPLE = np.array([[1.0, 2.0, 3.0]], dtype=np.float32)


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One really saved model per way of logging."""
    root = tmp_path_factory.mktemp("mlflow")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, save in _savers(root).items():
            save(path=root / name, pip_requirements=[])  # else each save starts a process to infer them
    return {path.name: path for path in root.iterdir()}


def _savers(root: Path) -> dict[str, Callable[..., Any]]:
    import mlflow.onnx
    import mlflow.pyfunc
    import mlflow.pytorch
    import mlflow.sklearn
    from mlflow.models import infer_signature
    from sklearn.linear_model import LogisticRegression

    small = onnx.load(models.onnx_adder(root / "plain") / "model.onnx")
    eager = torch.nn.Linear(3, 2)
    script = torch.jit.script(eager)
    sklearn = LogisticRegression().fit([[0.0], [1.0]], [0, 1])
    named = infer_signature({"x": EXAMPLE}, {"y": EXAMPLE})
    described = {"signature": infer_signature(EXAMPLE, EXAMPLE[:, :2]), "input_example": EXAMPLE}
    pickled = {"serialization_format": "pickle"}
    to_onnx, to_torch = mlflow.onnx.save_model, mlflow.pytorch.save_model
    return {
        "onnx": partial(to_onnx, small),
        "onnx named": partial(to_onnx, small, signature=named, input_example={"x": EXAMPLE}),
        "onnx unnamed": partial(to_onnx, small, input_example=EXAMPLE),
        "onnx external": partial(to_onnx, _with_large_weight()),
        "script": partial(to_torch, script, **pickled),
        "script described": partial(to_torch, script, **pickled, **described),
        "eager pt2": partial(to_torch, eager, input_example=EXAMPLE),
        "eager pickle": partial(to_torch, eager, **pickled),
        "sklearn": partial(mlflow.sklearn.save_model, sklearn),
        "pyfunc": partial(mlflow.pyfunc.save_model, loader_module="json", data_path=str(root / "plain")),
    }


def _with_large_weight() -> onnx.ModelProto:
    """Large enough that MLflow moves it to a file with a random name."""
    weight = onnx.numpy_helper.from_array(np.full(1000, 2, np.float32), "constant")
    node = onnx.helper.make_node("Add", ["x", "constant"], ["y"])
    dims = ("batch", 1000)
    return models.onnx_graph([node], x=dims, y=dims, weights=[weight])


@pytest.mark.parametrize(
    ("name", "basis"),
    [
        ("onnx", Basis.ZEROS),
        ("onnx named", Basis.EXAMPLE),
        ("onnx unnamed", Basis.EXAMPLE),
        ("onnx external", Basis.ZEROS),
        ("script described", Basis.EXAMPLE),
        ("eager pt2", Basis.EXAMPLE),
    ],
)
def test_logged_model_loads_and_passes_when_it_is_servable(
    folders: dict[str, Path], name: str, basis: Basis
) -> None:
    """As an ordinary training script logs it, without anything of ours."""
    artifact = inspect_artifact(folders[name])
    result = self_test(load(artifact, threads=1), artifact)
    assert (result.verdict, result.basis) == (Verdict.PASSED, basis)
    assert artifact.metadata["mlflow_version"]


def test_logged_script_is_served_when_nothing_describes_it(folders: dict[str, Path]) -> None:
    """Unknown shapes, not measured, answering all the same."""
    artifact = inspect_artifact(folders["script"])
    model = load(artifact, threads=1)
    assert artifact.format is Format.TORCHSCRIPT
    assert model.inputs == (TensorSpec("input", "FP32", None),)
    assert self_test(model, artifact).verdict is Verdict.NOT_MEASURED
    assert model.predict({"input": EXAMPLE})["OUTPUT__0"].shape == (1, 2)


def test_logged_script_has_the_signature_s_shapes_when_it_has_one(folders: dict[str, Path]) -> None:
    """Unnamed tensors are matched by position."""
    model = load(inspect_artifact(folders["script described"]), threads=1)
    assert model.inputs == (TensorSpec("input", "FP32", (-1, 3)),)
    assert model.outputs == (TensorSpec("OUTPUT__0", "FP32", (-1, 2)),)


def test_logged_eager_model_has_the_program_s_shapes_when_mlflow_exported_it(
    folders: dict[str, Path],
) -> None:
    """MLflow's default for eager models; it fixes the batch of an example of one row."""
    artifact = inspect_artifact(folders["eager pt2"])
    model = load(artifact, threads=1)
    assert (artifact.format, model.platform) == (Format.PT2, "pytorch_pt2")
    assert model.inputs == (TensorSpec("input", "FP32", (1, 3)),)
    assert model.outputs == (TensorSpec("OUTPUT__0", "FP32", (1, 2)),)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("eager pickle", "pickled eager PyTorch model"),
        ("sklearn", "a sklearn model"),
        ("pyfunc", "a generic python_function model"),
    ],
)
def test_logged_model_is_refused_by_name_when_it_is_not_servable(
    folders: dict[str, Path], name: str, problem: str
) -> None:
    """With the way to ONNX in the same sentence."""
    with pytest.raises(ArtifactRefused) as caught:
        inspect_artifact(folders[name])
    assert problem in str(caught.value)
    assert "onnx" in caught.value.next_step.lower()
