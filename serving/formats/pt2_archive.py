"""The records of a torch.export archive (`.pt2`), read without torch's own loader.

`torch.export.load` unpickles weights, constants and sample inputs, and loads compiled libraries.
Here every record must be one of a few known kinds: the program (checked as data), weights as raw
bytes, or tensors that torch's restricted unpickler accepts. Called by the adapter.
"""

import io
import json
import math
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
import torch.ao.quantization.fx._decomposed  # registers the operators that quantised programs name
from torch._export.serde.schema import SCHEMA_VERSION
from torch._export.serde.serialize import _SERIALIZE_TO_TORCH_DTYPE

from serving.core.errors import ArtifactRefused
from serving.formats.archive import archive_problem, check_archive
from serving.formats.exported_graph import operators, safe_program
from serving.formats.limits import DEFAULT_LIMITS, FileLimits

EXPORT_AGAIN = "export the model again with torch.export.save and log it again"
_ARCHIVE_VERSION = "0"
_MAX_JSON_BYTES = 256 << 20
_TENSOR = re.compile(r"(weight|tensor)_\d+")
_MODEL = re.compile(r"models/(?P<name>[^/]+)\.json")
_RECORDS = re.compile(
    r"archive_format|archive_version|byteorder|version|\.data/(version|serialization_id)"
    r"|\.format_version|\.storage_alignment"
    r"|models/[^/]+\.json|data/sample_inputs/[^/]+\.pt|extra/.+"
    r"|data/(weights|constants)/([^/]+_config\.json|[^/]+\.pt|(weight|tensor)_\d+)"
)
_OVERLOADS = (torch._ops.OpOverload, torch._ops.HigherOrderOperator)

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Export:
    """A checked archive. `program` is the JSON that torch may build a model from."""

    program: Mapping[str, Any]
    weights: Tensors
    constants: Tensors


def read_export(path: Path, limits: FileLimits = DEFAULT_LIMITS) -> Export:
    """Everything in the archive. Raises ArtifactRefused for what is damaged, unsafe or of another version."""
    check_archive(path, limits, EXPORT_AGAIN)
    with zipfile.ZipFile(path) as archive:
        old = any(name.startswith("serialized_") for name in archive.namelist())
    if old:
        problem = f"'{path.name}' has the layout of torch 2.7 or older, which stores pickles"
        raise ArtifactRefused(problem, next_step=EXPORT_AGAIN)
    records = _Records(path, limits)
    records.check_kinds()
    model = records.model_name()
    program = safe_program(records.json(f"models/{model}.json"), path.name, SCHEMA_VERSION[0])
    _check_operators(program, path.name)
    records.plain_objects(f"data/sample_inputs/{model}.pt")  # not needed, but read by others' loaders
    return Export(program, records.tensors("weights", model), records.tensors("constants", model))


