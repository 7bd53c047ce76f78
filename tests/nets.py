"""One small convolutional classifier, saved in each format; for tests that compare formats.

FP32 (batch, 1, 8, 8) to (batch, 10); 690 weights. Nothing is trained.
"""

import linecache
import logging
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch

PARAMETERS = 4 * 9 + 4 + 64 * 10 + 10


class SmallNet(torch.nn.Module):
    """A convolution, a pool and a linear head; dropout only while training."""

    def __init__(self) -> None:
        super().__init__()
        self.stroke = torch.nn.Conv2d(1, 4, 3, padding=1)
        self.body = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.MaxPool2d(2))
        self.head = torch.nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            x = torch.dropout(x, 0.5, True)
        answer: torch.Tensor = self.head(self.body(self.stroke(x)).flatten(1))
        return answer


def net() -> SmallNet:
    torch.manual_seed(7)
    return SmallNet().eval()


def save_script(folder: Path, extra: Mapping[str, str] | None = None, *, freeze: bool = False) -> Path:
    """As `model.pt`, with extra files."""
    folder.mkdir(parents=True, exist_ok=True)
    linecache.checkcache()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        module = torch.jit.script(net())
        if freeze:
            module = torch.jit.freeze(module, optimize_numerics=False)
        module.save(str(folder / "model.pt"), _extra_files=dict(extra or {}))  # type: ignore[no-untyped-call]
    return folder


def save_export(folder: Path, extra: Mapping[str, str] | None = None) -> Path:
    """As `model.pt2`, with extra files; the first axis is free."""
    folder.mkdir(parents=True, exist_ok=True)
    shapes = {"x": {0: torch.export.Dim("batch")}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(net(), (torch.zeros(2, 1, 8, 8),), dynamic_shapes=shapes)
        torch.export.save(program, folder / "model.pt2", extra_files=dict(extra or {}))
    return folder


def save_coreml(folder: Path, *, kind: str, metadata: Mapping[str, str] | None = None) -> Path:
    """As `model.mlpackage` (kind `mlprogram`) or `model.mlmodel` (`neuralnetwork`), a classifier of ten."""
    logging.getLogger("coremltools").setLevel(logging.CRITICAL)
    folder.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import coremltools as ct

        traced = torch.jit.trace(net(), torch.zeros(1, 1, 8, 8))  # type: ignore[no-untyped-call]
        target = ct.target.iOS15 if kind == "mlprogram" else None
        free = ct.RangeDim(1, 16) if kind == "mlprogram" else 1
        model = ct.convert(
            traced,
            inputs=[ct.TensorType(name="x", shape=(free, 1, 8, 8))],
            convert_to=kind,
            minimum_deployment_target=target,
            classifier_config=ct.ClassifierConfig([f"digit {n}" for n in range(10)]),
        )
        model.short_description, model.author, model.license = "Reads digits.", "Ann", "MIT"
        model.version = "1.2"
        model.user_defined_metadata.update(metadata or {})
        model.save(str(folder / ("model.mlpackage" if kind == "mlprogram" else "model.mlmodel")))
    return folder
