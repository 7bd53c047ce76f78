"""Audit entries kept in a local file while the state store cannot take them.

Each line is on disk before `append` returns. A merge claims the file by renaming it, so appends
never wait for the store, and may be repeated after a crash because the trail takes each entry once.
"""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Engine

from serving.store import audit
from serving.store.audit import AuditEntry
from serving.store.database import writing
from serving.store.durable import append_line, exclusive, sync_folder

_BATCH_ENTRIES = 200
_SHOWN_CHARACTERS = 2000


class Journal:
    """A file of audit entries, one JSON line each; safe for several threads and processes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._claimed = path.with_name(path.name + ".merging")
        self._append_lock = path.with_name(path.name + ".lock")
        self._merge_lock = path.with_name(path.name + ".merge.lock")

    def append(self, entry: AuditEntry) -> None:
        """Write one entry through to the disk; OSError where the disk refuses."""
        with exclusive(self._append_lock):
            append_line(self.path, audit.entry_text(entry).encode())

    def is_empty(self) -> bool:
        """Whether nothing waits to be merged."""
        return not any(file.exists() and file.stat().st_size for file in (self._claimed, self.path))

    def merge(self, engine: Engine) -> int:
        """Move every entry into the audit trail and return how many; 0 while somebody else merges.

        On `StoreUnavailable` the entries stay and the next merge repeats them. Each keeps its own
        time and is marked `journalled`.
        """
        if self.is_empty():
            return 0
        merged = 0
        with exclusive(self._merge_lock, wait=False) as mine:
            while mine and self._claim():
                merged += self._merge_claimed(engine)
        return merged

    def _claim(self) -> bool:
        if self._claimed.exists():
            return True
        with exclusive(self._append_lock):
            if not self.path.exists():
                return False
            os.rename(self.path, self._claimed)
            sync_folder(self.path.parent)
        return True

    def _merge_claimed(self, engine: Engine) -> int:
        entries = list(self._entries())
        for start in range(0, len(entries), _BATCH_ENTRIES):
            with writing(engine) as connection:
                for entry in entries[start : start + _BATCH_ENTRIES]:
                    audit.append(connection, entry)
        self._claimed.unlink()
        sync_folder(self._claimed.parent)
        return len(entries)

    def _entries(self) -> Iterator[AuditEntry]:
        written = datetime.fromtimestamp(self._claimed.stat().st_mtime, UTC)
        for line in self._claimed.read_bytes().split(b"\n"):
            if line:
                yield _entry(line, written)


def _entry(line: bytes, written: datetime) -> AuditEntry:
    try:
        entry = audit.read_entry(line.decode())
    except (ValueError, KeyError, TypeError):
        return _unreadable(line, written)
    return replace(entry, details={**entry.details, "journalled": True})


def _unreadable(line: bytes, written: datetime) -> AuditEntry:
    # A line cut short by a crash, or damage: the trail keeps what is left of it.
    return AuditEntry(
        action="journal",
        actor="signalbox",
        details={"journalled": True, "unreadable": line.decode(errors="replace")[:_SHOWN_CHARACTERS]},
        at=written,
        id=hashlib.sha256(line).hexdigest(),
    )
