"""Windows of telemetry in the store: written per worker and second, read added up over any span.

Serving writes; flows, the dashboard and the judge of a rollout read. A second's row may be written more
than once, by a retry or after the clock stepped back: the same content counts once, other content is added.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Row, func, select, update

from serving.core.model import Variant, VersionRef
from serving.core.scored import NOT_SCORED
from serving.core.window import NOTHING, WindowStats, combined
from serving.store import schema
from serving.store.database import insert_new, reading, writing
from serving.store.text import json_text

_table = schema.telemetry

SECOND, MINUTE, HOUR = 1, 60, 3600
STEPS = (SECOND, MINUTE, HOUR)
EVERYBODY = "*"
"""The worker of rows that hold the sum of all workers."""

# Requests of our own making, which are no traffic.
_OWN_VARIANTS = (str(Variant.PROBE), str(Variant.SHADOW))


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """What one worker saw of one version and variant in a span; `start` is in seconds since 1970."""

    ref: VersionRef
    variant: str
    worker: str
    step_seconds: int
    start: int
    stats: WindowStats


@dataclass(frozen=True, slots=True)
class Point:
    """One span of a series."""

    at: datetime
    stats: WindowStats


def write(engine: Engine, windows: Sequence[Window]) -> None:
    """Write windows, all or none. Raises `StoreUnavailable`; then they may be given again."""
    with writing(engine) as connection:
        for window in windows:
            _write(connection, window)


def add(connection: Connection, window: Window) -> None:
    """Add to what a span holds already, as part of the caller's `writing` transaction."""
    if not insert_new(connection, _table, _key(window) | _values(window.stats)):
        present = _stats(connection.execute(_of(window, _table.c.body)).scalar_one())
        _replace(connection, window, present.plus(window.stats))


def window(
    engine: Engine, model: str, version: str, variant: str | None, since: datetime, until: datetime
) -> WindowStats:
    """All that happened in spans that begin within `since <= start < until`, of all workers.

    Without a variant, of all that callers asked for: neither probes nor copies. Recent spans are of a
    second, older ones of a minute, then of an hour, so an end further back is met as closely as that.
    """
    query = select(_table.c.body).where(*_matching(model, version, variant, since, until))
    with reading(engine) as connection:
        return combined(map(_stats, connection.scalars(query)))


def by_variant(
    engine: Engine, model: str, since: datetime, until: datetime
) -> dict[tuple[str, str], WindowStats]:
    """The same for every version and variant of a model that was asked, copies included, by both."""
    is_asked = _table.c.variant != str(Variant.PROBE)
    query = select(_table.c.version, _table.c.variant, _table.c.body).where(
        *_within(model, since, until), is_asked
    )
    found: dict[tuple[str, str], list[WindowStats]] = {}
    with reading(engine) as connection:
        for row in connection.execute(query):
            found.setdefault((row.version, row.variant), []).append(_stats(row.body))
    return {key: combined(parts) for key, parts in found.items()}


