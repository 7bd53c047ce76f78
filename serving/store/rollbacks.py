"""Rollbacks: one row per way back, whoever took it; at most one that is still under way per model.

A gradual one, and what remains to be restored after an instant one, is worked on by flow
`roll-back-model`, which notes each step here before the next begins. One that serving took by itself
arrives finished, late where the store was away.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Engine, Row, select, update

from serving.core.errors import ChangeRefused, NotServed
from serving.store import audit, outbox, schema
from serving.store.audit import AuditEntry
from serving.store.database import insert_new, reading, writing
from serving.store.leases import Lease, fence
from serving.store.outbox import Notice
from serving.store.text import JsonValue, json_text, read_optional_time, read_time, time_text

_table = schema.rollbacks


class Strategy(StrEnum):
    INSTANT = "instant"
    GRADUAL = "gradual"
    EMERGENCY = "emergency"


class State(StrEnum):
    OPEN = "open"
    COMPLETED = "completed"
    FAILED = "failed"
    SUPERSEDED = "superseded"

    @property
    def is_terminal(self) -> bool:
        return self is not State.OPEN


class Step(StrEnum):
    """The durable steps, in order; the stages of a gradual one lie between SAVED and MOVED as `stage_N`."""

    REQUESTED = "requested"
    VERIFIED = "verified"
    SAVED = "saved"
    MOVED = "moved"
    APPLIED = "applied"
    RESTORED = "restored"


@dataclass(frozen=True, slots=True, kw_only=True)
class RollbackRecord:
    """`step` is a `Step` or `stage_N`; `evidence` is what each step found, by its name."""

    id: str
    model: str
    strategy: Strategy
    from_version: str
    to_version: str
    restore_point: str | None
    state: State
    step: str
    actor: str
    reason: str
    created_at: datetime
    updated_at: datetime
    message: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    evidence: Mapping[str, Any] = field(default_factory=dict)
    finished_at: datetime | None = None


def enter(engine: Engine, record: RollbackRecord) -> RollbackRecord:
    """Put a rollback that is to be worked on in the books.

    One to the same version that is under way already is joined: what comes back is that one. Raises
    `ChangeRefused` naming who is taking the model elsewhere.
    """
    with writing(engine) as connection:
        if insert_new(connection, _table, _values(record) | {"open_model": record.model}):
            _audit(connection, record, record.actor, record.created_at, step=record.step)
            return record
        row = connection.execute(select(_table).where(_table.c.open_model == record.model)).one_or_none()
    if row is None:
        return get(engine, record.id)
    present = _record(row)
    if (present.to_version, present.strategy) == (record.to_version, record.strategy):
        return present
    raise ChangeRefused(
        f"'{present.model}' is on its way back to version {present.to_version} ({present.strategy} rollback "
        f"{present.id} of {present.actor}): an instant or emergency rollback takes over, others wait",
        holder=present.id,
    )


def note_taken(engine: Engine, record: RollbackRecord) -> None:
    """Put one that serving has carried out in the books; it ends what was under way then. Repeatable."""
    values = _values(record)
    opened = {} if record.state.is_terminal else {"open_model": record.model}
    with writing(engine) as connection:
        _supersede(connection, record)
        if not insert_new(connection, _table, values | opened) and opened:
            # Another one began since: what remained to be restored is its business, or nobody's.
            ended = {"state": str(State.SUPERSEDED), "finished_at": values["updated_at"]}
            insert_new(connection, _table, values | ended)


def advance(
    engine: Engine,
    record: RollbackRecord,
    step: str,
    lease: Lease,
    now: datetime,
    evidence: Mapping[str, JsonValue] | None = None,
) -> RollbackRecord:
    """Note a finished step. Raises `ChangeRefused` when the lease, or the rollback itself, is over."""
    found = {**record.evidence, step: evidence} if evidence is not None else dict(record.evidence)
    values = {"step": step, "updated_at": time_text(now), "evidence": json_text(found)}
    with writing(engine) as connection:
        fence(connection, lease)
        if connection.execute(update(_table).where(_is_open(record.id)).values(values)).rowcount == 0:
            raise ChangeRefused(f"rollback {record.id} was ended by another one")
        _audit(connection, record, lease.holder, now, step=step)
        return _record(_row(connection, record.id))


def finish(
    engine: Engine,
    record: RollbackRecord,
    state: State,
    message: str,
    actor: str,
    now: datetime,
    notice: Notice | None,
) -> RollbackRecord:
    """Write the end, its audit row and its notice, once; what is finished stays as it is."""
    values = {
        "state": str(state),
        "message": message,
        "open_model": None,
        "updated_at": time_text(now),
        "finished_at": time_text(now),
    }
    with writing(engine) as connection:
        if connection.execute(update(_table).where(_is_open(record.id)).values(values)).rowcount:
            _audit(connection, record, actor, now, step=str(state), message=message)
            if notice is not None:
                outbox.enqueue(connection, notice, now)
        return _record(_row(connection, record.id))


def get(engine: Engine, rollback_id: str) -> RollbackRecord:
    """Raises `NotServed` for an unknown id."""
    with reading(engine) as connection:
        return _record(_row(connection, rollback_id))


def under_way(engine: Engine) -> list[RollbackRecord]:
    with reading(engine) as connection:
        rows = connection.execute(select(_table).where(_table.c.open_model.is_not(None)))
        return [_record(row) for row in rows]


def recent(engine: Engine, model: str | None = None, limit: int = 50) -> list[RollbackRecord]:
    """Newest first."""
    query = select(_table).order_by(_table.c.created_at.desc()).limit(limit)
    if model is not None:
        query = query.where(_table.c.model == model)
    with reading(engine) as connection:
        return [_record(row) for row in connection.execute(query)]


def refuse_under_way(connection: Connection, model: str) -> None:
    """Raise `ChangeRefused` for a model that is on its way back; part of the caller's transaction."""
    row = connection.execute(_open_of(model)).one_or_none()
    if row is not None:
        raise ChangeRefused(
            f"'{model}' is being rolled back to version {row.to_version} by {row.actor} (rollback {row.id}); "
            "promote when that has ended",
            holder=row.id,
        )


