"""A Core ML package or specification file looked over without coremltools: whole, and only its own files.

Called before anything opens a Core ML model. A package is a folder with a manifest that says which of
its items is the model; items lie under `Data/`.
"""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from serving.core.errors import ArtifactRefused
from serving.formats.archive import escapes
from serving.formats.content import MANIFEST, Kind, kind_of
from serving.formats.limits import DEFAULT_LIMITS, FileLimits
from serving.formats.wire import outline

_ITEMS = "Data"
_MAX_MANIFEST_BYTES = 1 << 20
# coremltools 9 writes up to 10; a newer one may mean something else by the same bytes.
NEWEST_SPECIFICATION = 10
_MLPROGRAM = 502
# Layout of an ML program's weight file, as coremltools' MILBlob writes it.
_HEADER = struct.Struct("<II")
_ENTRY = struct.Struct("<IIQQ")
_BLOB_VERSION = 2
_MARK = 0xDEADBEEF
_ALIGNMENT = 64
_SAVE_AGAIN = "save the model again with coremltools and copy the whole package"


def check_coreml(path: Path, limits: FileLimits = DEFAULT_LIMITS) -> None:
    """Raise ArtifactRefused unless the package or `.mlmodel` file is whole and leads nowhere else."""
    if path.is_dir():
        _check_folder(path, limits)
    _check_specification(specification_file(path), path.name)
    for file in sorted(path.rglob("*.bin")) if path.is_dir() else ():
        _check_blobs(file, path.name)


def specification_file(path: Path) -> Path:
    """The file that holds the model's protobuf. Raises ArtifactRefused for a package without a usable one."""
    return _root_item(path) if path.is_dir() else path


def is_mlprogram(path: Path) -> bool:
    """Whether the model is an ML program, which keeps its weights outside the specification file."""
    return _MLPROGRAM in outline(specification_file(path)).fields


def _check_folder(path: Path, limits: FileLimits) -> None:
    """Sizes and links: a package is copied, hashed and opened as a whole."""
    entries = list(path.rglob("*"))
    if len(entries) > limits.max_entries:
        problem = f"'{path.name}' holds {len(entries)} entries, more than the limit of {limits.max_entries}"
        raise ArtifactRefused(problem, next_step=_SAVE_AGAIN)
    outside = next((entry for entry in entries if not _is_inside(entry, path)), None)
    if outside is not None:
        problem = f"'{path.name}' links to something outside of it: '{outside.relative_to(path)}'"
        raise ArtifactRefused(problem, next_step=_SAVE_AGAIN)


def _root_item(path: Path) -> Path:
    manifest = _manifest(path)
    items, root = manifest.get("itemInfoEntries"), manifest.get("rootModelIdentifier")
    if not isinstance(items, dict) or not isinstance(root, str) or not isinstance(items.get(root), dict):
        problem = f"{MANIFEST} of '{path.name}' does not say which item is the model"
        raise ArtifactRefused(problem, next_step=_SAVE_AGAIN)
    for item in items.values():
        _check_item(path, item)
    return path / _ITEMS / str(items[root]["path"])


def _manifest(path: Path) -> Mapping[str, Any]:
    file = path / MANIFEST
    if not file.is_file():
        problem = f"'{path.name}' has no {MANIFEST}, so it is no Core ML package"
        raise ArtifactRefused(problem, next_step=_SAVE_AGAIN)
    try:
        if file.stat().st_size > _MAX_MANIFEST_BYTES:
            raise ValueError("too large")
        content = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("no object")
    except (ValueError, RecursionError) as error:
        problem = f"{MANIFEST} of '{path.name}' is not readable JSON"
        raise ArtifactRefused(problem, next_step=_SAVE_AGAIN) from error
    return content


def _check_item(path: Path, item: object) -> None:
    relative = item.get("path") if isinstance(item, dict) else None
    if not isinstance(relative, str) or not relative:
        problem = f"{MANIFEST} of '{path.name}' lists an item without path"
        raise ArtifactRefused(problem, next_step=_SAVE_AGAIN)
    place = path / _ITEMS / relative
    if escapes(relative) or not _is_inside(place, path):
        problem = f"{MANIFEST} of '{path.name}' names a file outside the package: '{relative}'"
        raise ArtifactRefused(problem, next_step=_SAVE_AGAIN)
    if not place.exists():
        problem = f"'{path.name}' lacks '{relative}', which its {MANIFEST} lists"
        raise ArtifactRefused(problem, next_step=_SAVE_AGAIN)


def _check_specification(file: Path, name: str) -> None:
    if not file.is_file() or kind_of(file) is not Kind.COREML:
        raise ArtifactRefused(f"the model inside '{name}' is no Core ML specification", next_step=_SAVE_AGAIN)
    found = outline(file)
    if not found.whole:
        problem = f"'{name}' is a truncated or damaged Core ML specification"
        raise ArtifactRefused(problem, next_step=_SAVE_AGAIN)
    if found.version is None or not 1 <= found.version <= NEWEST_SPECIFICATION:
        problem = (
            f"'{name}' has Core ML specification version {found.version}, "
            f"and {NEWEST_SPECIFICATION} is the newest known here"
        )
        step = "convert it with an older minimum_deployment_target"
        raise ArtifactRefused(problem, next_step=step)


def _check_blobs(file: Path, name: str) -> None:
    """Every blob must lie within its file, which starts with their number and has an entry before each."""
    size = file.stat().st_size
    with file.open("rb") as content:
        count, version = _HEADER.unpack(content.read(_HEADER.size).ljust(_HEADER.size, b"\0"))
        end = _ALIGNMENT
        if size >= _ALIGNMENT and version != _BLOB_VERSION:
            return
        for _ in range(max(count, 1)):
            content.seek(end)
            entry = content.read(_ENTRY.size)
            if len(entry) < _ENTRY.size:
                break
            mark, _, length, offset = _ENTRY.unpack(entry)
            end = -(-(offset + length) // _ALIGNMENT) * _ALIGNMENT
            if mark != _MARK or offset + length > size or end <= content.tell() - _ENTRY.size:
                break
        else:
            return
    problem = f"'{name}' has truncated or damaged weights in '{file.name}'"
    raise ArtifactRefused(problem, next_step=_SAVE_AGAIN)


def _is_inside(place: Path, folder: Path) -> bool:
    return place.resolve().is_relative_to(folder.resolve())
