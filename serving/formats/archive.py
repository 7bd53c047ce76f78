"""Whether a zip is whole, unambiguous, and unpacks to no more than it should.

Called before any library opens a model archive. Sizes are judged from the directory first, so a
bomb is never unpacked to find out.
"""

import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

from serving.core.errors import ArtifactRefused
from serving.formats.limits import FileLimits

# What zipfile raises on damage has no common base class.
ZIP_ERRORS = (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError, ValueError)
_SMALL_BYTES = 1 << 20
_ENCRYPTED = 0x1


def check_archive(path: Path, limits: FileLimits, next_step: str) -> None:
    """Raise ArtifactRefused unless every entry is sound, named once and inside the archive."""
    with path.open("rb") as file:
        problem = archive_problem(file, path.stat().st_size, limits)
    if problem is not None:
        raise ArtifactRefused(f"'{path.name}' {problem}", next_step=next_step)


def archive_problem(file: IO[bytes], stored_bytes: int, limits: FileLimits) -> str | None:
    """What is wrong with the zip, as the rest of a sentence about it; None where nothing is."""
    try:
        with zipfile.ZipFile(file) as archive:
            problem = _member_problem(archive.infolist(), stored_bytes, limits)
            damaged = archive.testzip() if problem is None else None
    except ZIP_ERRORS:
        return "is a truncated or damaged archive"
    return problem if damaged is None else f"is damaged: the checksum of '{damaged}' is wrong"


def escapes(entry: str) -> bool:
    """Whether a relative path would lead out of the folder it is joined to, on any platform."""
    paths = (PurePosixPath(entry), PureWindowsPath(entry))
    return any(path.is_absolute() or bool(path.drive) or ".." in path.parts for path in paths)


def _member_problem(members: Sequence[zipfile.ZipInfo], stored_bytes: int, limits: FileLimits) -> str | None:
    if len(members) > limits.max_entries:
        return f"holds {len(members)} entries, more than the limit of {limits.max_entries}"
    names = [member.filename for member in members]
    outside = next((name for name in names if escapes(name)), None)
    if outside is not None:
        return f"names an entry outside the archive: '{outside}'"
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        return f"holds the entry '{twice}' twice, and readers differ in which one they take"
    if any(member.flag_bits & _ENCRYPTED for member in members):
        return "is encrypted"
    return _size_problem(members, stored_bytes, limits)


def _size_problem(members: Sequence[zipfile.ZipInfo], stored_bytes: int, limits: FileLimits) -> str | None:
    unpacked_bytes = sum(member.file_size for member in members)
    if unpacked_bytes > limits.max_unpacked_bytes:
        return f"unpacks to {unpacked_bytes} bytes, more than the limit of {limits.max_unpacked_bytes}"
    # Entries that share stored bytes multiply them, so the whole is judged beside each entry.
    pairs = [(member.file_size, member.compress_size) for member in members]
    for unpacked, stored in [(unpacked_bytes, stored_bytes), *pairs]:
        if unpacked > _SMALL_BYTES and unpacked > limits.max_ratio * max(stored, 1):
            return (
                f"unpacks {stored} bytes to {unpacked}, more than {limits.max_ratio} times as much, "
                "as only a zip bomb does"
            )
    return None