def as_json(record: RollbackRecord) -> dict[str, Any]:
    """A rollback for a file or an answer; `from_json` gives it back."""
    return {
        "id": record.id,
        "model": record.model,
        "strategy": str(record.strategy),
        "from_version": record.from_version,
        "to_version": record.to_version,
        "restore_point": record.restore_point,
        "state": str(record.state),
        "step": record.step,
        "actor": record.actor,
        "reason": record.reason,
        "message": record.message,
        "options": dict(record.options),
        "evidence": dict(record.evidence),
        "created_at": time_text(record.created_at),
        "updated_at": time_text(record.updated_at),
        "finished_at": time_text(record.finished_at) if record.finished_at else None,
    }


def from_json(told: Mapping[str, Any]) -> RollbackRecord:
    """Raises `KeyError`, `TypeError` or `ValueError` for anything that `as_json` did not give."""
    return RollbackRecord(
        **dict(told)
        | {
            "strategy": Strategy(told["strategy"]),
            "state": State(told["state"]),
            "created_at": read_time(told["created_at"]),
            "updated_at": read_time(told["updated_at"]),
            "finished_at": read_optional_time(told["finished_at"]),
        }
    )


def _supersede(connection: Connection, by: RollbackRecord) -> None:
    row = connection.execute(_open_of(by.model)).one_or_none()
    if row is None or row.id == by.id or read_time(row.created_at) > by.created_at:
        return
    message = f"{by.strategy} rollback {by.id} of {by.actor} took over"
    values = {
        "state": str(State.SUPERSEDED),
        "message": message,
        "open_model": None,
        "updated_at": time_text(by.created_at),
        "finished_at": time_text(by.created_at),
    }
    connection.execute(update(_table).where(_table.c.id == row.id).values(values))
    _audit(connection, _record(row), by.actor, by.created_at, step=str(State.SUPERSEDED), message=message)


def _open_of(model: str) -> Any:
    return select(_table).where(_table.c.open_model == model)


def _is_open(rollback_id: str) -> Any:
    return (_table.c.id == rollback_id) & _table.c.open_model.is_not(None)


def _row(connection: Connection, rollback_id: str) -> Row[Any]:
    row = connection.execute(select(_table).where(_table.c.id == rollback_id)).one_or_none()
    if row is None:
        raise NotServed(f"there is no rollback {rollback_id}")
    return row


def _audit(
    connection: Connection, record: RollbackRecord, actor: str, now: datetime, **details: JsonValue
) -> None:
    about: dict[str, JsonValue] = {
        "rollback_id": record.id,
        "from_version": record.from_version,
        "strategy": str(record.strategy),
        "reason": record.reason,
        "restore_point": record.restore_point,
    }
    entry = AuditEntry(
        action="roll_back",
        actor=actor,
        model=record.model,
        version=record.to_version,
        details={**about, **details},
        at=now,
    )
    audit.append(connection, entry)


def _values(record: RollbackRecord) -> dict[str, Any]:
    told = as_json(record)
    return told | {"options": json_text(told["options"]), "evidence": json_text(told["evidence"])}


def _record(row: Row[Any]) -> RollbackRecord:
    told = dict(row._mapping)
    del told["open_model"]
    return from_json(told | {"options": json.loads(row.options), "evidence": json.loads(row.evidence)})
