"""How other versions' answers differed from the champion's: one row per pair, minute and worker.

Serving writes, the flows judge. A worker writes its row of a minute anew as the minute goes on, so a
write that is repeated, or whose outcome is unknown, counts nothing twice; readers add the rows up.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine, delete, select, update

from serving.core.comparison import Pair, Role, Tally
from serving.store import schema
from serving.store.database import insert_new, reading, writing
from serving.store.text import json_text, time_text

_table = schema.comparisons


@dataclass(frozen=True, slots=True)
class Minute:
    """What a row is about: `at` is the minute's first moment, `worker` the only one that writes it."""

    pair: Pair
    at: datetime
    worker: str


def minute_of(moment: datetime) -> datetime:
    return moment.replace(second=0, microsecond=0)


def save(engine: Engine, tallies: Mapping[Minute, Tally]) -> None:
    """Put tallies in the place of what was written for these minutes before."""
    with writing(engine) as connection:
        for minute, tally in tallies.items():
            key = _key(minute)
            body = json_text(tally.as_json())
            if not insert_new(connection, _table, {**key, "body": body}):
                is_mine = (_table.c[name] == value for name, value in key.items())
                connection.execute(update(_table).where(*is_mine).values(body=body))


def window(
    engine: Engine, model: str, since: datetime, until: datetime, *, other: str | None = None
) -> dict[Pair, Tally]:
    """What was compared between two moments, of all workers, by pair and direction.

    Whole minutes: the one `since` lies in counts, the one that begins at `until` does not. `other` leaves
    comparisons with other versions out.
    """
    found = (
        _table.c.model == model,
        _table.c.minute >= time_text(minute_of(since)),
        _table.c.minute < time_text(until),
    )
    query = select(_table).where(*found).order_by(_table.c.minute, _table.c.worker)
    if other is not None:
        query = query.where(_table.c.other == other)
    sums: dict[Pair, Tally] = {}
    with reading(engine) as connection:
        for row in connection.execute(query):
            pair = Pair(row.model, row.champion, row.other, Role(row.role), bool(row.is_control))
            sums.setdefault(pair, Tally()).merge(Tally.from_json(json.loads(row.body)))
    return sums


def both_ways(found: Mapping[Pair, Tally], champion: str, other: str, role: Role) -> Tally:
    """The answers of two versions to the same inputs, whichever of them answered the callers."""
    total = Tally()
    for pair, tally in found.items():
        if (pair.champion, pair.other, pair.role) == (champion, other, role):
            total.merge(tally)
    return total


def forget(engine: Engine, before: datetime) -> int:
    """Delete the rows of minutes before a moment; how many there were."""
    with writing(engine) as connection:
        return connection.execute(delete(_table).where(_table.c.minute < time_text(before))).rowcount


def _key(minute: Minute) -> dict[str, str | int]:
    pair = minute.pair
    return {
        "model": pair.model,
        "champion": pair.champion,
        "other": pair.other,
        "role": str(pair.role),
        "is_control": int(pair.is_control),
        "minute": time_text(minute.at),
        "worker": minute.worker,
    }