def series(
    engine: Engine,
    model: str,
    version: str | None,
    variant: str | None,
    since: datetime,
    until: datetime,
    step_seconds: int,
) -> list[Point]:
    """The same per span of `step_seconds`, oldest first, without spans in which nothing happened.

    Where only coarser rows are left, they stand at their own beginning.
    """
    query = select(_table.c.start, _table.c.body).where(*_matching(model, version, variant, since, until))
    found: dict[int, list[WindowStats]] = {}
    with reading(engine) as connection:
        for row in connection.execute(query):
            found.setdefault(row.start // step_seconds * step_seconds, []).append(_stats(row.body))
    return [Point(_moment(start), combined(parts)) for start, parts in sorted(found.items())]


@dataclass(frozen=True, slots=True)
class Live:
    """A version's answers in a span, and what labels say of them by now.

    `stats` holds the labels alone; `answered_rows` counts all rows that could have one.
    """

    stats: WindowStats = NOTHING
    answered_rows: int = 0

    @property
    def coverage(self) -> float | None:
        """The share of answered rows that have a label."""
        if not self.answered_rows:
            return None
        return min(1.0, self.stats.scored.labelled / self.answered_rows)


NOT_LIVE = Live()


def live(engine: Engine, model: str, since: datetime, until: datetime) -> dict[str, Live]:
    """By version. Reads only spans with labels whole, so it costs little however busy the model was."""
    matching = _matching(model, None, None, since, until)
    labelled = select(_table.c.version, _table.c.body).where(*matching, _table.c.has_labels == 1)
    rows = select(_table.c.version, func.sum(_table.c.answered_rows)).where(*matching)
    found: dict[str, list[WindowStats]] = {}
    with reading(engine) as connection:
        answered = {name: int(count or 0) for name, count in connection.execute(rows.group_by("version"))}
        for row in connection.execute(labelled):
            found.setdefault(row.version, []).append(_stats(row.body))
    names = answered.keys() | found.keys()
    return {name: Live(combined(found.get(name, ())), answered.get(name, 0)) for name in names}


def _write(connection: Connection, window: Window) -> None:
    values = _values(window.stats)
    if insert_new(connection, _table, _key(window) | values):
        return
    present: str = connection.execute(_of(window, _table.c.body)).scalar_one()
    if present != values["body"]:
        _replace(connection, window, _stats(present).plus(window.stats))


def _replace(connection: Connection, window: Window, stats: WindowStats) -> None:
    connection.execute(update(_table).where(*_is(window)).values(_values(stats)))


def _key(window: Window) -> dict[str, Any]:
    return {
        "model": window.ref.model,
        "version": window.ref.version,
        "variant": window.variant,
        "step_seconds": window.step_seconds,
        "start": window.start,
        "worker": window.worker,
    }


def _values(stats: WindowStats) -> dict[str, Any]:
    return {
        "requests": stats.requests,
        "answered_rows": stats.rows,
        "faults": stats.faults,
        "has_labels": int(stats.scored != NOT_SCORED),
        "body": json_text(stats.as_json()),
    }


def _is(window: Window) -> list[ColumnElement[bool]]:
    return [_table.c[name] == value for name, value in _key(window).items()]


def _of(window: Window, *columns: Any) -> Any:
    return select(*columns).where(*_is(window))


def _matching(
    model: str, version: str | None, variant: str | None, since: datetime, until: datetime
) -> list[ColumnElement[bool]]:
    chosen = _table.c.variant.not_in(_OWN_VARIANTS) if variant is None else _table.c.variant == variant
    conditions = [*_within(model, since, until), chosen]
    return [*conditions, _table.c.version == version] if version is not None else conditions


def _within(model: str, since: datetime, until: datetime) -> list[ColumnElement[bool]]:
    return [
        _table.c.model == model,
        _table.c.start >= second_of(since),
        _table.c.start < second_of(until),
    ]


def window_of(row: Row[Any]) -> Window:
    """A row of the table."""
    ref = VersionRef(row.model, row.version)
    return Window(
        ref=ref,
        variant=row.variant,
        worker=row.worker,
        step_seconds=row.step_seconds,
        start=row.start,
        stats=_stats(row.body),
    )


def second_of(at: datetime) -> int:
    """A moment in whole seconds since 1970, rounded up, so that no span is counted in part."""
    return -int(-at.timestamp() // 1)


def _moment(second: int) -> datetime:
    return datetime.fromtimestamp(second, UTC)


def _stats(body: str) -> WindowStats:
    told: Mapping[str, Any] = json.loads(body)
    return WindowStats.from_json(told)


def merged(windows: Iterable[Window], step_seconds: int) -> list[Window]:
    """Windows of all workers as longer ones of `step_seconds`."""
    groups: dict[tuple[VersionRef, str, int], list[WindowStats]] = {}
    for each in windows:
        start = each.start // step_seconds * step_seconds
        groups.setdefault((each.ref, each.variant, start), []).append(each.stats)
    return [
        Window(
            ref=ref,
            variant=variant,
            worker=EVERYBODY,
            step_seconds=step_seconds,
            start=start,
            stats=combined(parts),
        )
        for (ref, variant, start), parts in groups.items()
    ]
