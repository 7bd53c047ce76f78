"""Restore points: what a model, its traffic and the system looked like at one moment, on record.

Written by every promotion before its first change, and by hand. A row never changes but for the verdict
of the scheduled check; its checksum covers everything else, so that a damaged one is never restored.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from typing import Any

from sqlalchemy import Connection, Engine, Row, delete, select, update

from serving.core.errors import ChangeRefused, NotServed
from serving.store import audit, outbox, schema
from serving.store.audit import AuditEntry
from serving.store.database import insert_new, reading, writing
from serving.store.outbox import Notice
from serving.store.text import JsonValue, json_text, read_optional_time, read_time, time_text

_table = schema.restore_points

_KEPT_PER_MODEL = 100


class Kind(StrEnum):
    AUTOMATIC = "automatic"
    BY_HAND = "by_hand"


class Verdict(StrEnum):
    """Whether the version of a point can still be served, by the last check."""

    NOT_CHECKED = "not_checked"
    RESTORABLE = "restorable"
    UNUSABLE = "unusable"


@dataclass(frozen=True, slots=True, kw_only=True)
class RestorePoint:
    """`state` is what `serving.store.snapshot` made; `champion` is None where there was none."""

    id: str
    model: str
    kind: Kind
    reason: str
    champion: str | None
    state: Mapping[str, Any]
    checksum: str
    created_at: datetime
    created_by: str
    verdict: Verdict = Verdict.NOT_CHECKED
    verdict_reason: str = ""
    checked_at: datetime | None = None

    @property
    def is_intact(self) -> bool:
        """Whether the row is what was written."""
        return self.checksum == _checksum(self)

    def as_json(self) -> dict[str, JsonValue]:
        return {
            "id": self.id,
            "model": self.model,
            "kind": str(self.kind),
            "reason": self.reason,
            "champion": self.champion,
            "state": self.state,
            "checksum": self.checksum,
            "created_at": time_text(self.created_at),
            "created_by": self.created_by,
            "verdict": str(self.verdict),
            "verdict_reason": self.verdict_reason,
            "checked_at": time_text(self.checked_at) if self.checked_at else None,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A restore point about to be written. One with the `id` of another is that other."""

    id: str
    model: str
    kind: Kind
    reason: str
    state: Mapping[str, JsonValue]
    created_by: str


def create(engine: Engine, draft: Draft, now: datetime) -> RestorePoint:
    """Write a point, or find the one with the same id: whoever was killed after writing writes no second."""
    state = json.loads(json_text(draft.state))
    point = RestorePoint(
        id=draft.id,
        model=draft.model,
        kind=draft.kind,
        reason=draft.reason,
        champion=state["model"]["aliases"].get("champion"),
        state=state,
        checksum="",
        created_at=now,
        created_by=draft.created_by,
    )
    values = {
        "id": point.id,
        "model": point.model,
        "kind": str(point.kind),
        "reason": point.reason,
        "champion": point.champion,
        "state": json_text(state),
        "checksum": _checksum(point),
        "created_at": time_text(now),
        "created_by": point.created_by,
        "verdict": str(Verdict.NOT_CHECKED),
        "verdict_reason": "",
    }
    with writing(engine) as connection:
        if insert_new(connection, _table, values):
            details: dict[str, JsonValue] = {
                "restore_point": point.id,
                "kind": str(point.kind),
                "reason": point.reason,
                "checksum": values["checksum"],
            }
            entry = AuditEntry(
                action="restore_point",
                actor=point.created_by,
                model=point.model,
                version=point.champion,
                details=details,
                at=now,
            )
            audit.append(connection, entry)
            _forget_old(connection, point)
    return get(engine, draft.id)


def get(engine: Engine, point_id: str) -> RestorePoint:
    """By its id, or the beginning of it. Raises `NotServed` where no point, or more than one, is meant."""
    wanted = _table.c.id.startswith(point_id, autoescape=True)
    with reading(engine) as connection:
        rows = connection.execute(select(_table).where(wanted).limit(2)).all()
    exact = [row for row in rows if row.id == point_id] or rows
    if not point_id or len(exact) != 1:
        problem = "more than one restore point begins with" if len(exact) > 1 else "there is no restore point"
        raise NotServed(f"{problem} '{point_id}'; see 'signalbox restore-points'")
    return _point(exact[0])


