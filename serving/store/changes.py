"""Every change of an alias or a traffic tag on record: what was meant, what came of it, what hands did.

The guard writes an intent before it touches the registry and its outcome after; the watcher compares
what it observes with the latest record. An intent without outcome is a change that a crash cut short.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Engine, Row, func, insert, or_, select, update

from serving.core.errors import ChangeRefused
from serving.core.model import Tag
from serving.store import audit, outbox, schema
from serving.store.audit import AuditEntry
from serving.store.database import insert_new, reading, writing
from serving.store.leases import Lease, fence, hold
from serving.store.outbox import Notice
from serving.store.text import JsonValue, read_optional_time, read_time, time_text

OUT_OF_BAND_ACTOR = "registry"
"""Audited actor of a change somebody made in the registry itself: MLflow does not say who."""

_table = schema.alias_changes


class Outcome(StrEnum):
    APPLIED = "applied"
    FAILED = "failed"
    SUPERSEDED = "superseded"
    # Left open by a process that died, and not seen in the registry when somebody took over: of all intents
    # that came to nothing the only ones whose write may still arrive.
    ABANDONED = "abandoned"


@dataclass(frozen=True, slots=True)
class ChangeIntent:
    """A change about to be made; a version is None where the alias is (or shall be) absent.

    A change of the traffic tag has the tag's name for an alias and its texts for versions: no alias of
    MLflow can have a dot in its name.
    """

    model: str
    alias: str
    from_version: str | None
    to_version: str | None
    epoch: int
    actor: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedChange:
    """A change on record. `outcome` is None while open, `epoch` None for one made out of band."""

    id: int
    model: str
    alias: str
    from_version: str | None
    to_version: str | None
    epoch: int | None
    actor: str
    reason: str
    at: datetime
    outcome: Outcome | None
    evidence: str | None
    settled_at: datetime | None
    out_of_band: bool


def intend(engine: Engine, intent: ChangeIntent, lease: Lease, *, now: datetime | None = None) -> int:
    """Record an intent under a current lease and return its id; `ChangeRefused` under a lost one."""
    if intent.epoch != lease.epoch:
        raise ChangeRefused(
            f"the change of {intent.model}@{intent.alias} was planned under epoch {intent.epoch}, but its "
            f"lease has epoch {lease.epoch}; plan it again",
            holder=lease.holder,
        )
    at = now or datetime.now(UTC)
    with writing(engine) as connection:
        fence(connection, lease)
        query = insert(_table).values(_values(intent, at)).returning(*_table.c)
        row = connection.execute(query).one()
        _audit(connection, row, "intent", at, {"reason": intent.reason})
    change_id: int = row.id
    return change_id


def settle(
    engine: Engine, change_id: int, outcome: Outcome, evidence: str, *, now: datetime | None = None
) -> bool:
    """Record what came of an intent; False, and nothing changes, where that is on record already."""
    at = now or datetime.now(UTC)
    values = {"outcome": str(outcome), "evidence": evidence, "settled_at": time_text(at)}
    with writing(engine) as connection:
        is_open = (_table.c.id == change_id, _table.c.outcome.is_(None))
        if connection.execute(update(_table).where(*is_open).values(values)).rowcount == 0:
            return False
        details: dict[str, JsonValue] = {"outcome": str(outcome), "evidence": evidence}
        _audit(connection, _row(connection, change_id), "outcome", at, details)
    return True


def settle_late(engine: Engine, change_id: int, evidence: str) -> None:
    """Record that an intent was carried out when others had gone on; audited also where it was settled."""
    at = datetime.now(UTC)
    values = {"outcome": str(Outcome.SUPERSEDED), "evidence": evidence, "settled_at": time_text(at)}
    is_undecided = or_(_table.c.outcome.is_(None), _table.c.outcome == str(Outcome.ABANDONED))
    with writing(engine) as connection:
        is_open = (_table.c.id == change_id, is_undecided)
        connection.execute(update(_table).where(*is_open).values(values))
        _audit(connection, _row(connection, change_id), "late", at, {"evidence": evidence})


def after(engine: Engine, change_id: int) -> RecordedChange | None:
    """The last change to another value that took place after this one was intended, if any did."""
    with reading(engine) as connection:
        mine = _row(connection, change_id)
        newer = (
            _table.c.id > change_id,
            _table.c.model == mine.model,
            _table.c.alias == mine.alias,
            _table.c.outcome == str(Outcome.APPLIED),
        )
        row = connection.execute(select(_table).where(*newer).order_by(_table.c.id.desc()).limit(1)).first()
    return None if row is None or row.to_version == mine.to_version else _recorded(row)


def open_intents(engine: Engine, model: str | None = None, alias: str | None = None) -> list[RecordedChange]:
    """Intents without an outcome, oldest first; of every model or alias where none is named."""
    query = select(_table).where(_table.c.outcome.is_(None)).order_by(_table.c.id)
    if model is not None:
        query = query.where(_table.c.model == model)
    if alias is not None:
        query = query.where(_table.c.alias == alias)
    with reading(engine) as connection:
        return [_recorded(row) for row in connection.execute(query)]


def abandoned(
    engine: Engine, model: str, alias: str, to_version: str | None, since: datetime
) -> RecordedChange | None:
    """The intent of a dead process to this version, given up since then, that nobody has carried out."""
    # SQLAlchemy writes `== None` as IS NULL.
    same = (_table.c.model == model, _table.c.alias == alias, _table.c.to_version == to_version)
    given_up = (_table.c.outcome == str(Outcome.ABANDONED), _table.c.settled_at >= time_text(since))
    query = select(_table).where(*same, *given_up).order_by(_table.c.id.desc()).limit(1)
    with reading(engine) as connection:
        if (row := connection.execute(query).one_or_none()) is None:
            return None
        carried_out = (*same, _table.c.id > row.id, _table.c.outcome == str(Outcome.APPLIED))
        is_spent = connection.execute(select(_table.c.id).where(*carried_out).limit(1)).first() is not None
    return None if is_spent else _recorded(row)


def latest(engine: Engine, model: str, alias: str) -> RecordedChange | None:
    """The last change of an alias that took place: an applied intent or an out-of-band record."""
    took_place = (_table.c.model == model, _table.c.alias == alias, _table.c.outcome == str(Outcome.APPLIED))
    query = select(_table).where(*took_place).order_by(_table.c.id.desc()).limit(1)
    with reading(engine) as connection:
        row = connection.execute(query).one_or_none()
    return None if row is None else _recorded(row)


def named_at(engine: Engine, model: str, alias: str, moment: datetime) -> RecordedChange | None:
    """The last change that had an alias name a version by a moment; None where none is on record."""
    took_place = (_table.c.model == model, _table.c.alias == alias, _table.c.outcome == str(Outcome.APPLIED))
    by_then = (_table.c.settled_at <= time_text(moment), _table.c.to_version.is_not(None))
    query = select(_table).where(*took_place, *by_then).order_by(_table.c.id.desc()).limit(1)
    with reading(engine) as connection:
        row = connection.execute(query).one_or_none()
    return None if row is None else _recorded(row)


def recent(engine: Engine, model: str, limit: int = 50) -> list[RecordedChange]:
    """The last recorded changes of a model's aliases, newest first, whatever became of them."""
    query = select(_table).where(_table.c.model == model).order_by(_table.c.id.desc()).limit(limit)
    with reading(engine) as connection:
        return [_recorded(row) for row in connection.execute(query)]


