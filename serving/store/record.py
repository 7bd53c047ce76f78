"""Serving's own durable record: what it answers with, kept on the local disk.

Written before a change becomes visible, read at start-up; with the artifact cache it lets serving
come back with the same versions while MLflow and the state store are away.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from serving.core.errors import StoreUnusable
from serving.core.traffic import Split
from serving.store.durable import exclusive, write_atomically


@dataclass(frozen=True, slots=True)
class ServedVersion:
    """One version as it was served. `folder` is relative to the artifact cache."""

    version: str
    created_ms: int
    source: str
    digest: str
    folder: str


@dataclass(frozen=True, slots=True)
class WatchRecord:
    version: str
    previous: str
    by_hand: bool
    until: datetime


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """`champions` are the versions that held the alias and were neither ejected nor rolled back.

    Oldest first; the last one is the present champion, the one before it the fallback. `by_hand` are the
    versions an admin loaded by number. `split` is what the traffic tag asked for, beside these aliases.
    """

    aliases: Mapping[str, ServedVersion] = field(default_factory=dict)
    champions: tuple[ServedVersion, ...] = ()
    watch: WatchRecord | None = None
    orphaned_since: datetime | None = None
    by_hand: tuple[ServedVersion, ...] = ()
    split: Split | None = None


class Record:
    """The file, of one server. A server of one process writes it whole, workers of one each their change."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> dict[str, ModelRecord]:
        """Raises `StoreUnusable` for a file that is there but cannot be understood."""
        if not self._path.exists():
            return {}
        try:
            models = json.loads(self._path.read_bytes())["models"]
            return {name: _model_record(raw) for name, raw in models.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise StoreUnusable(
                f"{self._path} is damaged ({error!r})",
                next_step="move the file away; serving then follows the registry from the start",
            ) from error

    def stamp(self) -> tuple[int, int] | None:
        """Another one after every write; None while there is no file."""
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns

    def write(self, models: Mapping[str, ModelRecord]) -> None:
        """Returns once the record is on the disk."""
        text = json.dumps(
            {"models": {name: asdict(model) for name, model in models.items()}},
            default=datetime.isoformat,
            indent=1,
        )
        write_atomically(self._path, text.encode())

    def merge(self, name: str, change: Callable[[ModelRecord], ModelRecord | None]) -> None:
        """Change one model's entry, None removing it, and leave what other workers wrote of others."""
        with exclusive(self._path.with_name(self._path.name + ".lock")):
            models = self.read()
            changed = change(models.pop(name, ModelRecord()))
            self.write(models if changed is None else models | {name: changed})


def _model_record(raw: Mapping[str, Any]) -> ModelRecord:
    watch, orphaned_since, split = raw["watch"], raw["orphaned_since"], raw.get("split")
    return ModelRecord(
        aliases={alias: ServedVersion(**version) for alias, version in raw["aliases"].items()},
        champions=tuple(ServedVersion(**version) for version in raw["champions"]),
        watch=WatchRecord(**watch | {"until": datetime.fromisoformat(watch["until"])}) if watch else None,
        orphaned_since=datetime.fromisoformat(orphaned_since) if orphaned_since else None,
        by_hand=tuple(ServedVersion(**version) for version in raw.get("by_hand", ())),
        split=Split(**split) if split else None,
    )
