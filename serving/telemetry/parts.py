"""The inference log's files as serving writes and removes them; called on the log's own thread.

A part appears under its name only when it is whole and on disk.
"""

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

from serving.store.inference_log import part_path, parts
from serving.telemetry.columns import Privacy, condensed, import_arrow, parquet
from serving.telemetry.sheaf import Bundle

_ABANDONED_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Keeping:
    """How much of the log stays: whole days, and bytes over all models."""

    days: float
    max_bytes: int


class PartFolder:
    """Writes and removes parts. Confined to one thread; other workers may share the folder."""

    def __init__(
        self,
        folder: Path,
        worker: str,
        keeping: Keeping,
        privacy: Privacy,
        *,
        raw_ratio: float,
        chance: Random,
    ) -> None:
        self._folder = folder
        self._worker = worker
        self._keeping = keeping
        self._privacy = privacy
        self._raw_ratio = raw_ratio
        self._chance = chance
        self._number = 0

    def prepare(self) -> None:
        import_arrow()

    def condensed(self, bundle: Bundle) -> Bundle:
        return condensed(bundle, self._raw_ratio, self._chance)

    def write(self, bundles: Sequence[Bundle]) -> None:
        """One part of bundles of one version. Raises `OSError` where the disk does not take it."""
        content = parquet(bundles, self._privacy, self._raw_ratio, self._chance)
        self._number += 1
        newest_at = datetime.fromtimestamp(max(float(bundle.times.max()) for bundle in bundles), UTC)
        path = part_path(self._folder, bundles[0].ref.model, newest_at, self._worker, self._number)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.tmp")
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise

    def trim(self, now: datetime) -> None:
        """Remove parts older than the kept days, the oldest beyond the size, and what crashes left."""
        oldest_kept = now - timedelta(days=self._keeping.days)
        found = parts(self._folder)
        size_bytes = sum(part.size_bytes for part in found)
        for part in found:
            if part.newest_at >= oldest_kept and size_bytes <= self._keeping.max_bytes:
                break
            size_bytes -= part.size_bytes
            part.path.unlink(missing_ok=True)
        self._remove_abandoned()

    def _remove_abandoned(self) -> None:
        # Ages of files are the file system's, so they are compared with its clock and not with ours.
        for file in self._folder.glob("*/*/.*.tmp"):
            with suppress(FileNotFoundError):
                if time.time() - file.stat().st_mtime > _ABANDONED_SECONDS:
                    file.unlink()
        for day in self._folder.glob("*/*"):
            with suppress(OSError):  # not empty
                day.rmdir()
