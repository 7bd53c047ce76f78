"""Labels that found their answer: each counted once in the telemetry of the version that gave it.

Written by serving's joiner. A later label for the same row takes the place of an earlier one, whose part
in the sums is taken back in the same transaction; a repeated or older one changes nothing.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Engine, Row, delete, func, select, update

from serving.core.labels import Label, LabelValue
from serving.core.model import VersionRef
from serving.core.scored import NOT_SCORED, Scored
from serving.core.window import WindowStats
from serving.store import schema, telemetry
from serving.store.database import insert_new, reading, writing
from serving.store.telemetry import MINUTE, Window
from serving.store.text import json_text, read_time, time_text

_table = schema.labels

WORKER = "labels"
MAX_LABELS = 2_000_000


class Outcome(StrEnum):
    """What became of a label; also of the ones that never got here, as a metric's label."""

    JOINED = "joined"
    REPLACED = "replaced"
    REPEATED = "repeated"
    UNSCORABLE = "unscorable"
    NO_ROW = "no_row"
    EXPIRED = "expired"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """A label, and the answer it is about. `said` is None and `scored` empty where it says nothing of it."""

    label: Label
    ref: VersionRef
    variant: str
    answered_at: datetime
    said: str | None = None
    scored: Scored = NOT_SCORED

    @property
    def outcome(self) -> Outcome:
        return Outcome.JOINED if self.said is not None else Outcome.UNSCORABLE


def count(engine: Engine, joined: Sequence[Joined]) -> list[Outcome]:
    """Keep labels and add what they say to the minutes in which their answers were given; all or none."""
    with writing(engine) as connection:
        return [_count(connection, each) for each in joined]


def recent(
    engine: Engine, model: str, version: str | None = None, since: datetime | None = None, limit: int = 1000
) -> list[Joined]:
    """The labels that came last, newest first."""
    query = select(_table).where(_table.c.model == model)
    if version is not None:
        query = query.where(_table.c.version == version)
    if since is not None:
        query = query.where(_table.c.at >= time_text(since))
    query = query.order_by(_table.c.at.desc(), _table.c.request_id, _table.c.row).limit(limit)
    with reading(engine) as connection:
        return [_joined(row) for row in connection.execute(query)]


@dataclass(frozen=True, slots=True)
class Twice:
    """A label of a row that two versions answered, and what it says of either answer."""

    label: LabelValue
    champion: Scored
    other: Scored


def twice_answered(
    engine: Engine, model: str, champion: str, other: str, since: datetime, until: datetime, limit: int
) -> list[Twice]:
    """The labels that came last of rows both versions answered, whichever of them answered the caller.

    A copy of the request answers too. Answers given within `since <= answered_at < until`.
    """
    one, two = _table.alias("one"), _table.alias("two")
    is_same = (one.c.request_id == two.c.request_id) & (one.c.row == two.c.row) & (two.c.model == model)
    query = (
        select(one.c.label, one.c.scored, two.c.scored.label("other"))
        .join_from(one, two, is_same)
        .where(one.c.model == model, one.c.version == champion, two.c.version == other)
        .where(one.c.answered_at >= time_text(since), one.c.answered_at < time_text(until))
        .order_by(one.c.at.desc(), one.c.request_id, one.c.row)
        .limit(limit)
    )
    with reading(engine) as connection:
        rows = connection.execute(query).all()
    return [Twice(json.loads(row.label), _scored(row.scored), _scored(row.other)) for row in rows]


def state(engine: Engine, model: str) -> tuple[int, str]:
    """Another value after every label of a model that came or changed."""
    query = select(func.count(), func.max(_table.c.at), func.sum(_table.c.replaced))
    with reading(engine) as connection:
        count, latest, replaced = connection.execute(query.where(_table.c.model == model)).one()
    return count, f"{latest} {replaced}"


def forget(engine: Engine, now: datetime, kept: timedelta, max_labels: int = MAX_LABELS) -> None:
    """Remove labels that are older than the log, and the oldest beyond a number. Sums stay."""
    with writing(engine) as connection:
        connection.execute(delete(_table).where(_table.c.at < time_text(now - kept)))
        total = connection.execute(select(func.count()).select_from(_table)).scalar_one()
        if total > max_labels:
            ages = select(_table.c.at).order_by(_table.c.at).offset(total - max_labels).limit(1)
            oldest_kept = connection.execute(ages).scalar_one()
            connection.execute(delete(_table).where(_table.c.at < oldest_kept))


def _count(connection: Connection, joined: Joined) -> Outcome:
    if insert_new(connection, _table, _key(joined) | _values(joined) | {"replaced": 0}):
        _add(connection, joined, 1)
        return joined.outcome
    same = [_table.c[name] == value for name, value in _key(joined).items()]
    row = connection.execute(select(_table).where(*same).with_for_update()).one()
    present = _joined(row)
    if present.label.at >= joined.label.at:
        return Outcome.REPEATED
    _add(connection, present, -1)
    _add(connection, joined, 1)
    values = _values(joined) | {"replaced": row.replaced + 1}
    connection.execute(update(_table).where(*same).values(values))
    return Outcome.REPLACED


def _add(connection: Connection, joined: Joined, times: int) -> None:
    if joined.scored == NOT_SCORED:
        return
    start = int(joined.answered_at.timestamp()) // MINUTE * MINUTE
    stats = WindowStats(scored=NOT_SCORED.plus(joined.scored, times))
    window = Window(
        ref=joined.ref,
        variant=joined.variant,
        worker=WORKER,
        step_seconds=MINUTE,
        start=start,
        stats=stats,
    )
    telemetry.add(connection, window)


def _key(joined: Joined) -> dict[str, Any]:
    return {
        "request_id": joined.label.request_id,
        "row": joined.label.row,
        "model": joined.ref.model,
        "version": joined.ref.version,
        "variant": joined.variant,
    }


def _values(joined: Joined) -> dict[str, Any]:
    return {
        "label": json_text(joined.label.label),
        "said": joined.said,
        "scored": json_text(joined.scored.as_json()),
        "at": time_text(joined.label.at),
        "answered_at": time_text(joined.answered_at),
    }


def _joined(row: Row[Any]) -> Joined:
    at = read_time(row.at)
    return Joined(
        label=Label(
            request_id=row.request_id, row=row.row, label=json.loads(row.label), at=at, model=row.model
        ),
        ref=VersionRef(row.model, row.version),
        variant=row.variant,
        answered_at=read_time(row.answered_at),
        said=row.said,
        scored=_scored(row.scored),
    )


def _scored(text: str) -> Scored:
    return Scored.from_json(json.loads(text))
