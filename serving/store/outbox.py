"""Notices to people, queued with the fact they report and delivered later by a flow.

Called inside the transaction that records the fact, so neither exists without the other. While a
notice is undelivered, another with the same `dedup_key` is not queued.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Engine, Row, func, select, update

from serving.store import schema
from serving.store.database import insert_new, reading, writing
from serving.store.text import JsonValue, json_text, read_optional_time, read_time, time_text

_table = schema.outbox


class Severity(StrEnum):
    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """What somebody should hear of. `kind` groups notices, `title` is one readable sentence."""

    kind: str
    severity: Severity
    title: str
    model: str | None = None
    version: str | None = None
    facts: Mapping[str, JsonValue] = field(default_factory=dict)
    dedup_key: str


@dataclass(frozen=True, slots=True)
class QueuedNotice:
    """A notice with its way through the outbox."""

    id: int
    notice: Notice
    created_at: datetime
    next_try_at: datetime
    attempts: int
    last_error: str | None
    delivered_at: datetime | None
    receipt: str | None


def enqueue(connection: Connection, notice: Notice, now: datetime) -> None:
    """Queue a notice as part of the caller's `writing` transaction."""
    values = {
        "kind": notice.kind,
        "severity": str(notice.severity),
        "title": notice.title,
        "model": notice.model,
        "version": notice.version,
        "facts": json_text(notice.facts),
        "dedup_key": notice.dedup_key,
        "undelivered_key": notice.dedup_key,
        "created_at": time_text(now),
        "next_try_at": time_text(now),
        "attempts": 0,
    }
    insert_new(connection, _table, values)


def pending(engine: Engine, now: datetime, limit: int = 100) -> list[QueuedNotice]:
    """Undelivered notices whose time has come, oldest first."""
    due = (_table.c.delivered_at.is_(None), _table.c.next_try_at <= time_text(now))
    query = select(_table).where(*due).order_by(_table.c.id).limit(limit)
    with reading(engine) as connection:
        return [_queued(row) for row in connection.execute(query)]


def waiting(engine: Engine) -> int:
    """How many notices are undelivered, due or not."""
    query = select(func.count()).select_from(_table).where(_table.c.delivered_at.is_(None))
    with reading(engine) as connection:
        return connection.execute(query).scalar_one()


def claim(engine: Engine, queued: QueuedNotice, until: datetime, receipt: str) -> bool:
    """Take a notice for one attempt; False when another delivery got it first.

    Nobody else sees it as due before `until`. `receipt` says what is about to be tried, for whoever
    finds the notice after a crash.
    """
    as_seen = (_table.c.id == queued.id, _table.c.delivered_at.is_(None))
    same_time = _table.c.next_try_at == time_text(queued.next_try_at)
    values = {"next_try_at": time_text(until), "receipt": receipt}
    with writing(engine) as connection:
        return connection.execute(update(_table).where(*as_seen, same_time).values(values)).rowcount == 1


def delivered(engine: Engine, id: int, receipt: str, now: datetime) -> None:
    """Note the delivery; the first receipt stays."""
    values = {"delivered_at": time_text(now), "receipt": receipt, "undelivered_key": None}
    _settle(engine, id, {**values, "attempts": _table.c.attempts + 1})


def failed(engine: Engine, id: int, error: str, retry_at: datetime, receipt: str | None = None) -> None:
    """Note a failed attempt, when to try again, and how far the notice got if that is known."""
    values: dict[str, object] = {"last_error": error, "next_try_at": time_text(retry_at)}
    if receipt is not None:
        values["receipt"] = receipt
    _settle(engine, id, {**values, "attempts": _table.c.attempts + 1})


def recent(engine: Engine, limit: int = 50) -> list[QueuedNotice]:
    """The last notices, delivered or not, newest last."""
    query = select(_table).order_by(_table.c.id.desc()).limit(limit)
    with reading(engine) as connection:
        return [_queued(row) for row in reversed(connection.execute(query).all())]


def _settle(engine: Engine, id: int, values: Mapping[str, object]) -> None:
    undelivered = (_table.c.id == id, _table.c.delivered_at.is_(None))
    with writing(engine) as connection:
        connection.execute(update(_table).where(*undelivered).values(values))


def _queued(row: Row[Any]) -> QueuedNotice:
    notice = Notice(
        kind=row.kind,
        severity=Severity(row.severity),
        title=row.title,
        model=row.model,
        version=row.version,
        facts=json.loads(row.facts),
        dedup_key=row.dedup_key,
    )
    return QueuedNotice(
        id=row.id,
        notice=notice,
        created_at=read_time(row.created_at),
        next_try_at=read_time(row.next_try_at),
        attempts=row.attempts,
        last_error=row.last_error,
        delivered_at=read_optional_time(row.delivered_at),
        receipt=row.receipt,
    )
