"""Which worker of a server does what must be done once: the one that holds a lock on a file.

The kernel frees the lock when its holder ends, however it ends, so the next worker that asks leads.
"""

import fcntl
import os
from pathlib import Path


class Lead:
    """Of one worker. Without a path there are no others, and it always leads."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._handle: int | None = None
        self._holds = path is None

    def is_mine(self) -> bool:
        """Whether this worker leads; takes the lead where nobody has it."""
        if not self._holds and self._path is not None:
            self._holds = self._take(self._path)
        return self._holds

    def close(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle, self._holds = None, False

    def _take(self, path: Path) -> bool:
        if self._handle is None:
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
