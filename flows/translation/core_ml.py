"""Translating a Core ML file to one ONNX file that computes the same."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Translation:
    """What was translated; `notes` are sentences for a report.

    `operators` counts Core ML operator (or layer) types; `precision` is that of the program's own
    arithmetic, "fp32" or "fp16"; `inputs` and `outputs` are names in declared order.
    """

    operators: Mapping[str, int]
    opset: int
    precision: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    notes: tuple[str, ...]


def translate(source: Path, target: Path) -> Translation:
    """Write `source` (.mlpackage folder or .mlmodel file) as ONNX at `target`. Raises TranslationRefused."""
    raise NotImplementedError
