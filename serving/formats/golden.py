"""The golden set of a version: inputs and the outputs recorded when it was registered."""

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from serving.core.datatypes import DTYPES, Array, datatype_of
from serving.core.errors import ArtifactRefused

GOLDEN_FILE = "golden.npz"
_INPUT = "input:"
_OUTPUT = "output:"


@dataclass(frozen=True, slots=True)
class Golden:
    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]


def read_golden(root: Path) -> Golden | None:
    """The folder's golden set, None where there is none.

    Text is stored as fixed-width unicode, because object arrays would need a pickle.
    Raises ArtifactRefused if the file is damaged: a check that was asked for must not vanish.
    """
    path = root / GOLDEN_FILE
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = {key: _plain(stored[key]) for key in stored.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, AttributeError, TypeError):
        raise _damaged("is damaged or is no .npz file") from None
    inputs = {key.removeprefix(_INPUT): array for key, array in arrays.items() if key.startswith(_INPUT)}
    outputs = {key.removeprefix(_OUTPUT): array for key, array in arrays.items() if key.startswith(_OUTPUT)}
    if not inputs or not outputs or len(inputs) + len(outputs) != len(arrays):
        raise _damaged("must hold 'input:<name>' and 'output:<name>' arrays only")
    return Golden(inputs, outputs)


def write_golden(root: Path, golden: Golden) -> Path:
    """Store a golden set beside a model; BF16 is stored as FP32, which holds it exactly."""
    arrays = {f"{_INPUT}{name}": _storable(array) for name, array in golden.inputs.items()}
    arrays |= {f"{_OUTPUT}{name}": _storable(array) for name, array in golden.outputs.items()}
    path = root / GOLDEN_FILE
    with path.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
    return path


def _plain(array: Array) -> Array:
    return array.astype(np.object_) if array.dtype.kind == "U" else array


def _storable(array: Array) -> Array:
    if array.dtype == DTYPES["BF16"]:
        return array.astype(np.float32)
    if datatype_of(array.dtype) == "BYTES":
        return np.array(array.tolist(), dtype=np.str_)
    return array


def _damaged(problem: str) -> ArtifactRefused:
    return ArtifactRefused(f"'{GOLDEN_FILE}' {problem}", next_step="record the golden set again")
