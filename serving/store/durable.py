"""Files that survive a crash: what was written is there in whole, or the old content still is.

Used by every local file that must not be lost; a reader never sees half a file.
"""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def write_atomically(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replace the content of `path`, on disk when this returns; creates the folder if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    sync_folder(path.parent)


def append_line(path: Path, line: bytes, mode: int = 0o600) -> None:
    """Add one line, on disk when this returns. A torn last line is closed first, so it harms no other.

    Callers take turns through `exclusive`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, mode), "r+b", buffering=0) as file:
        size_bytes = os.fstat(file.fileno()).st_size
        torn = size_bytes > 0 and os.pread(file.fileno(), 1, size_bytes - 1) != b"\n"
        rest = memoryview((b"\n" if torn else b"") + line + b"\n")
        while rest:
            rest = rest[os.write(file.fileno(), rest) :]
        os.fsync(file.fileno())
    if size_bytes == 0:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Put created, renamed and removed names of a folder on disk."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def exclusive(lock: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold a lock file against every other thread and process; yields whether it was got.

    The kernel frees it when the holder dies.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            got = True
        except BlockingIOError:
            got = False
        yield got
    finally:
        os.close(handle)
