"""One digest for the payload of a version, whatever machine computed it."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

_CHUNK_BYTES = 1 << 20


def file_sha256(path: Path) -> str:
    """Hex sha256 of a file, read in pieces so that memory stays flat."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def tree_digest(sha256_by_path: Mapping[str, str]) -> str:
    """Hex sha256 over the sorted `path sha256` lines of a set of files.

    Paths are relative, with forward slashes. Line form: `<sha256>  <path>\\n`, as `sha256sum` prints.
    """
    lines = (f"{sha256}  {path}\n" for path, sha256 in sorted(sha256_by_path.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()
