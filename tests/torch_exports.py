"""Tiny real models written as torch.export archives; for every test that needs a `.pt2` file.

Each takes `x`, FP32 (batch, 3) with a free batch, and answers OUTPUT__0. Archives can be rewritten
record by record, as somebody with bad intentions would.
"""

import json
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

_ROWS = 4


class _Call(torch.nn.Module):
    """A module around one function of a tensor."""

    def __init__(self, function: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self._function = function

    def forward(self, x: torch.Tensor) -> Any:
        return self._function(x)


def save_export(folder: Path, module: torch.nn.Module, *examples: torch.Tensor, free: bool = True) -> Path:
    """Export with every first axis free, and save as `model.pt2`."""
    folder.mkdir(parents=True, exist_ok=True)
    batch = torch.export.Dim("batch")
    shapes = tuple({0: batch} for _ in examples) if free else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(module.eval(), examples, dynamic_shapes=shapes)
        torch.export.save(program, folder / "model.pt2")
    return folder


def adder(constant: float) -> torch.nn.Module:
    return _Call(lambda x: x + constant)


def export(folder: Path, function: Callable[[torch.Tensor], Any]) -> Path:
    return save_export(folder, _Call(function), torch.ones(_ROWS, 3))


def export_adder(folder: Path, constant: float = 1.0) -> Path:
    """`OUTPUT__0 = x + constant`."""
    return export(folder, lambda x: x + constant)


def export_linear(folder: Path) -> Path:
    """Has weights and a bias of its own."""
    return save_export(folder, torch.nn.Linear(3, 2), torch.ones(_ROWS, 3))


def export_raises_on_negative(folder: Path) -> Path:
    """Answers x, but any negative element makes a lookup run out of bounds; zeros pass."""
    return export(folder, lambda x: x + torch.zeros(1)[(x.min() < 0).long() * 7])


def export_nan(folder: Path) -> Path:
    return export(folder, lambda x: (x - 1).sqrt())


def rewritten(path: Path, records: Mapping[str, bytes | None]) -> Path:
    """The archive with records replaced, added or, where None, left out; names go without the top folder."""
    with zipfile.ZipFile(path) as archive:
        found = {name: archive.read(name) for name in archive.namelist()}
    top = next(iter(found)).partition("/")[0]
    changes = {f"{top}/{name}": content for name, content in records.items()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in (found | changes).items():
            if content is not None:
                archive.writestr(name, content)
    return path


def text(path: Path, name: str) -> str:
    """One record of an archive, by its name without the top folder."""
    with zipfile.ZipFile(path) as archive:
        top = archive.namelist()[0].partition("/")[0]
        return archive.read(f"{top}/{name}").decode()


def record(path: Path, name: str) -> Any:
    return json.loads(text(path, name))
