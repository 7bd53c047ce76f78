"""What kind of model file this is, told from its first bytes and, for an archive, its member names."""

import zipfile
from enum import StrEnum
from pathlib import Path

_HEAD_BYTES = 512
_ZIP = b"PK\x03\x04"
_PICKLE = b"\x80"
_MODEL_SUFFIXES = frozenset(
    (".onnx", ".pt", ".pth", ".ts", ".torchscript", ".pt2", ".mlmodel", ".pkl", ".joblib", ".skops")
)


class Kind(StrEnum):
    ONNX = "onnx"
    TORCHSCRIPT = "torchscript"
    PT2 = "pt2"
    COREML = "coreml"
    PICKLED_TORCH = "pickled torch"
    PICKLE = "pickle"
    EMPTY = "empty"
    TEXT = "text"
    DAMAGED_ZIP = "damaged zip"
    OTHER_ZIP = "other zip"
    UNKNOWN = "unknown"


def looks_like_model(path: Path) -> bool:
    """Whether a file in a folder without description may be the model, by suffix or as an archive."""
    return path.suffix in _MODEL_SUFFIXES or kind_of(path) in (Kind.TORCHSCRIPT, Kind.PT2, Kind.PICKLED_TORCH)


def kind_of(path: Path) -> Kind:
    """The kind of one file. ONNX has no magic number: what is binary and named .onnx counts until parsed."""
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if not head:
        return Kind.EMPTY
    if head.startswith(_ZIP):
        return _archive_kind(path)
    if head.startswith(_PICKLE):
        return Kind.PICKLED_TORCH if path.suffix in (".pt", ".pth") else Kind.PICKLE
    if _is_text(head):
        return Kind.TEXT
    if path.suffix == ".mlmodel":
        return Kind.COREML
    return Kind.ONNX if path.suffix == ".onnx" else Kind.UNKNOWN


def _archive_kind(path: Path) -> Kind:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError):
        return Kind.DAMAGED_ZIP
    inner = {name.partition("/")[2] for name in names}
    if any(name.startswith("code/") for name in inner) and "data.pkl" in inner:
        return Kind.TORCHSCRIPT
    if path.suffix == ".pt2" or "archive_format" in inner:
        return Kind.PT2
    return Kind.PICKLED_TORCH if "data.pkl" in inner else Kind.OTHER_ZIP


def _is_text(head: bytes) -> bool:
    """Every byte printable or white space, as in a Git LFS pointer or an error page saved as a model."""
    return all(byte in b"\t\n\r\f" or 0x20 <= byte < 0x7F for byte in head)
