"""MLflow's pyfunc loads versions of our flavours, with every check, from whatever a caller hands over."""

import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from serving.core.errors import ArtifactRefused, InvalidRequest
from serving.formats.pyfunc import _load_pyfunc
from tests import coreml_models, models, torch_exports

ROOT = Path(__file__).parents[2]
ROWS = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
FOLDERS: dict[str, Callable[[Path], Path]] = {
    "pt2": lambda folder: models.describe(torch_exports.export_adder(folder), flavor="pt2"),
    "coreml": coreml_models.translated(models.onnx_adder),
    "onnx": lambda folder: models.describe(models.onnx_adder(folder), flavor="onnx"),
    "torchscript": lambda folder: models.describe(models.torch_adder(folder)),
}


@pytest.mark.parametrize("flavor", FOLDERS)
def test_pyfunc_answers_when_loaded_from_a_version_s_folder(flavor: str, tmp_path: Path) -> None:
    """Every format that is served."""
    [answer] = _load_pyfunc(str(FOLDERS[flavor](tmp_path))).predict(np.array(ROWS)).values()
    np.testing.assert_array_equal(answer, np.array(ROWS) + 1)
    assert answer.dtype == np.float32


@pytest.mark.parametrize(
    "data",
    [
        np.array(ROWS),
        ROWS,
        {"x": np.array(ROWS, np.float32)},
        {"x": ROWS},
        pd.DataFrame(ROWS, columns=["a", "b", "c"]),
        pd.DataFrame({"x": ROWS}),
    ],
    ids=["array", "lists", "dict", "dict of lists", "data frame", "data frame of rows"],
)
def test_pyfunc_takes_it_when_it_fits(data: Any, tmp_path: Path) -> None:
    """Types are converted to the model's own."""
    model = _load_pyfunc(str(FOLDERS["pt2"](tmp_path)))
    np.testing.assert_array_equal(model.predict(data, params=None)["OUTPUT__0"], np.array(ROWS) + 1)


class Two(torch.nn.Module):
    """Takes a matrix and one number per row."""

    def forward(self, x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return x * scale[:, None]


def test_pyfunc_takes_columns_by_name_when_there_are_several_inputs(tmp_path: Path) -> None:
    """A column of numbers, and a column of rows."""
    models.describe(torch_exports.save_export(tmp_path, Two(), torch.ones(2, 3), torch.ones(2)), flavor="pt2")
    model = _load_pyfunc(str(tmp_path))
    answer = model.predict(pd.DataFrame({"scale": [2.0, 3.0], "x": ROWS}))["OUTPUT__0"]
    assert answer.tolist() == [[2.0, 4.0, 6.0], [12.0, 15.0, 18.0]]
    with pytest.raises(InvalidRequest, match="give them by name"):
        model.predict(np.array(ROWS))


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ({"y": ROWS}, r"takes \['x'\], and \['y'\] were given"),
        (np.ones((2, 4)), r"shape \[2, 4\], and the model takes \[-1, 3\]"),
        ([["a", "b", "c"]], "no array of FP32"),
        ([[1.0], [1.0, 2.0]], "no array of FP32"),
    ],
)
def test_pyfunc_refuses_when_it_does_not_fit(data: Any, problem: str, tmp_path: Path) -> None:
    """In the words a request would be refused with."""
    with pytest.raises(InvalidRequest, match=problem):
        _load_pyfunc(str(FOLDERS["pt2"](tmp_path))).predict(data)


def test_pyfunc_refuses_when_the_folder_would_be_refused_by_the_server(tmp_path: Path) -> None:
    """No way around the checks."""
    (tmp_path / "model.pkl").write_bytes(b"\x80\x04N.")
    with pytest.raises(ArtifactRefused, match="is a pickle"):
        _load_pyfunc(str(tmp_path))


def test_pyfunc_needs_neither_pandas_nor_mlflow_when_imported() -> None:
    """It is imported wherever a version is loaded."""
    program = "import sys, serving.formats.pyfunc; print(*{'pandas', 'mlflow', 'torch'} & set(sys.modules))"
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert run.stdout.split() == []


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("flavor", ["pt2", "coreml"])
def test_mlflow_loads_it_when_its_loader_is_named(flavor: str, tmp_path: Path) -> None:
    """A folder described with MLflow's own classes, loaded with `mlflow.pyfunc.load_model`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow.pyfunc
        from mlflow.models import Model

        folder = FOLDERS[flavor](tmp_path)
        model = Model()
        mlflow.pyfunc.add_to_model(model, loader_module="serving.formats.pyfunc")
        model.add_flavor(flavor, **_flavor(folder, flavor))
        model.save(folder / "MLmodel")
        answer = mlflow.pyfunc.load_model(str(folder)).predict(np.array(ROWS, np.float32))
    np.testing.assert_array_equal(next(iter(answer.values())), np.array(ROWS) + 1)


def _flavor(folder: Path, flavor: str) -> dict[str, str]:
    import yaml

    content: dict[str, str] = yaml.safe_load((folder / "MLmodel").read_text())["flavors"][flavor]
    return content
