"""A torch model, its Core ML layer network and that network's ONNX translation, on the same inputs.

The measure is the one of `parity`, for full precision: networks compute in no precision of their own.
"""

from collections import Counter
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from flows.translation.core_ml import Translation, translate
from serving.core.datatypes import Array
from tests.flows.translation.network_cases import NETWORK_CASES
from tests.flows.translation.network_models import run
from tests.flows.translation.parity import Case, Measured, answers, differs, quiet

_SEED = 17


def converted(case: Case, **options: Any) -> tuple[nn.Module, Any]:
    """The torch model and its layer network, inputs named x0, x1, ..., all float32."""
    with quiet():
        import coremltools as ct

        torch.manual_seed(_SEED)
        module = case.build().eval()
        traced = torch.jit.trace(module, case.inputs, check_trace=False)  # type: ignore[no-untyped-call]
        described = [
            ct.TensorType(name=f"x{at}", shape=case.shapes.get(at, tuple(one.shape)))
            for at, one in enumerate(case.inputs)
        ]
        given = {"inputs": described, **options}
        return module, ct.convert(traced, convert_to="neuralnetwork", **given)


def translated(model: Any, folder: Path) -> tuple[Translation, Path]:
    """Save a model as .mlmodel, and translate the saved file."""
    source, target = folder / "model.mlmodel", folder / "model.onnx"
    with quiet():
        model.save(str(source))
    return translate(source, target), target


@cache
def measure(name: str) -> Measured:
    """Convert, translate and compare one case, once per process."""
    case = NETWORK_CASES[name]
    module, model = converted(case)
    with TemporaryDirectory() as folder:
        translation, target = translated(model, Path(folder))
        difference = max(_differs(module, target, inputs) for inputs in (case.inputs, *case.more))
    return Measured(name, case.family, "network", difference, Counter(translation.operators))


def _differs(module: nn.Module, target: Path, inputs: tuple[Tensor, ...]) -> float:
    """A network knows no scalar: torch's has shape (1,) here."""
    wanted = [one.reshape(1) if one.ndim == 0 else one for one in answers(module, inputs)]
    feeds: dict[str, Array] = {f"x{at}": one.float().numpy() for at, one in enumerate(inputs)}
    return differs(wanted, run(target, feeds), "fp32")
