"""What kind of model file this is, told from its first bytes, its archive's members or its outer fields."""

import zipfile
from enum import StrEnum
from pathlib import Path

from serving.formats.archive import ZIP_ERRORS
from serving.formats.wire import outline

_HEAD_BYTES = 512
_ZIP = b"PK\x03\x04"
_PICKLE = b"\x80"
_GIT_LFS = b"version https://git-lfs.github.com/spec/"
_HDF5 = b"\x89HDF\r\n\x1a\n"
MANIFEST = "Manifest.json"
_MODEL_SUFFIXES = frozenset(
    (".onnx", ".pt", ".pth", ".ts", ".torchscript", ".pt2", ".mlmodel", ".pkl", ".joblib", ".skops")
)
# Outer fields of an ONNX ModelProto, and the one that holds its graph.
_ONNX_FIELDS = frozenset((1, 2, 3, 4, 5, 6, 7, 8, 14, 20, 25, 26))
_ONNX_GRAPH = 7
# Core ML keeps its one model in an outer field far above any of ONNX's.
_COREML_MODELS = range(200, 4000)


class Kind(StrEnum):
    ONNX = "onnx"
    TORCHSCRIPT = "torchscript"
    PT2 = "pt2"
    COREML = "coreml"
    COREML_PACKAGE = "coreml package"
    PICKLED_TORCH = "pickled torch"
    PICKLE = "pickle"
    EMPTY = "empty"
    GIT_LFS = "git lfs pointer"
    TEXT = "text"
    HDF5 = "hdf5"
    DAMAGED_ZIP = "damaged zip"
    OTHER_ZIP = "other zip"
    FOLDER = "folder"
    UNKNOWN = "unknown"


def looks_like_model(path: Path) -> bool:
    """Whether an entry of a folder without description may be the model, by suffix or as an archive."""
    if path.is_dir():
        return kind_of(path) is Kind.COREML_PACKAGE
    return path.suffix in _MODEL_SUFFIXES or kind_of(path) in (Kind.TORCHSCRIPT, Kind.PT2, Kind.PICKLED_TORCH)


def kind_of(path: Path) -> Kind:
    """The kind of one file or package.

    What is binary, named .onnx or .mlmodel and nothing else counts as what it says until it is parsed.
    """
    if path.is_dir():
        package = path.suffix == ".mlpackage" or (path / MANIFEST).is_file()
        return Kind.COREML_PACKAGE if package else Kind.FOLDER
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if not head:
        return Kind.EMPTY
    if head.startswith(_ZIP):
        return _archive_kind(path)
    if head.startswith(_PICKLE):
        return Kind.PICKLED_TORCH if path.suffix in (".pt", ".pth") else Kind.PICKLE
    if head.startswith(_HDF5):
        return Kind.HDF5
    if head.startswith(_GIT_LFS):
        return Kind.GIT_LFS
    if _is_text(head):
        return Kind.TEXT
    return _message_kind(path)


def _archive_kind(path: Path) -> Kind:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except ZIP_ERRORS:
        return Kind.DAMAGED_ZIP
    inner = {name.partition("/")[2] for name in names}
    if any(name.startswith("code/") for name in inner) and "data.pkl" in inner:
        return Kind.TORCHSCRIPT
    if "archive_format" in inner or "serialized_exported_program.json" in names:
        return Kind.PT2
    return Kind.PICKLED_TORCH if "data.pkl" in inner else Kind.OTHER_ZIP


def _message_kind(path: Path) -> Kind:
    fields = set(outline(path).fields)
    if _ONNX_GRAPH in fields and fields <= _ONNX_FIELDS:
        return Kind.ONNX
    if 1 in fields and any(number in _COREML_MODELS for number in fields):
        return Kind.COREML
    return {".onnx": Kind.ONNX, ".mlmodel": Kind.COREML}.get(path.suffix, Kind.UNKNOWN)


def _is_text(head: bytes) -> bool:
    """Every byte printable or white space, as in an error page saved as a model."""
    return all(byte in b"\t\n\r\f" or 0x20 <= byte < 0x7F for byte in head)
