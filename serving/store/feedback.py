"""Labels as they come in: on disk before they are acknowledged, and kept until their answer is found.

Two files of JSON lines: the journal, to which every worker appends, and what waits for an answer, which
belongs to the one worker that joins. A crash at any moment repeats a step and loses no label.
"""

import json
import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from serving.core.labels import Label
from serving.store.durable import append_line, exclusive, sync_folder, write_atomically
from serving.store.text import json_text, read_time, time_text

log = logging.getLogger(__name__)

MAX_JOURNAL_BYTES = 64 << 20


class JournalFull(Exception):
    """Nobody has taken labels from the journal for so long that it takes no more."""


class FeedbackJournal:
    """Safe for several threads and processes."""

    def __init__(self, folder: Path, max_bytes: int = MAX_JOURNAL_BYTES) -> None:
        self._max_bytes = max_bytes
        self._path = folder / "feedback.jsonl"
        self._claimed = folder / "feedback.claimed.jsonl"
        self._waiting = folder / "feedback.waiting.jsonl"
        self._append_lock = folder / "feedback.jsonl.lock"
        self.join_lock = folder / "feedback.join.lock"

    def append(self, labels: Iterable[Label]) -> None:
        """Write labels through to the disk.

        Raises:
            JournalFull: too many wait already; nothing was written.
            OSError: the disk refuses; what may be left of them is a torn line, which is left out.
        """
        text = "\n".join(map(_line, labels))
        with exclusive(self._append_lock):
            if self._path.exists() and self._path.stat().st_size > self._max_bytes:
                raise JournalFull(f"{self._max_bytes >> 20} MB of labels wait to be joined already")
            append_line(self._path, text.encode())

    def take(self, waiting: Iterable[Label]) -> list[Label]:
        """What came in since the last call, after it was added durably to `waiting`.

        For the one who holds `join_lock`.
        """
        with exclusive(self._append_lock):
            if not self._claimed.exists():
                if not self._path.exists():
                    return []
                os.rename(self._path, self._claimed)
                sync_folder(self._path.parent)
        came = list(_read(self._claimed))
        self.keep([*waiting, *came])
        self._claimed.unlink()
        return came

    def keep(self, waiting: Iterable[Label]) -> None:
        """Replace what waits. For the one who holds `join_lock`."""
        write_atomically(self._waiting, b"".join(f"{_line(label)}\n".encode() for label in waiting))

    def waiting(self) -> list[Label]:
        """What was waiting when it was kept last."""
        return list(_read(self._waiting)) if self._waiting.exists() else []


def _line(label: Label) -> str:
    told = {
        "id": label.request_id,
        "row": label.row,
        "label": label.label,
        "at": time_text(label.at),
        "model": label.model,
    }
    return json_text(told)


def _read(path: Path) -> Iterator[Label]:
    for line in path.read_bytes().split(b"\n"):
        if not line:
            continue
        try:
            told = json.loads(line)
            yield Label(
                request_id=told["id"],
                row=told["row"],
                label=told["label"],
                at=read_time(told["at"]),
                model=told["model"],
            )
        except (ValueError, KeyError, TypeError):  # torn by a crash, before it was acknowledged
            log.warning("label_line_unreadable path=%s", path.name)