def record_out_of_band(
    engine: Engine,
    model: str,
    alias: str,
    from_version: str | None,
    to_version: str | None,
    follows_id: int,
    notice: Notice | None,
    *,
    now: datetime | None = None,
) -> bool:
    """Record a change somebody made in the registry, with its notice; True for the first recorder only.

    `follows_id` is the id of the change that was the latest on record before the registry was read, 0 where
    there was none. False also where that is the latest no more, or where an open intent tells of this
    version: what was read then is one of our own changes, or older than one.
    """
    at = now or datetime.now(UTC)
    values = {
        "model": model,
        "alias": alias,
        "from_version": from_version,
        "to_version": to_version,
        "actor": OUT_OF_BAND_ACTOR,
        "reason": "changed in the registry",
        "at": time_text(at),
        "outcome": str(Outcome.APPLIED),
        "settled_at": time_text(at),
        "follows_id": follows_id,
    }
    mine = (_table.c.model == model, _table.c.alias == alias, _table.c.follows_id == follows_id)
    with writing(engine) as connection:
        hold(connection, f"model:{model}")  # nobody begins a change meanwhile
        if (
            _is_ours(connection, model, alias, to_version)
            or _latest_id(connection, model, alias) != follows_id
        ):
            return False
        if not insert_new(connection, _table, values):
            return False
        if notice is not None:
            outbox.enqueue(connection, notice, at)
        row = connection.execute(select(_table).where(*mine)).one()
        _audit(connection, row, "observed", at, {"out_of_band": True, "follows_id": follows_id})
    return True


def _is_ours(connection: Connection, model: str, alias: str, version: str | None) -> bool:
    """Whether an open intent leads to this version, or away from it."""
    query = select(_table).where(_table.c.model == model, _table.c.alias == alias, _table.c.outcome.is_(None))
    return any(version in (row.from_version, row.to_version) for row in connection.execute(query))


def _latest_id(connection: Connection, model: str, alias: str) -> int:
    took_place = (_table.c.model == model, _table.c.alias == alias, _table.c.outcome == str(Outcome.APPLIED))
    found = connection.execute(select(func.max(_table.c.id)).where(*took_place)).scalar()
    return int(found or 0)


def _values(intent: ChangeIntent, at: datetime) -> dict[str, Any]:
    return {
        "model": intent.model,
        "alias": intent.alias,
        "from_version": intent.from_version,
        "to_version": intent.to_version,
        "epoch": intent.epoch,
        "actor": intent.actor,
        "reason": intent.reason,
        "at": time_text(at),
    }


def _audit(
    connection: Connection, row: Row[Any], step: str, at: datetime, details: dict[str, JsonValue]
) -> None:
    is_traffic = row.alias == Tag.TRAFFIC
    about: dict[str, JsonValue] = {
        "step": step,
        "alias": row.alias,
        "from": row.from_version,
        "to": row.to_version,
        "epoch": row.epoch,
        "change_id": row.id,
    }
    entry = AuditEntry(
        action="traffic" if is_traffic else "alias",
        actor=row.actor,
        model=row.model,
        version=None if is_traffic else row.to_version,
        details={**about, **details},
        at=at,
    )
    audit.append(connection, entry)


def _row(connection: Connection, change_id: int) -> Row[Any]:
    return connection.execute(select(_table).where(_table.c.id == change_id)).one()


def _recorded(row: Row[Any]) -> RecordedChange:
    return RecordedChange(
        id=row.id,
        model=row.model,
        alias=row.alias,
        from_version=row.from_version,
        to_version=row.to_version,
        epoch=row.epoch,
        actor=row.actor,
        reason=row.reason,
        at=read_time(row.at),
        outcome=None if row.outcome is None else Outcome(row.outcome),
        evidence=row.evidence,
        settled_at=read_optional_time(row.settled_at),
        out_of_band=row.follows_id is not None,
    )
