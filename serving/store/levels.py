"""The health levels that the flows report: the last verdict per model and level.

Written by check-health, read by serving, which shows them beside its own two levels.
"""

from dataclasses import dataclass

from sqlalchemy import Engine, select, update

from serving.core.health import Level, LevelReport, Status
from serving.store import schema
from serving.store.database import insert_new, reading, writing
from serving.store.text import read_time, time_text

_table = schema.levels


@dataclass(frozen=True, slots=True)
class StoredLevel:
    """One level of one model, and the version it was measured on."""

    model: str
    level: Level
    version: str | None
    report: LevelReport


def set_level(engine: Engine, level: StoredLevel) -> None:
    """Replace a level's last verdict. One that was never checked is not stored."""
    if level.report.checked_at is None:
        return
    key: dict[str, str | None] = {"model": level.model, "level": str(level.level)}
    values: dict[str, str | None] = {
        "version": level.version,
        "status": str(level.report.status),
        "message": level.report.message,
        "checked_at": time_text(level.report.checked_at),
    }
    with writing(engine) as connection:
        if not insert_new(connection, _table, key | values):
            same = (_table.c.model == level.model, _table.c.level == str(level.level))
            connection.execute(update(_table).where(*same).values(values))


def all_levels(engine: Engine) -> list[StoredLevel]:
    with reading(engine) as connection:
        rows = connection.execute(select(_table).order_by(_table.c.model, _table.c.level)).all()
    return [
        StoredLevel(
            row.model,
            Level(row.level),
            row.version,
            LevelReport(Status(row.status), row.message, read_time(row.checked_at)),
        )
        for row in rows
    ]