def listed(engine: Engine, model: str | None = None, limit: int = 50) -> list[RestorePoint]:
    """Newest first."""
    query = select(_table).order_by(_table.c.created_at.desc(), _table.c.id).limit(limit)
    if model is not None:
        query = query.where(_table.c.model == model)
    with reading(engine) as connection:
        return [_point(row) for row in connection.execute(query)]


def nearest(engine: Engine, model: str, version: str, moment: datetime | None = None) -> RestorePoint | None:
    """The point that shows best what the model was like when `version` was champion: of those with this
    champion the first since the moment, as points are made before changes, else the last before it.
    """
    is_it = (_table.c.model == model, _table.c.champion == version)
    before = select(_table).where(*is_it).order_by(_table.c.created_at.desc()).limit(1)
    queries = [before]
    if moment is not None:
        since = select(_table).where(*is_it, _table.c.created_at >= time_text(moment))
        queries.insert(0, since.order_by(_table.c.created_at).limit(1))
    with reading(engine) as connection:
        for query in queries:
            if (row := connection.execute(query).one_or_none()) is not None:
                return _point(row)
    return None


def due_for_check(engine: Engine, before: datetime) -> RestorePoint | None:
    """The point whose last check is longest ago, if that was before a moment; those never checked first."""
    is_due = _table.c.checked_at.is_(None) | (_table.c.checked_at < time_text(before))
    # NULL sorts first on SQLite and last on PostgreSQL unless told.
    order = (_table.c.checked_at.is_not(None), _table.c.checked_at, _table.c.created_at.desc())
    with reading(engine) as connection:
        row = connection.execute(select(_table).where(is_due).order_by(*order).limit(1)).one_or_none()
    return None if row is None else _point(row)


def judge(
    engine: Engine, point: RestorePoint, verdict: Verdict, reason: str, now: datetime, notice: Notice | None
) -> None:
    """Note the outcome of a check, with its notice; one that says what the last one said is not audited."""
    values = {"verdict": str(verdict), "verdict_reason": reason, "checked_at": time_text(now)}
    with writing(engine) as connection:
        connection.execute(update(_table).where(_table.c.id == point.id).values(values))
        if verdict is not point.verdict:
            details: dict[str, JsonValue] = {
                "restore_point": point.id,
                "verdict": str(verdict),
                "reason": reason,
            }
            entry = AuditEntry(
                action="restore_point_checked",
                actor="reconcile",
                model=point.model,
                version=point.champion,
                details=details,
                at=now,
            )
            audit.append(connection, entry)
        if notice is not None:
            outbox.enqueue(connection, notice, now)


def refuse_damaged(point: RestorePoint) -> None:
    """Raise `ChangeRefused` for a point that is not what was written, or names no champion to go back to."""
    if not point.is_intact:
        raise ChangeRefused(f"restore point {point.id} is damaged: its checksum does not fit; choose another")
    if point.champion is None:
        raise ChangeRefused(f"at restore point {point.id} '{point.model}' had no champion to go back to")


def _forget_old(connection: Connection, point: RestorePoint) -> None:
    """Keep the newest automatic points of a model; those made by hand stay."""
    is_automatic = (_table.c.model == point.model, _table.c.kind == str(Kind.AUTOMATIC))
    newest = select(_table.c.id).where(*is_automatic).order_by(_table.c.created_at.desc(), _table.c.id)
    kept = connection.execute(newest.limit(_KEPT_PER_MODEL)).scalars().all()
    connection.execute(delete(_table).where(*is_automatic, _table.c.id.not_in(kept)))


def _checksum(point: RestorePoint) -> str:
    covered = {
        "id": point.id,
        "model": point.model,
        "kind": str(point.kind),
        "reason": point.reason,
        "state": point.state,
        "created_at": point.created_at,
        "created_by": point.created_by,
    }
    return sha256(json_text(covered).encode()).hexdigest()


def _point(row: Row[Any]) -> RestorePoint:
    return RestorePoint(
        id=row.id,
        model=row.model,
        kind=Kind(row.kind),
        reason=row.reason,
        champion=row.champion,
        state=json.loads(row.state),
        checksum=row.checksum,
        created_at=read_time(row.created_at),
        created_by=row.created_by,
        verdict=Verdict(row.verdict),
        verdict_reason=row.verdict_reason,
        checked_at=read_optional_time(row.checked_at),
    )
