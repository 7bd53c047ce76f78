"""One model file or package on its own: which format it is, or why it cannot become a version.

Called by discovery before anything is registered, and by `inspect_artifact` for a version's files.
Nothing is loaded and no code in the file is run; a format's library is imported only for its own files.
"""

from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from serving.core.errors import ArtifactRefused
from serving.core.model import Format
from serving.formats.content import Kind, kind_of
from serving.formats.limits import DEFAULT_LIMITS, FileLimits

TO_ONNX = "export it to ONNX with the converter of its library and log that with mlflow.onnx"
TORCH_STEP = (
    "export it with torch.onnx.export and log that with mlflow.onnx, or log torch.jit.script(model) "
    "with mlflow.pytorch and serialization_format='pickle'"
)
_AGAIN = "export and log the model again, and check the upload"
_FORMATS = {
    Kind.ONNX: Format.ONNX,
    Kind.TORCHSCRIPT: Format.TORCHSCRIPT,
    Kind.PT2: Format.PT2,
    Kind.COREML: Format.COREML,
    Kind.COREML_PACKAGE: Format.COREML,
}
_TITLES = {
    Kind.ONNX: "an ONNX model",
    Kind.TORCHSCRIPT: "a TorchScript archive",
    Kind.PT2: "a torch.export archive",
    Kind.COREML: "a Core ML specification",
    Kind.COREML_PACKAGE: "a Core ML package",
}
_FORMAT_TITLES = {_FORMATS[kind]: title for kind, title in reversed(_TITLES.items())}
# What each suffix promises, and how to name a file that is something else.
_SUFFIXES = {
    Kind.ONNX: (".onnx",),
    Kind.TORCHSCRIPT: (".pt", ".pth", ".ts", ".torchscript"),
    Kind.PT2: (".pt2",),
    Kind.COREML: (".mlmodel",),
    Kind.COREML_PACKAGE: (".mlpackage",),
}
_REFUSED = {
    Kind.PICKLED_TORCH: ("a pickled eager PyTorch model, which runs stored code when loaded", TORCH_STEP),
    Kind.PICKLE: ("a pickle, which runs stored code when loaded", TO_ONNX),
    Kind.EMPTY: ("empty", _AGAIN),
    Kind.GIT_LFS: (
        "a text file, not a model: the pointer that Git LFS leaves in its place",
        "fetch the real file with git lfs pull",
    ),
    Kind.TEXT: ("a text file, not a model", _AGAIN),
    Kind.HDF5: ("an HDF5 file, as Keras writes them", TO_ONNX),
    Kind.DAMAGED_ZIP: ("a truncated or damaged archive", _AGAIN),
    Kind.OTHER_ZIP: ("an archive, but not a TorchScript or torch.export one", _AGAIN),
    Kind.FOLDER: ("a folder, but no Core ML package: it has no Manifest.json", _AGAIN),
    Kind.UNKNOWN: ("not a model file of a known format, or is damaged at its beginning", _AGAIN),
}


class Check(Protocol):
    """Looks one file of a format over without loading it. Raises ArtifactRefused."""

    def __call__(self, path: Path, limits: FileLimits) -> object: ...


_CHECKS = {
    Format.ONNX: ("serving.formats.onnx_file", "read_onnx"),
    Format.TORCHSCRIPT: ("serving.formats.torch_script", "check_script"),
    Format.PT2: ("serving.formats.torch_export", "check_export"),
    Format.COREML: ("serving.formats.coreml_package", "check_coreml"),
}


def examine(path: Path, limits: FileLimits = DEFAULT_LIMITS) -> Format:
    """The file's format, after every check that needs no load.

    Raises ArtifactRefused with one sentence that says what is wrong, where, and what to do about it.
    """
    if not path.exists():
        raise ArtifactRefused(f"there is no file '{path.name}'", next_step="check the path")
    if not path.is_file() and not path.is_dir():
        problem = f"'{path.name}' is neither a file nor a folder"
        raise ArtifactRefused(problem, next_step="check the path")
    try:
        return _examined(path, limits)
    except OSError as error:
        problem = f"'{path.name}' cannot be read ({error.strerror or type(error).__name__})"
        raise ArtifactRefused(problem, next_step="check its permissions and that it still exists") from error


def _examined(path: Path, limits: FileLimits) -> Format:
    _check_size(path, limits)
    _check_suffix(path, kind_of(path))
    found = format_of(path)
    module, check = _CHECKS[found]
    cast(Check, getattr(import_module(module), check))(path, limits)
    return found


def format_of(path: Path) -> Format:
    """The format by content alone. Raises ArtifactRefused for what is none, saying what it is instead."""
    kind = kind_of(path)
    if kind in _FORMATS:
        return _FORMATS[kind]
    what, step = _REFUSED[kind]
    raise ArtifactRefused(f"'{path.name}' is {what}", next_step=step)


def title_of(format: Format) -> str:
    """The format in a sentence: 'an ONNX model'."""
    return _FORMAT_TITLES[format]


def _check_size(path: Path, limits: FileLimits) -> None:
    files = path.rglob("*") if path.is_dir() else (path,)
    size_bytes = sum(file.lstat().st_size for file in files if not file.is_dir())
    if size_bytes > limits.max_file_bytes:
        problem = f"'{path.name}' has {size_bytes} bytes, more than the limit of {limits.max_file_bytes}"
        raise ArtifactRefused(problem, next_step="make the model smaller, or raise the limit")


def _check_suffix(path: Path, kind: Kind) -> None:
    """A model of one format under the name of another is a mix-up that somebody should see."""
    promised = next((title for title, suffixes in _SUFFIXES.items() if path.suffix in suffixes), None)
    if promised is None or promised is kind or kind not in _TITLES:
        return
    right = path.with_suffix(_SUFFIXES[kind][0]).name
    problem = f"'{path.name}' is named as {_TITLES[promised]} but is {_TITLES[kind]}"
    raise ArtifactRefused(problem, next_step=f"rename it to '{right}', or export the model again")
