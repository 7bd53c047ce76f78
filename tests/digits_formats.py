"""Logs one digit classifier to MLflow in every format, as five teams would; run as a program.

    python -m tests.digits_formats http://127.0.0.1:5000 answers.npz

The numbers that the network itself answers to the test scans go to the file. Prints one JSON line
per model.
"""

import json
import sys
import warnings
from collections.abc import Callable
from dataclasses import asdict
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from tests.foreign import log_folder
from tests.training import LoggedModel

TRAIN = Path(__file__).parents[1] / "examples" / "digits" / "train.py"
RECIPES = ("digits onnx", "digits script", "digits pt2", "digits eager", "digits coreml")
_EPOCHS = 2
_ROWS = 2


def _example() -> Any:
    """The example's training program, which is no package."""
    spec = spec_from_file_location("digits_example", TRAIN)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    # What the program imports lies beside it.
    sys.path.insert(0, str(TRAIN.parent))
    spec.loader.exec_module(module)
    return module


def _log_onnx(example: Any, net: Any, rows: Any) -> Any:
    import mlflow.onnx

    return mlflow.onnx.log_model(example.to_onnx(net), name="model", pip_requirements=["onnxruntime"])


def _log_script(example: Any, net: Any, rows: Any) -> Any:
    import mlflow.pytorch

    return mlflow.pytorch.log_model(
        example.to_torchscript(net),
        name="model",
        input_example=rows,
        serialization_format="pickle",
        pip_requirements=["torch"],
    )


def _log_eager(example: Any, net: Any, rows: Any) -> Any:
    """MLflow's default for an eager model is torch.export."""
    import mlflow.pytorch

    return mlflow.pytorch.log_model(net, name="model", input_example=rows, pip_requirements=["torch"])


def _log_pt2(example: Any, net: Any, rows: Any) -> Any:
    import torch

    with TemporaryDirectory() as folder:
        free = ({0: torch.export.Dim("batch")},)
        program = torch.export.export(net, (torch.from_numpy(rows),), dynamic_shapes=free)
        torch.export.save(program, Path(folder) / "model.pt2")
        return log_folder(Path(folder), "pt2", data="model.pt2")


def _log_coreml(example: Any, net: Any, rows: Any) -> Any:
    import coremltools as ct
    import torch

    from flows.translation.core_ml import translate

    batch = ct.RangeDim(lower_bound=1, upper_bound=512, default=_ROWS)
    with TemporaryDirectory() as folder:
        package = Path(folder) / "model.mlpackage"
        ct.convert(
            torch.jit.trace(net, torch.from_numpy(rows)),  # type: ignore[no-untyped-call]
            inputs=[ct.TensorType("image", shape=(batch, *rows.shape[1:]))],
            outputs=[ct.TensorType("logits")],
            minimum_deployment_target=ct.target.iOS16,
            compute_precision=ct.precision.FLOAT32,
        ).save(str(package))
        translate(package, Path(folder) / "translation.onnx")
        return log_folder(Path(folder), "coreml", data=package.name, translation="translation.onnx")


_LOGGERS: dict[str, Callable[[Any, Any, Any], Any]] = dict(
    zip(RECIPES, (_log_onnx, _log_script, _log_pt2, _log_eager, _log_coreml), strict=True)
)


def main() -> None:
    import mlflow
    import torch

    tracking_url, answers = sys.argv[1:]
    warnings.simplefilter("ignore")
    mlflow.set_tracking_uri(tracking_url)
    example = _example()
    digits = example.load()
    net = example.train(digits, _EPOCHS)
    with torch.inference_mode():
        logits = net(torch.from_numpy(digits.test_images)).numpy()
    np.savez(answers, images=digits.test_images, logits=logits)
    for recipe, log in _LOGGERS.items():
        with mlflow.start_run() as run:
            told = log(example, net, digits.test_images[:_ROWS])
        made = LoggedModel(recipe, told.model_uri, told.model_id, run.info.run_id)
        print("logged " + json.dumps(asdict(made)), flush=True)


if __name__ == "__main__":
    main()
