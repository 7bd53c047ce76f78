"""Reports of the flows: one row per validation, drift check or benchmark, with its evidence as JSON.

What the noun packages share they share here: one writes, another reads the latest.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, Row, and_, func, insert, select

from serving.store import schema
from serving.store.database import reading, writing
from serving.store.text import JsonValue, json_text, read_time, time_text

_table = schema.reports


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """`kind` is the noun of the report, `verdict` its one-word outcome."""

    id: str
    kind: str
    model: str
    version: str | None
    verdict: str
    created_at: datetime
    body: Mapping[str, JsonValue]


def save(engine: Engine, report: Report) -> None:
    """Write a report once; its id must be new."""
    with writing(engine) as connection:
        add(connection, report)


def add(connection: Connection, report: Report) -> None:
    """The same as part of the caller's `writing` transaction."""
    values = {
        "id": report.id,
        "kind": report.kind,
        "model": report.model,
        "version": report.version,
        "verdict": report.verdict,
        "created_at": time_text(report.created_at),
        "body": json_text(report.body),
    }
    connection.execute(insert(_table).values(values))


def latest(engine: Engine, kind: str, model: str, version: str | None = None) -> Report | None:
    """The newest report of a kind, of any version unless one is named."""
    found = recent(engine, kind, model, 1, version)
    return found[0] if found else None


def recent(
    engine: Engine, kind: str, model: str, limit: int = 50, version: str | None = None
) -> list[Report]:
    """The newest reports of a kind, newest first."""
    query = select(_table).where(_table.c.kind == kind, _table.c.model == model)
    if version is not None:
        query = query.where(_table.c.version == version)
    query = query.order_by(_table.c.created_at.desc(), _table.c.id.desc()).limit(limit)
    with reading(engine) as connection:
        return [_report(row) for row in connection.execute(query)]


def latest_of(
    engine: Engine, kind: str, model: str, versions: Sequence[str], *, skip: Sequence[str] = ()
) -> dict[str, Report]:
    """The newest report of a kind on each of the versions, by version, in one query; `skip` are verdicts
    of reports that count for nothing.
    """
    wanted = and_(
        _table.c.kind == kind,
        _table.c.model == model,
        _table.c.version.in_(versions),
        _table.c.verdict.not_in(skip),
    )
    newest = (
        select(_table.c.version, func.max(_table.c.created_at).label("created_at"))
        .where(wanted)
        .group_by(_table.c.version)
        .subquery()
    )
    is_newest = and_(_table.c.version == newest.c.version, _table.c.created_at == newest.c.created_at)
    query = select(_table).join(newest, is_newest).where(wanted).order_by(_table.c.id)
    with reading(engine) as connection:
        return {row.version: _report(row) for row in connection.execute(query)}


def _report(row: Row[Any]) -> Report:
    return Report(
        id=row.id,
        kind=row.kind,
        model=row.model,
        version=row.version,
        verdict=row.verdict,
        created_at=read_time(row.created_at),
        body=json.loads(row.body),
    )
