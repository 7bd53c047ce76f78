"""Overrides: which version must not answer in a role, laid before the registry hears of it.

The local file is the copy that holds when nothing else is up; the store's copy reaches the other
replicas. One override per model and role holds at a time, the one laid last.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Row, select, update

from serving.core.errors import StoreUnusable
from serving.store import audit, schema
from serving.store.audit import AuditEntry
from serving.store.database import insert_new, reading, writing
from serving.store.durable import exclusive, write_atomically
from serving.store.text import read_time, time_text

_table = schema.overrides


@dataclass(frozen=True, slots=True)
class Override:
    """`not_version` may not answer as `role`; `answer_with` does, or nothing where it is None."""

    id: str
    model: str
    role: str
    not_version: str
    answer_with: str | None
    actor: str
    reason: str
    laid_at: datetime


@dataclass(frozen=True, slots=True)
class Ended:
    """An override that holds no more, which the store has not been told yet."""

    override: Override
    why: str


@dataclass(frozen=True, slots=True)
class Kept:
    """What the local file says."""

    overrides: tuple[Override, ...] = ()
    ended: tuple[Ended, ...] = ()


class OverrideFile:
    """The local copy, of all workers of a server. Changed as a whole, under a lock, one at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> list[Override]:
        """The overrides written last, none where nothing was ever written."""
        return list(self.kept().overrides)

    def stamp(self) -> tuple[int, int] | None:
        """Another one after every change; None while there is no file."""
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns

    def change(self, change: Callable[[Kept], Kept]) -> Kept:
        """Apply `change` to what is there; on disk when this returns. OSError where the disk refuses."""
        with exclusive(self.path.with_name(self.path.name + ".lock")):
            before = self.kept()
            after = change(before)
            if after != before:
                self._write(after)
        return after

    def kept(self) -> Kept:
        """Raises `StoreUnusable` for a file that cannot be understood."""
        try:
            content = json.loads(self.path.read_bytes())
            overrides = tuple(_from_fields(fields) for fields in content["overrides"])
            ended = content.get("ended", ())
            return Kept(overrides, tuple(Ended(_from_fields(e["override"]), e["why"]) for e in ended))
        except FileNotFoundError:
            return Kept()
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            step = "put back a copy of it, or remove it to drop every override of this server"
            problem = f"the override file {self.path} is damaged ({error})"
            raise StoreUnusable(problem, next_step=step) from error

    def write(self, overrides: Sequence[Override]) -> None:
        """Replace the list; on disk when this returns."""
        self._write(Kept(tuple(overrides)))

    def _write(self, kept: Kept) -> None:
        content = {
            "overrides": [_fields(override) for override in kept.overrides],
            "ended": [{"override": _fields(ended.override), "why": ended.why} for ended in kept.ended],
        }
        write_atomically(self.path, json.dumps(content, indent=2).encode() + b"\n")


def save(engine: Engine, override: Override) -> bool:
    """Put an override into the store and the audit trail; whether it now holds there.

    May be repeated and may come late: one that was already ended or followed by a later one for the
    same role is not revived.
    """
    with writing(engine) as connection:
        values = {**_fields(override), "ended_at": None, "ended_why": None}
        if insert_new(connection, _table, values):
            _audit(connection, override, "laid", override.reason, override.laid_at)
            return True
        stored = connection.execute(_role_query(override).with_for_update()).one()
        if stored.id == override.id:
            return stored.ended_at is None
        if read_time(stored.laid_at) > override.laid_at:
            return False
        connection.execute(update(_table).where(*_role_of(override)).values(values))
        _audit(connection, override, "laid", override.reason, override.laid_at)
        return True


def end(engine: Engine, override: Override, why: str, *, now: datetime | None = None) -> bool:
    """End an override, if it holds in the store; whether this call ended it."""
    ended_at = now or datetime.now(UTC)
    holds = (*_role_of(override), _table.c.id == override.id, _table.c.ended_at.is_(None))
    with writing(engine) as connection:
        change = update(_table).where(*holds).values(ended_at=time_text(ended_at), ended_why=why)
        if connection.execute(change).rowcount == 0:
            return False
        _audit(connection, override, "ended", why, ended_at)
        return True


def active(engine: Engine) -> list[Override]:
    """Every override that holds, by model and role."""
    query = select(_table).where(_table.c.ended_at.is_(None)).order_by(_table.c.model, _table.c.role)
    with reading(engine) as connection:
        return [_from_row(row) for row in connection.execute(query)]


def last_laid(engine: Engine, model: str, role: str) -> Override | None:
    """The last override of a role, whether it still holds or not."""
    query = select(_table).where(_table.c.model == model, _table.c.role == role)
    with reading(engine) as connection:
        row = connection.execute(query).one_or_none()
    return None if row is None else _from_row(row)


def _role_of(override: Override) -> tuple[Any, Any]:
    return (_table.c.model == override.model, _table.c.role == override.role)


def _role_query(override: Override) -> Any:
    return select(_table).where(*_role_of(override))


def _audit(connection: Connection, override: Override, step: str, why: str, at: datetime) -> None:
    details = {
        "step": step,
        "role": override.role,
        "answer_with": override.answer_with,
        "reason": why,
        "override_id": override.id,
    }
    entry = AuditEntry(
        action="override",
        actor=override.actor,
        model=override.model,
        version=override.not_version,
        details=details,
        at=at,
    )
    audit.append(connection, entry)


def _fields(override: Override) -> dict[str, str | None]:
    return {**asdict(override), "laid_at": time_text(override.laid_at)}


def _from_fields(fields: dict[str, Any]) -> Override:
    return Override(**{**fields, "laid_at": read_time(fields["laid_at"])})


def _from_row(row: Row[Any]) -> Override:
    return Override(
        id=row.id,
        model=row.model,
        role=row.role,
        not_version=row.not_version,
        answer_with=row.answer_with,
        actor=row.actor,
        reason=row.reason,
        laid_at=read_time(row.laid_at),
    )
