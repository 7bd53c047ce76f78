"""The rollbacks this server took, on its own disk: known over a restart, and with the store away."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from serving.core.errors import StoreUnusable
from serving.store.durable import exclusive, write_atomically
from serving.store.rollbacks import RollbackRecord, as_json, from_json


@dataclass(frozen=True, slots=True)
class Kept:
    """`is_stored` once the state store has it too."""

    record: RollbackRecord
    is_stored: bool


class RollbackFile:
    """The file, of all workers of a server. Changed as a whole, under a lock, one at a time."""

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

    def change(self, change: Callable[[list[Kept]], list[Kept]]) -> None:
        """Apply `change` to what is there; on disk when this returns. OSError where the disk refuses."""
        with exclusive(self.path.with_name(self.path.name + ".lock")):
            after = change(self.read())
            told = [{"record": as_json(each.record), "is_stored": each.is_stored} for each in after]
            write_atomically(self.path, json.dumps({"rollbacks": told}, indent=1).encode())
