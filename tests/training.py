"""Logs tiny models to MLflow with its own plain calls, as a training script would; run as a program.

    python -m tests.training http://127.0.0.1:5000 onnx:1 torch:2 sklearn

In a process of its own, so that tests need not import MLflow. Prints one JSON line per model.
`onnx:C`, `torch:C`, `pt2:C` and `coreml:C` answer x + C; `echo:T` answers x of ONNX's element type T.
"""

import json
import sys
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests import coreml_models, torch_exports
from tests.foreign import log_folder
from tests.models import (
    onnx_adder,
    onnx_echo,
    onnx_net,
    onnx_raises_on_negative,
    onnx_wrong_shape,
    save_torch_script,
)

_ANSWERING = ("onnx", "torch", "pt2", "coreml", "slow", "raises")
_SLOW_STEPS = 40_000  # about 60 ms


@dataclass(frozen=True, slots=True)
class LoggedModel:
    """A model in MLflow that no registered model names yet."""

    recipe: str
    uri: str
    model_id: str
    run_id: str

    @property
    def constant(self) -> float | None:
        """What it adds to its input, where it answers at all."""
        kind, _, constant = self.recipe.partition(":")
        return float(constant or 0.0) if kind in _ANSWERING else None


def _from_file(make: Callable[[Path], Path]) -> Any:
    import onnx

    with TemporaryDirectory() as folder:
        return onnx.load(make(Path(folder)) / "model.onnx")


def _log_onnx(make: Callable[[Path], Path]) -> Any:
    import mlflow.onnx

    return mlflow.onnx.log_model(_from_file(make), name="model", pip_requirements=["onnxruntime"])


def _log_net(channels: int) -> Any:
    """With a signature, as MLflow's own examples do."""
    import mlflow.onnx
    import numpy as np
    from mlflow.models import infer_signature

    x, y = np.zeros((1, 1, 8, 8), np.float32), np.zeros((1, 10), np.float32)
    return mlflow.onnx.log_model(
        _from_file(lambda folder: onnx_net(folder, channels)),
        name="model",
        signature=infer_signature({"x": x}, {"y": y}),
        pip_requirements=["onnxruntime"],
    )


def _log_torch(body: str) -> Any:
    import mlflow.pytorch
    import torch

    with TemporaryDirectory() as folder:
        file = (
            save_torch_script(Path(folder), f"def forward(self, x: Tensor) -> Tensor:\n{body}\n") / "model.pt"
        )
        module = torch.jit.load(file)  # type: ignore[no-untyped-call]
    return mlflow.pytorch.log_model(
        module, name="model", serialization_format="pickle", pip_requirements=["torch"]
    )


def _log_eager_torch() -> Any:
    import mlflow.pytorch
    import torch

    return mlflow.pytorch.log_model(
        torch.nn.Linear(3, 3), name="model", serialization_format="pickle", pip_requirements=["torch"]
    )


def _log_pt2(constant: float) -> Any:
    """An eager model, which MLflow exports by default; two rows in the example leave the batch free."""
    import mlflow.pytorch
    import numpy as np

    rows = np.ones((2, 3), np.float32)
    return mlflow.pytorch.log_model(
        torch_exports.adder(constant), name="model", input_example=rows, pip_requirements=["torch"]
    )


def _log_coreml(constant: float) -> Any:
    with TemporaryDirectory() as folder:
        root = coreml_models.translated(lambda inner: onnx_adder(inner, constant))(Path(folder))
        return log_folder(root, "coreml", data="model.mlmodel", translation=coreml_models.TRANSLATION)


def _log_sklearn() -> Any:
    import mlflow.sklearn
    from sklearn.linear_model import LinearRegression

    return mlflow.sklearn.log_model(
        LinearRegression().fit([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]], [0.0, 1.0]),
        name="model",
        serialization_format="cloudpickle",
        pip_requirements=["scikit-learn"],
    )


def _log(recipe: str) -> LoggedModel:
    import mlflow

    kind, _, constant = recipe.partition(":")
    slow = f"    y = x\n    for _ in range({_SLOW_STEPS}):\n        y = y + 0.0\n    return y + {constant}"
    recipes: dict[str, Callable[[], Any]] = {
        "onnx": lambda: _log_onnx(lambda folder: onnx_adder(folder, float(constant))),
        "echo": lambda: _log_onnx(lambda folder: onnx_echo(folder, int(constant))),
        "net": lambda: _log_net(int(constant)),
        "torch": lambda: _log_torch(f"    return x + {constant}"),
        "pt2": lambda: _log_pt2(float(constant)),
        "coreml": lambda: _log_coreml(float(constant)),
        "slow": lambda: _log_torch(slow),
        "raises": lambda: _log_onnx(onnx_raises_on_negative),
        "wrong_shape": lambda: _log_onnx(onnx_wrong_shape),
        "eager": _log_eager_torch,
        "sklearn": _log_sklearn,
    }
    with mlflow.start_run() as run:
        told = recipes[kind]()
    return LoggedModel(recipe, told.model_uri, told.model_id, run.info.run_id)


def main() -> None:
    import mlflow

    tracking_url, *recipes = sys.argv[1:]
    warnings.simplefilter("ignore")
    mlflow.set_tracking_uri(tracking_url)
    for recipe in recipes:
        print("logged " + json.dumps(asdict(_log(recipe))), flush=True)


if __name__ == "__main__":
    main()