class _Records:
    """One archive, through the very reader that torch's loader uses."""

    def __init__(self, path: Path, limits: FileLimits) -> None:
        self._name = path.name
        self._limits = limits
        try:
            self._reader = torch._C.PyTorchFileReader(str(path))
            self._names = list(self._reader.get_all_records())
        except RuntimeError as error:
            raise ArtifactRefused(f"'{path.name}' is a damaged archive", next_step=EXPORT_AGAIN) from error

    def check_kinds(self) -> None:
        """Only records that torch.export.save writes, none of which carries code."""
        for name in self._names:
            if name.startswith("data/aotinductor/") or name.endswith((".so", ".cubin")):
                problem = f"holds a compiled AOTInductor library ('{name}'), which is native code"
                self._refuse(problem, "save the exported program itself with torch.export.save")
            if name.startswith(("data/constants/custom_obj_", "data/constants/opaque_obj_")):
                self._refuse(f"holds a pickled object ('{name}'), which runs stored code when loaded")
            if _RECORDS.fullmatch(name) is None:
                self._refuse(f"holds '{name}', which torch.export.save does not write")
        if self._text("archive_format") != "pt2":
            self._refuse("is no torch.export archive")
        version = self._text("archive_version")
        if version != _ARCHIVE_VERSION:
            self._refuse(f"has archive version {version}, and {_ARCHIVE_VERSION} is the one read here")

    def model_name(self) -> str:
        names = [found["name"] for found in map(_MODEL.fullmatch, self._names) if found is not None]
        if len(names) != 1:
            self._refuse(f"holds {len(names)} models, and a version is one")
        return names[0]

    def json(self, name: str) -> Any:
        content = self._bytes(name)
        try:
            if len(content) > _MAX_JSON_BYTES:
                raise ValueError("too large")
            return json.loads(content)
        except (ValueError, RecursionError):
            self._refuse(f"is damaged: '{name}' is not readable JSON")

    def tensors(self, kind: str, model: str) -> dict[str, torch.Tensor]:
        """Weights or constants by name; those that share a record share memory."""
        legacy = f"data/{kind}/{model}.pt"
        if legacy in self._names:
            return self._legacy_tensors(legacy)
        config = self.json(f"data/{kind}/{model}_{kind}_config.json")
        entries = config.get("config") if isinstance(config, dict) else None
        if not isinstance(entries, dict):
            self._refuse(f"is damaged: its list of {kind} is unreadable")
        flat: dict[str, torch.Tensor] = {}
        return {str(name): self._tensor(kind, str(name), entry, flat) for name, entry in entries.items()}

    def plain_objects(self, name: str) -> Any:
        """What a record saved by torch.save holds, if that is tensors and plain containers; else refused."""
        content = self._bytes(name) if name in self._names else b""
        if not content:
            return None
        problem = archive_problem(io.BytesIO(content), len(content), self._limits)
        if problem is not None:
            self._refuse(f"holds '{name}', which {problem}")
        try:
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        except Exception:  # the restricted unpickler raises whatever the stream provokes
            self._refuse(
                f"holds a pickle ('{name}') of more than tensors, which runs stored code when loaded"
            )

    def _legacy_tensors(self, name: str) -> dict[str, torch.Tensor]:
        found = self.plain_objects(name) or {}
        if not isinstance(found, dict) or not all(isinstance(item, torch.Tensor) for item in found.values()):
            self._refuse(f"holds something other than tensors in '{name}'")
        return found

    def _tensor(self, kind: str, name: str, entry: Any, flat: dict[str, torch.Tensor]) -> torch.Tensor:
        if not isinstance(entry, dict) or entry.get("use_pickle") is not False:
            self._refuse(f"stores '{name}' as a pickle (use_pickle), which runs stored code when loaded")
        record, meta = str(entry.get("path_name")), entry.get("tensor_meta")
        if _TENSOR.fullmatch(record) is None or not isinstance(meta, dict):
            self._refuse(f"is damaged: the entry of '{name}' is unreadable")
        try:
            dtype = _SERIALIZE_TO_TORCH_DTYPE[meta["dtype"]]
            sizes, strides = _lengths(meta["sizes"]), _lengths(meta["strides"])
            if math.prod(max(length, 1) for length in sizes) > self._limits.max_elements:
                shape = " x ".join(map(str, sizes))
                self._refuse(f"declares {shape} elements for '{name}', more than the limit")
            if record not in flat:
                flat[record] = self._storage(f"data/{kind}/{record}", dtype)
            [offset] = _lengths([meta["storage_offset"]])
            tensor = torch.as_strided(flat[record], sizes, strides, offset)
        except (KeyError, TypeError, ValueError, RuntimeError, OverflowError) as error:
            self._refuse(f"is damaged: '{name}' does not fit its stored bytes ({_one_line(error)})")
        return torch.nn.Parameter(tensor, requires_grad=False) if entry.get("is_param") is True else tensor

    def _storage(self, record: str, dtype: torch.dtype) -> torch.Tensor:
        count, rest = divmod(self._reader.get_record_size(record), dtype.itemsize)
        if rest:
            raise ValueError("its bytes are no whole number of elements")
        if not count:
            return torch.empty(0, dtype=dtype)
        raw = self._reader.get_storage_from_record(record, count, dtype)
        return torch.empty(0, dtype=dtype).set_(raw.untyped_storage(), 0, (count,), (1,))

    def _bytes(self, name: str) -> bytes:
        try:
            return self._reader.get_record(name)
        except RuntimeError:
            self._refuse(f"is damaged or lacks '{name}'")

    def _text(self, name: str) -> str:
        return self._bytes(name)[:80].decode("ascii", errors="replace").strip()

    def _refuse(self, problem: str, step: str = EXPORT_AGAIN) -> NoReturn:
        raise ArtifactRefused(f"'{self._name}' {problem}", next_step=step)


def _lengths(entries: Any) -> list[int]:
    """Numbers of a stored tensor's shape; none of them symbolic or negative."""
    found = [entry["as_int"] for entry in entries]
    if any(type(length) is not int or length < 0 for length in found):
        raise ValueError("a length is no number")
    return found


def _check_operators(program: Mapping[str, Any], name: str) -> None:
    """Every name must lead to an operator of this torch, and to nothing else that can be called."""
    for target in set(operators(program)):
        if not target.startswith("torch.ops."):
            continue
        found: Any = torch.ops
        for part in target.split(".")[2:]:
            found = getattr(found, part, None)
        if not isinstance(found, _OVERLOADS):
            problem = f"the program in '{name}' uses operator '{target}', which this torch does not have"
            raise ArtifactRefused(problem, next_step="export it again with the torch version installed here")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
