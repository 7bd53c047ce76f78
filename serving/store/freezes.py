"""Freezes: until a moment, nobody promotes a model, or any model; going back stays possible.

Every way into a promotion asks here in the transaction that would open its rollout, so that no freeze
is missed by a moment. Rows stay as history; one per model, and one for all models, is in force.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, Engine, Row, insert, select, update

from serving.core.errors import ChangeRefused, NotServed
from serving.store import audit, schema
from serving.store.audit import AuditEntry
from serving.store.database import reading, writing
from serving.store.text import JsonValue, read_time, time_text

_table = schema.freezes
_EVERY_MODEL = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Freeze:
    """`model` None freezes every model."""

    id: str
    model: str | None
    until: datetime
    reason: str
    created_at: datetime
    created_by: str

    def __str__(self) -> str:
        subject = "every model is" if self.model is None else f"'{self.model}' is"
        why = f" ({self.reason})" if self.reason else ""
        until = self.until.isoformat(timespec="seconds")
        return f"{subject} frozen by {self.created_by} until {until}{why}"

    def as_json(self) -> dict[str, JsonValue]:
        return {
            "id": self.id,
            "model": self.model,
            "until": time_text(self.until),
            "reason": self.reason,
            "created_at": time_text(self.created_at),
            "created_by": self.created_by,
        }


def freeze(
    engine: Engine, model: str | None, until: datetime, actor: str, reason: str, now: datetime
) -> Freeze:
    """Freeze a model, or every model; an earlier freeze of the same is replaced."""
    if until <= now:
        raise ChangeRefused(f"{time_text(until)} is over already; a freeze needs a later end")
    new = Freeze(id=uuid4().hex, model=model, until=until, reason=reason, created_at=now, created_by=actor)
    values = {
        "id": new.id,
        "model": model or _EVERY_MODEL,
        "active_model": model or _EVERY_MODEL,
        "until": time_text(until),
        "reason": reason,
        "created_at": time_text(now),
        "created_by": actor,
    }
    with writing(engine) as connection:
        _end(connection, model, actor, now)
        connection.execute(insert(_table).values(values))
        _audit(connection, new, "frozen", actor, now)
    return new


def lift(engine: Engine, model: str | None, actor: str, now: datetime) -> Freeze:
    """End a freeze before its time. Raises `NotServed` where there is none."""
    with writing(engine) as connection:
        found = next((f for f in _in_force(connection, now) if f.model == model), None)
        if found is None:
            subject = f"'{model}'" if model is not None else "every model"
            raise NotServed(f"there is no freeze of {subject}")
        _end(connection, model, actor, now)
        _audit(connection, found, "lifted", actor, now)
    return found


def in_force(engine: Engine, now: datetime) -> list[Freeze]:
    """Freezes that hold now, those of every model first."""
    with reading(engine) as connection:
        return _in_force(connection, now)


def of_model(engine: Engine, model: str, now: datetime) -> Freeze | None:
    """The freeze that keeps a model from being promoted, the one that lasts longest."""
    with reading(engine) as connection:
        return _of_model(connection, model, now)


def refuse_frozen(connection: Connection, model: str, now: datetime) -> None:
    """Raise `ChangeRefused` for a model that is frozen; part of the caller's transaction."""
    if (frozen := _of_model(connection, model, now)) is not None:
        step = "rolling back stays possible; lift it with 'signalbox freeze"
        subject = f" {frozen.model}" if frozen.model is not None else ""
        raise ChangeRefused(f"{frozen}: nothing is promoted; {step}{subject} --lift'")


def _of_model(connection: Connection, model: str, now: datetime) -> Freeze | None:
    found = [freeze for freeze in _in_force(connection, now) if freeze.model in (None, model)]
    return max(found, key=lambda freeze: freeze.until, default=None)


def _in_force(connection: Connection, now: datetime) -> list[Freeze]:
    holds = (_table.c.active_model.is_not(None), _table.c.until > time_text(now))
    rows = connection.execute(select(_table).where(*holds).order_by(_table.c.model))
    return [_freeze(row) for row in rows]


def _end(connection: Connection, model: str | None, actor: str, now: datetime) -> None:
    values = {"active_model": None, "lifted_at": time_text(now), "lifted_by": actor}
    is_it = _table.c.active_model == (model or _EVERY_MODEL)
    connection.execute(update(_table).where(is_it).values(values))


def _audit(connection: Connection, freeze: Freeze, step: str, actor: str, now: datetime) -> None:
    details = {"step": step, "until": time_text(freeze.until), "reason": freeze.reason, "freeze": freeze.id}
    entry = AuditEntry(action="freeze", actor=actor, model=freeze.model, details=details, at=now)
    audit.append(connection, entry)


def _freeze(row: Row[Any]) -> Freeze:
    return Freeze(
        id=row.id,
        model=row.model or None,
        until=read_time(row.until),
        reason=row.reason,
        created_at=read_time(row.created_at),
        created_by=row.created_by,
    )
