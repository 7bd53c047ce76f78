"""Telemetry grows coarser with age: seconds become minutes, minutes hours, and old hours go.

Called again and again by whoever holds the lease, a bounded number of rows at a time. Rows are added to
the coarser span and removed in one transaction, so that a reader sees every request once at any moment.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, Row, Table, delete, select

from serving.store import resources, schema, telemetry
from serving.store.database import writing
from serving.store.leases import Lease, fence
from serving.store.telemetry import HOUR, MINUTE, SECOND, second_of

# A transaction of this many rows takes about a twentieth of a second.
_BATCH_ROWS = 200
_TABLES = (schema.telemetry, schema.resources)


@dataclass(frozen=True, slots=True)
class Kept:
    """For how long spans of each length stay."""

    seconds: timedelta = timedelta(hours=2)
    minutes: timedelta = timedelta(days=2)
    hours: timedelta = timedelta(days=90)


@dataclass(frozen=True, slots=True)
class _Fold:
    """Rows of `step` seconds that begin before `before` become ones of `into` seconds."""

    step: int
    into: int
    before: int


def downsample(engine: Engine, lease: Lease, kept: Kept, now: datetime, max_rows: int = 4000) -> int:
    """Make coarser what is due, about `max_rows` rows at most, and return how many those were.

    Raises:
        ChangeRefused: the lease is somebody else's by now; the last transaction was undone.
        StoreUnavailable: the store did not answer; what was done stays done.
    """
    done = 0
    for fold in _folds(kept, now):
        for table in _TABLES:
            while done < max_rows and (count := _fold(engine, lease, table, fold)):
                done += count
    _forget(engine, lease, second_of(now - kept.hours))
    return done


def _folds(kept: Kept, now: datetime) -> Iterator[_Fold]:
    """Whole spans only: one that still fills up would be written again and again."""
    for step, into, age in ((SECOND, MINUTE, kept.seconds), (MINUTE, HOUR, kept.minutes)):
        yield _Fold(step, into, second_of(now - age) // into * into)


def _fold(engine: Engine, lease: Lease, table: Table, fold: _Fold) -> int:
    """One transaction's worth; 0 when nothing is due any more."""
    with writing(engine) as connection:
        fence(connection, lease)
        rows = _due(connection, table, fold)
        if table is schema.telemetry:
            for window in telemetry.merged(map(telemetry.window_of, rows), fold.into):
                telemetry.add(connection, window)
        else:
            for usage in resources.merged(map(resources.usage_of, rows), fold.into):
                resources.add(connection, usage)
        for row in rows:
            same = [column == getattr(row, column.name) for column in table.primary_key.columns]
            connection.execute(delete(table).where(*same))
    return len(rows)


def _due(connection: Connection, table: Table, fold: _Fold) -> Sequence[Row[Any]]:
    """Locked, because a worker that catches up may just be adding to one of them."""
    query = (
        select(table)
        .where(table.c.step_seconds == fold.step, table.c.start < fold.before)
        .order_by(table.c.start)
        .limit(_BATCH_ROWS)
        .with_for_update()
    )
    return connection.execute(query).all()


def _forget(engine: Engine, lease: Lease, before: int) -> None:
    with writing(engine) as connection:
        fence(connection, lease)
        for table in _TABLES:
            old = (table.c.step_seconds == HOUR, table.c.start < before)
            connection.execute(delete(table).where(*old))
