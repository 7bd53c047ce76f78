"""Which model files lie in the configured folders; reads names, sizes, times and first bytes, nothing more.

Called by the scan. A package folder, or a file with its external data, is one candidate. Nothing that
a link leads to outside of its folder is ever looked at.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from flows.catalog.side_file import SUFFIX, side_file_of
from serving.core.digest import file_sha256, tree_digest
from serving.formats.content import Kind, kind_of

PACKAGE = ".mlpackage"
_SUFFIXES = frozenset((".pt", ".pth", ".ts", ".torchscript", ".onnx", ".pt2", ".mlmodel"))
# A file of another name is opened only if it may be a TorchScript or .pt2 archive that lost its name.
_NEVER_MODELS = frozenset((".npz", ".zip", ".whl", ".jar", ".docx", ".xlsx", ".pptx", ".apk", ".keras"))
_ARCHIVES = (Kind.TORCHSCRIPT, Kind.PT2)
_UNFINISHED = (".tmp", ".temp", ".part", ".partial", ".crdownload", ".download", ".filepart", ".swp", "~")
_DATA_ENDINGS = (".data", "_data", ".bin", ".weights")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model as it lies there. `path` is the file or package, `folder` the configured folder it is in."""

    path: Path
    folder: Path

    @property
    def stem(self) -> str:
        return self.path.stem

    @property
    def side_file(self) -> Path | None:
        return side_file_of(self.path)


@dataclass(frozen=True, slots=True)
class Stray:
    """Something that looks like a model and cannot be one, with the reason."""

    path: Path
    reason: str


@dataclass(frozen=True, slots=True)
class Listing:
    candidates: tuple[Candidate, ...]
    strays: tuple[Stray, ...]
    missing: tuple[Path, ...]


def look_through(folders: Sequence[Path]) -> Listing:
    """Everything in the folders and below that may be a model, in the order of paths."""
    candidates: dict[Path, Candidate] = {}
    strays: dict[Path, Stray] = {}
    for folder in folders:
        for found in _found(folder, folder):
            if isinstance(found, Stray):
                strays.setdefault(found.path, found)
            else:
                candidates.setdefault(found.path, found)
    plain = {path for path in candidates if not path.is_symlink()}
    # A link to a model that lies in the folders itself is no second model.
    kept = [one for one in candidates.values() if one.path in plain or one.path.resolve() not in plain]
    return Listing(
        tuple(sorted(kept, key=lambda candidate: candidate.path)),
        tuple(sorted(strays.values(), key=lambda stray: stray.path)),
        tuple(folder for folder in folders if not folder.is_dir()),
    )


def data_files(path: Path) -> tuple[str, ...]:
    """Names beside an ONNX file by which exporters call its external data, as far as such files lie there."""
    if path.suffix != ".onnx" or not path.is_file():
        return ()
    names = [start + ending for start in (path.name, path.stem) for ending in _DATA_ENDINGS]
    return tuple(name for name in dict.fromkeys(names) if (path.parent / name).is_file())


def fingerprint(candidate: Candidate, members: Sequence[str]) -> str:
    """Of size, times and inode of each file that makes the candidate; changes whenever one of them does.

    Raises `OSError` where a file vanished meanwhile; a member that is not there counts as such.
    """
    lines = [_stamp(path, candidate.path.parent) for path in payload(candidate.path)]
    lines += [_member_stamp(candidate.path.parent, member) for member in sorted(members)]
    if candidate.side_file is not None:
        lines.append(_stamp(candidate.side_file, candidate.path.parent))
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()


def source_digest(path: Path, members: Sequence[str] = ()) -> str:
    """The identity of a model's bytes, whatever its file is called: value of `signalbox.source_digest`.

    Of one file its sha256; of a package, or of a file with others, the digest of the tree, in which the
    file itself goes by the name `model`.
    """
    if path.is_dir():
        return tree_digest({file.relative_to(path).as_posix(): file_sha256(file) for file in payload(path)})
    if not members:
        return file_sha256(path)
    others = {member: _sha256_if_there(path.parent / member) for member in members}
    return tree_digest({"model": file_sha256(path), **others})


def _sha256_if_there(path: Path) -> str:
    return file_sha256(path) if path.is_file() else "missing"


def payload(path: Path) -> list[Path]:
    """The file itself, or every file of a package; links in a package are not followed."""
    if not path.is_dir():
        return [path]
    return sorted(file for file in path.rglob("*") if file.is_file() and not file.is_symlink())


def _found(directory: Path, folder: Path) -> Iterator[Candidate | Stray]:
    try:
        entries = sorted(os.scandir(directory), key=lambda entry: entry.name)
    except OSError:
        return  # gone or closed to us; a configured folder that is missing is told apart
    for entry in entries:
        if _is_passed_over(entry.name):
            continue
        path = Path(entry.path)
        if entry.is_symlink():
            yield from _linked(path, folder)
        elif entry.is_dir(follow_symlinks=False):
            yield from [Candidate(path, folder)] if path.suffix == PACKAGE else _found(path, folder)
        elif _is_model(path):
            yield Candidate(path, folder)


def _linked(path: Path, folder: Path) -> Iterator[Candidate | Stray]:
    """A link to a model in the folder is one; folders behind links are looked through where they lie."""
    named = path.suffix in _SUFFIXES or path.suffix == PACKAGE
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError):
        if named:
            yield Stray(path, f"the link '{path.name}' leads nowhere")
        return
    if not target.is_relative_to(folder.resolve()):
        if named or target.is_dir():
            yield Stray(path, f"the link '{path.name}' leads out of the model folder")
    elif (path.suffix == PACKAGE) if target.is_dir() else _is_model(path):
        yield Candidate(path, folder)


def _is_passed_over(name: str) -> bool:
    return name.startswith((".", "#", "~$")) or name.lower().endswith((*_UNFINISHED, SUFFIX))


def _is_model(path: Path) -> bool:
    """By name, else by content. The content of a known name is judged later, with a reason."""
    suffix = path.suffix.lower()
    if suffix in _SUFFIXES:
        return True
    if suffix in _NEVER_MODELS:
        return False
    try:
        return path.is_file() and kind_of(path) in _ARCHIVES
    except OSError:
        return False


def _stamp(path: Path, base: Path) -> str:
    facts = path.stat()
    name = os.path.relpath(path, base)
    return f"{name} {facts.st_size} {facts.st_mtime_ns} {facts.st_ctime_ns} {facts.st_ino}"


def _member_stamp(base: Path, member: str) -> str:
    try:
        return _stamp(base / member, base)
    except OSError:
        return f"{member} missing"
