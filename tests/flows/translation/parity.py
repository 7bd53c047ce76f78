"""A torch model, its Core ML program and that program's ONNX translation, run on the same inputs.

The measure is the largest difference between torch's answers and the translation's, divided by the
output's largest magnitude: for fp32 only where that exceeds 1 (so it is absolute on outputs of order
one, as the limit of 1e-5 is meant), for fp16 always (relative, limit 1e-2).
"""

import logging
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from flows.translation.core_ml import Translation, translate
from serving.core.datatypes import Array

LIMITS = {"fp32": 1e-5, "fp16": 1e-2}
_SEED = 7

Compress = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Case:
    """One generated model. `inputs` are example inputs; `more` are further ones of other shapes.

    `shapes` replaces an input's fixed shape in the conversion; `compress` changes the converted model
    without loss: its weights lie on the points that the compression keeps.
    """

    name: str
    family: str
    build: Callable[[], nn.Module]
    inputs: tuple[Tensor, ...]
    half: bool = True
    shapes: dict[int, Any] = field(default_factory=dict)
    more: tuple[tuple[Tensor, ...], ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    compress: Compress | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """`difference` is scaled as the module says; `operators` are those of the program."""

    name: str
    family: str
    precision: str
    difference: float
    operators: Counter[str]


@contextmanager
def quiet() -> Iterator[None]:
    """torch warns that tracing is old, coremltools that this torch is new: neither is about our code."""
    logger = logging.getLogger("coremltools")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def converted(case: Case, precision: str) -> tuple[nn.Module, Any]:
    """The torch model and its Core ML model, inputs named x0, x1, ..."""
    with quiet():
        import coremltools as ct

        torch.manual_seed(_SEED)
        module = case.build().eval()
        traced = torch.jit.trace(module, case.inputs, check_trace=False)  # type: ignore[no-untyped-call]
        described = [
            ct.TensorType(name=f"x{at}", shape=case.shapes.get(at, tuple(one.shape)), dtype=_dtype(one))
            for at, one in enumerate(case.inputs)
        ]
        width = ct.precision.FLOAT32 if precision == "fp32" else ct.precision.FLOAT16
        options = {"inputs": described, **case.options}
        model = ct.convert(traced, convert_to="mlprogram", compute_precision=width, **options)
        return module, case.compress(model) if case.compress else model


def translated(model: Any, folder: Path) -> tuple[Translation, onnxruntime.InferenceSession]:
    """Save a Core ML model, translate the saved file, and open the result."""
    source, target = folder / "model.mlpackage", folder / "model.onnx"
    with quiet():
        model.save(str(source))
    translation = translate(source, target)
    return translation, onnxruntime.InferenceSession(target, providers=["CPUExecutionProvider"])


@cache
def measure(case_name: str, precision: str) -> Measured:
    """Convert, translate and compare one case of the suite, once per process."""
    from tests.flows.translation.cases import CASES

    case = CASES[case_name]
    module, model = converted(case, precision)
    with TemporaryDirectory() as folder:
        translation, session = translated(model, Path(folder))
        difference = max(
            differs(answers(module, inputs), ran(session, inputs), precision)
            for inputs in (case.inputs, *case.more)
        )
    return Measured(case.name, case.family, precision, difference, Counter(translation.operators))


def answers(module: nn.Module, inputs: Sequence[Tensor]) -> list[Array]:
    with torch.no_grad():
        given = module(*inputs)
    return [one.numpy() for one in (given if isinstance(given, tuple | list) else [given])]


def ran(session: onnxruntime.InferenceSession, inputs: Sequence[Tensor]) -> list[Array]:
    feed = {f"x{at}": one.numpy().astype(_dtype(one)) for at, one in enumerate(inputs)}
    results: list[Array] = session.run(None, feed)
    return results


def differs(wanted: Sequence[Array], given: Sequence[Array], precision: str) -> float:
    """The largest scaled difference over all outputs; infinite where shapes or finiteness differ."""
    if [one.shape for one in wanted] != [one.shape for one in given]:
        return float("inf")
    return max(_scaled(left, right, precision) for left, right in zip(wanted, given, strict=True))


def _scaled(left: Array, right: Array, precision: str) -> float:
    left, right = left.astype(np.float64), right.astype(np.float64)
    if not np.array_equal(np.isfinite(left), np.isfinite(right)):
        return float("inf")
    finite = np.isfinite(left)
    if not finite.any():
        return 0.0
    magnitude = float(np.abs(left[finite]).max())
    scale = max(1.0, magnitude) if precision == "fp32" else magnitude or 1.0
    return float(np.abs(left[finite] - right[finite]).max()) / scale


def _dtype(tensor: Tensor) -> Any:
    return np.float32 if tensor.is_floating_point() else np.int32
