"""Model files that the scan has seen: when each last changed, and which version it became.

One row per path. A row in state REGISTERING is the intent of a registration: whoever finds it after a
crash knows what may lie half-made in the registry. What a file once became stays noted while it
changes again, so that a touched file is known as the old one.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Engine, Row, delete, select, update

from serving.store import schema
from serving.store.database import insert_new, reading, writing
from serving.store.text import json_text, read_optional_time, read_time, time_text

_table = schema.model_files
_MAX_PATH = 1024
_KEPT_OF_PATH = 900


class State(StrEnum):
    CHANGING = "changing"
    REGISTERING = "registering"
    REGISTERED = "registered"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFile:
    """One path. `members` are the weight files that belong to it, `attached` what its side file names
    (evaluation set, example, labels), both as paths relative to its folder.

    `fingerprint` is of sizes and times, `since` when it was first seen so; both digests, `model`,
    `version`, `reason` and `side` (the side file as plain values) are those of the last outcome.
    """

    path: str
    members: tuple[str, ...] = ()
    attached: tuple[str, ...] = ()
    fingerprint: str
    since: datetime
    state: State = State.CHANGING
    source_digest: str | None = None
    side_digest: str | None = None
    model: str | None = None
    version: str | None = None
    reason: str | None = None
    side: Mapping[str, Any] | None = None
    attempt: str | None = None
    missing_since: datetime | None = None


def key_of(path: str) -> str:
    """The path as it is stored: as valid text, and of one that no index takes, beginning and digest."""
    raw = path.encode(errors="surrogateescape")
    text = raw.decode(errors="backslashreplace")
    if len(text) <= _MAX_PATH:
        return text
    return f"{text[:_KEPT_OF_PATH]}#{hashlib.sha256(raw).hexdigest()}"


def known(engine: Engine) -> dict[str, ModelFile]:
    """Every noted file by the `key_of` its path."""
    with reading(engine) as connection:
        return {row.path: _model_file(row) for row in connection.execute(select(_table))}


def get(engine: Engine, path: str) -> ModelFile | None:
    with reading(engine) as connection:
        row = connection.execute(select(_table).where(_table.c.path == key_of(path))).one_or_none()
    return None if row is None else _model_file(row)


def put(connection: Connection, file: ModelFile, now: datetime) -> None:
    """Note a file as part of the caller's `writing` transaction, over what was noted of its path."""
    values = _values(file, now)
    if not insert_new(connection, _table, values):
        connection.execute(update(_table).where(_table.c.path == values["path"]).values(values))


def put_all(engine: Engine, files: Iterable[ModelFile], now: datetime) -> None:
    with writing(engine) as connection:
        for file in files:
            put(connection, file, now)


def forget(engine: Engine, paths: Iterable[str]) -> None:
    with writing(engine) as connection:
        for path in paths:
            connection.execute(delete(_table).where(_table.c.path == key_of(path)))


def _values(file: ModelFile, now: datetime) -> dict[str, Any]:
    return {
        "path": key_of(file.path),
        "members": json_text(file.members),
        "attached": json_text(file.attached),
        "fingerprint": file.fingerprint,
        "since": time_text(file.since),
        "state": str(file.state),
        "source_digest": file.source_digest,
        "side_digest": file.side_digest,
        "model": file.model,
        "version": file.version,
        "reason": file.reason,
        "side": None if file.side is None else json_text(file.side),
        "attempt": file.attempt,
        "missing_since": None if file.missing_since is None else time_text(file.missing_since),
        "updated_at": time_text(now),
    }


def _model_file(row: Row[Any]) -> ModelFile:
    return ModelFile(
        path=row.path,
        members=tuple(json.loads(row.members)),
        attached=tuple(json.loads(row.attached)),
        fingerprint=row.fingerprint,
        since=read_time(row.since),
        state=State(row.state),
        source_digest=row.source_digest,
        side_digest=row.side_digest,
        model=row.model,
        version=row.version,
        reason=row.reason,
        side=None if row.side is None else json.loads(row.side),
        attempt=row.attempt,
        missing_since=read_optional_time(row.missing_since),
    )
