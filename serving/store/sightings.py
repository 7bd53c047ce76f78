"""Since when an alias has named the version it names: what tells a new wish from one already answered.

MLflow keeps no time of an alias write. Whoever first sees an alias on another version notes it here.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Engine, Row, delete, select, update

from serving.store import schema
from serving.store.database import insert_new, reading, writing
from serving.store.text import read_time, time_text

_table = schema.sightings


@dataclass(frozen=True, slots=True)
class Sighting:
    model: str
    alias: str
    version: str
    seen_at: datetime


def see(engine: Engine, model: str, alias: str, version: str | None, now: datetime) -> Sighting | None:
    """Note what an alias names (None: nothing); the sighting, if this call is the first to see it so."""
    same = (_table.c.model == model, _table.c.alias == alias)
    with writing(engine) as connection:
        if version is None:
            connection.execute(delete(_table).where(*same))
            return None
        sighting = Sighting(model, alias, version, now)
        values = {"version": version, "seen_at": time_text(now)}
        if insert_new(connection, _table, {"model": model, "alias": alias, **values}):
            return sighting
        changed = connection.execute(update(_table).where(*same, _table.c.version != version).values(values))
        return sighting if changed.rowcount else None


def current(engine: Engine, model: str, alias: str) -> Sighting | None:
    query = select(_table).where(_table.c.model == model, _table.c.alias == alias)
    with reading(engine) as connection:
        row = connection.execute(query).one_or_none()
    return None if row is None else _sighting(row)


def _sighting(row: Row[Any]) -> Sighting:
    return Sighting(row.model, row.alias, row.version, read_time(row.seen_at))
