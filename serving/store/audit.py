"""The audit trail: who did what to which model, in an order nobody can change unseen.

Each row's hash covers its text and the hash before it; the head row names the last, so a cut-off end
shows too. Appends queue on the head row. The columns beside the text only serve queries and are
checked against it.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, Engine, Row, insert, select, update

from serving.core.errors import StoreUnusable
from serving.store import schema
from serving.store.database import reading
from serving.store.text import JsonValue, json_text, read_time, time_text

GENESIS = "0" * 64
_BATCH_ROWS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One fact to record. Appending the same `id` again changes nothing."""

    action: str
    actor: str
    model: str | None = None
    version: str | None = None
    details: Mapping[str, JsonValue] = field(default_factory=dict)
    at: datetime
    id: str = field(default_factory=lambda: uuid4().hex)


@dataclass(frozen=True, slots=True)
class AuditRow:
    """A recorded entry with its place in the chain."""

    seq: int
    entry: AuditEntry
    hash: str


class Verdict(StrEnum):
    INTACT = "intact"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Verification:
    """`rows` are those found in order; `first_broken` is the number of the first that is not."""

    verdict: Verdict
    rows: int
    first_broken: int | None
    reason: str


def append(connection: Connection, entry: AuditEntry) -> AuditRow:
    """Add an entry to the chain as part of the caller's `writing` transaction.

    Call it last in a transaction: it holds the head row, on which every other writer waits, until
    the commit.
    """
    head = connection.execute(select(schema.audit_head).with_for_update()).one_or_none()
    if head is None:
        raise StoreUnusable(
            "the audit trail has lost its head row", next_step="put back a copy of the state store"
        )
    known = connection.execute(select(schema.audit).where(schema.audit.c.entry_id == entry.id)).one_or_none()
    if known is not None:
        return _row(known)
    text, seq = entry_text(entry), head.seq + 1
    digest = _chained(head.hash, text)
    values = {**_columns(text), "seq": seq, "text": text, "prev_hash": head.hash, "hash": digest}
    connection.execute(insert(schema.audit).values(values))
    connection.execute(update(schema.audit_head).values(seq=seq, hash=digest))
    return AuditRow(seq, read_entry(text), digest)


def tail(
    engine: Engine, limit: int = 50, model: str | None = None, action: str | None = None
) -> list[AuditRow]:
    """The last rows that match, newest last."""
    query = select(schema.audit).order_by(schema.audit.c.seq.desc()).limit(limit)
    if model is not None:
        query = query.where(schema.audit.c.model == model)
    if action is not None:
        query = query.where(schema.audit.c.action == action)
    with reading(engine) as connection:
        return [_row(row) for row in reversed(connection.execute(query).all())]


def verify(engine: Engine) -> Verification:
    """Recompute the chain from its first row; rows appended meanwhile do no harm."""
    with reading(engine) as connection:
        head = connection.execute(select(schema.audit_head)).one_or_none()
        if head is None:
            return Verification(Verdict.BROKEN, 0, None, "the head row, which names the last row, is missing")
        seq, digest = 0, GENESIS
        for row in _rows_up_to(connection, head.seq):
            problem = _problem(row, seq + 1, digest)
            if problem is not None:
                return Verification(Verdict.BROKEN, seq, seq + 1, problem)
            seq, digest = row.seq, row.hash
        stray = connection.execute(_stray_row).scalar()
    if seq != head.seq:
        return Verification(Verdict.BROKEN, seq, seq + 1, f"row {seq + 1} is missing, up to row {head.seq}")
    if stray is not None:
        return Verification(Verdict.BROKEN, seq, seq + 1, f"row {stray} is not covered by the head row")
    if digest != head.hash:
        return Verification(Verdict.BROKEN, seq, seq, "the last row's hash is not the one in the head row")
    return Verification(Verdict.INTACT, seq, None, f"{seq} rows, each hash as computed")


def entry_text(entry: AuditEntry) -> str:
    """The canonical text of an entry: what is hashed, and what the journal keeps."""
    return json_text(
        {
            "action": entry.action,
            "actor": entry.actor,
            "at": time_text(entry.at),
            "details": entry.details,
            "id": entry.id,
            "model": entry.model,
            "version": entry.version,
        }
    )


def read_entry(text: str) -> AuditEntry:
    """The entry that `entry_text` wrote; raises ValueError, KeyError or TypeError on anything else."""
    fields = json.loads(text)
    return AuditEntry(**{**fields, "at": read_time(fields["at"])})


# One statement, so that an append between two reads cannot look like a stray row.
_stray_row = (
    select(schema.audit.c.seq)
    .join(schema.audit_head, schema.audit.c.seq > schema.audit_head.c.seq)
    .order_by(schema.audit.c.seq)
    .limit(1)
)


def _rows_up_to(connection: Connection, last: int) -> Iterator[Row[Any]]:
    done: int | None = None
    while True:
        query = select(schema.audit).where(schema.audit.c.seq <= last)
        if done is not None:
            query = query.where(schema.audit.c.seq > done)
        rows = connection.execute(query.order_by(schema.audit.c.seq).limit(_BATCH_ROWS)).all()
        if not rows:
            return
        yield from rows
        done = rows[-1].seq


def _problem(row: Row[Any], seq: int, prev_hash: str) -> str | None:
    if row.seq != seq:
        return f"row {seq} is missing; the next is row {row.seq}"
    if row.prev_hash != prev_hash:
        return f"row {seq} does not follow the hash of the row before it"
    if row.hash != _chained(prev_hash, str(row.text)):
        return f"row {seq}: its text does not give its hash"
    expected = _columns(row.text)
    wrong = [name for name, value in expected.items() if getattr(row, name) != value]
    return f"row {seq}: column {wrong[0]} differs from the text" if wrong else None


def _columns(text: str) -> dict[str, str | None]:
    fields = json.loads(text)
    names = ("at", "action", "actor", "model", "version")
    return {"entry_id": fields["id"], **{name: fields[name] for name in names}}


def _chained(prev_hash: str, text: str) -> str:
    return hashlib.sha256((prev_hash + text).encode(errors="surrogateescape")).hexdigest()


def _row(row: Row[Any]) -> AuditRow:
    return AuditRow(row.seq, _entry_of(row), row.hash)


def _entry_of(row: Row[Any]) -> AuditEntry:
    try:
        return read_entry(row.text)
    except (ValueError, KeyError, TypeError):
        # A tampered row is shown by its columns; `verify` is what names it.
        return AuditEntry(
            action=row.action,
            actor=row.actor,
            model=row.model,
            version=row.version,
            details={"unreadable": str(row.text)},
            at=read_time(row.at),
            id=row.entry_id,
        )
