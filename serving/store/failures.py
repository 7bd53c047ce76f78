"""What went wrong in inference, one row per cause: how often, first and last, and one full example.

Written by serving from its telemetry thread, read by model-info and `GET /api/v2/errors`. Bounded: per
model the most recent causes stay.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, Row, delete, select, update

from serving.core.model import VersionRef
from serving.store import schema
from serving.store.database import insert_new, reading, writing
from serving.store.text import read_time, time_text

_table = schema.failures

MAX_PER_MODEL = 200
_FORGET = timedelta(days=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """Failures with one fingerprint. Message, inputs, request and traceback are of the latest."""

    fingerprint: str
    ref: VersionRef
    error: str
    place: str
    message: str
    inputs: str
    request_id: str
    traceback: str
    times: int
    first_seen_at: datetime
    last_seen_at: datetime

    def plus(self, later: "Cause") -> "Cause":
        """The same cause, seen again."""
        return replace(later, times=self.times + later.times, first_seen_at=self.first_seen_at)


def note(engine: Engine, causes: Sequence[Cause], now: datetime) -> None:
    """Add to what is known of each cause, all or none, and forget what is old or too much."""
    with writing(engine) as connection:
        for cause in causes:
            _add(connection, cause)
        connection.execute(delete(_table).where(_table.c.last_seen_at < time_text(now - _FORGET)))
        for model in {cause.ref.model for cause in causes}:
            _trim(connection, model)


def recent(
    engine: Engine, model: str | None = None, version: str | None = None, limit: int = 50
) -> list[Cause]:
    """The causes seen last, newest first."""
    query = select(_table)
    if model is not None:
        query = query.where(_table.c.model == model)
    if version is not None:
        query = query.where(_table.c.version == version)
    query = query.order_by(_table.c.last_seen_at.desc(), _table.c.fingerprint).limit(limit)
    with reading(engine) as connection:
        return [_cause(row) for row in connection.execute(query)]


def _add(connection: Connection, cause: Cause) -> None:
    latest = {
        "message": cause.message,
        "inputs": cause.inputs,
        "request_id": cause.request_id,
        "traceback": cause.traceback,
        "last_seen_at": time_text(cause.last_seen_at),
    }
    fixed = {
        "fingerprint": cause.fingerprint,
        "model": cause.ref.model,
        "version": cause.ref.version,
        "error": cause.error,
        "place": cause.place,
        "times": cause.times,
        "first_seen_at": time_text(cause.first_seen_at),
    }
    if not insert_new(connection, _table, fixed | latest):
        same = _table.c.fingerprint == cause.fingerprint
        counted = {"times": _table.c.times + cause.times}
        connection.execute(update(_table).where(same).values(latest | counted))


def _trim(connection: Connection, model: str) -> None:
    kept = (
        select(_table.c.fingerprint)
        .where(_table.c.model == model)
        .order_by(_table.c.last_seen_at.desc(), _table.c.fingerprint)
        .limit(MAX_PER_MODEL)
    )
    kept_names = list(connection.scalars(kept))
    if len(kept_names) == MAX_PER_MODEL:
        surplus = (_table.c.model == model, _table.c.fingerprint.not_in(kept_names))
        connection.execute(delete(_table).where(*surplus))


def _cause(row: Row[Any]) -> Cause:
    return Cause(
        fingerprint=row.fingerprint,
        ref=VersionRef(row.model, row.version),
        error=row.error,
        place=row.place,
        message=row.message,
        inputs=row.inputs,
        request_id=row.request_id,
        traceback=row.traceback,
        times=row.times,
        first_seen_at=read_time(row.first_seen_at),
        last_seen_at=read_time(row.last_seen_at),
    )
