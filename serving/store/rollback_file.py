"""The rollbacks this server took, on its own disk: known over a restart, and with the store away."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from serving.core.errors import StoreUnusable
from serving.store.durable import write_atomically
from serving.store.rollbacks import RollbackRecord, as_json, from_json


@dataclass(frozen=True, slots=True)
class Kept:
    """`is_stored` once the state store has it too."""

    record: RollbackRecord
    is_stored: bool


class RollbackFile:
    """The file. One writer: the serving process that owns the folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> list[Kept]:
        """Oldest first; none where nothing was ever written. Raises `StoreUnusable` for a damaged file."""
        try:
            told = json.loads(self.path.read_bytes())["rollbacks"]
            return [Kept(from_json(each["record"]), bool(each["is_stored"])) for each in told]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreUnusable(
                f"{self.path} is damaged ({error!r})",
                next_step="move it away; only the status of past rollbacks is lost",
            ) from error

    def write(self, kept: Sequence[Kept]) -> None:
        """Replace the list; on disk when this returns."""
        told = [{"record": as_json(each.record), "is_stored": each.is_stored} for each in kept]
        write_atomically(self.path, json.dumps({"rollbacks": told}, indent=1).encode())
