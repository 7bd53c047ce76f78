"""Tiny real Core ML models, made with coremltools; for every test that needs a `.mlmodel` or `.mlpackage`."""

import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests import models

TRANSLATION = "translation.onnx"


def _coremltools() -> Any:
    """The library, without its complaints about parts that only macOS has."""
    logging.getLogger("coremltools").setLevel(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import coremltools
    return coremltools


def save_network(folder: Path, width: int = 3) -> Path:
    """A neural network of one layer that adds 1, saved as `model.mlmodel`."""
    ct = _coremltools()
    folder.mkdir(parents=True, exist_ok=True)
    datatypes = ct.models.datatypes
    features = [("x", datatypes.Array(width))], [("y", datatypes.Array(width))]
    builder = ct.models.neural_network.NeuralNetworkBuilder(*features)
    builder.add_elementwise("add", ["x"], "y", "ADD", alpha=1.0)
    ct.models.utils.save_spec(builder.spec, str(folder / "model.mlmodel"))
    return folder


def save_package(folder: Path, rows: int = 2) -> Path:
    """An ML program that multiplies by a stored matrix, saved as `model.mlpackage`."""
    ct = _coremltools()
    from coremltools.converters.mil import Builder

    folder.mkdir(parents=True, exist_ok=True)
    weight = np.arange(3 * 64, dtype=np.float32).reshape(64, 3)

    @Builder.program(input_specs=[Builder.TensorSpec(shape=(rows, 3))], opset_version=ct.target.iOS16)  # type: ignore[untyped-decorator]
    def program(x: Any) -> Any:
        return Builder.linear(x=x, weight=weight, name="y")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = ct.convert(
            program, minimum_deployment_target=ct.target.iOS16, compute_precision=ct.precision.FLOAT32
        )
        made.save(str(folder / "model.mlpackage"))
    return folder


def translated(make: Callable[[Path], Path]) -> Callable[[Path], Path]:
    """A registered Core ML version: the original network, and the given ONNX model as its translation."""

    def fill(folder: Path) -> Path:
        save_network(folder)
        (make(folder / "made") / "model.onnx").rename(folder / TRANSLATION)
        (folder / "made").rmdir()
        return models.describe(folder, flavor="coreml")

    return fill
