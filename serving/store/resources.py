"""What each worker and its machine used, as moments per span: written by serving, read added up.

Spans are as those of `serving.store.telemetry`: seconds at first, later minutes, then hours.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Engine, Row, select, update

from serving.core.sketch import Moments
from serving.store import schema
from serving.store.database import insert_new, reading, writing
from serving.store.telemetry import second_of
from serving.store.text import json_text

_table = schema.resources

Figures = Mapping[str, Moments]


@dataclass(frozen=True, slots=True)
class Usage:
    """Figures of one worker by name, as `rss_bytes` or `cpu_ratio`; `start` is in seconds since 1970."""

    worker: str
    step_seconds: int
    start: int
    figures: Figures


def write(engine: Engine, usages: Sequence[Usage]) -> None:
    """Write all or none; what a span holds already is kept, so a repeated write counts once."""
    with writing(engine) as connection:
        for usage in usages:
            insert_new(connection, _table, _key(usage) | {"body": _body(usage.figures)})


def add(connection: Connection, usage: Usage) -> None:
    """Add to what a span holds already, as part of the caller's `writing` transaction."""
    if insert_new(connection, _table, _key(usage) | {"body": _body(usage.figures)}):
        return
    conditions = [_table.c[name] == value for name, value in _key(usage).items()]
    present = figures_of(connection.execute(select(_table.c.body).where(*conditions)).scalar_one())
    values = {"body": _body(summed((present, usage.figures)))}
    connection.execute(update(_table).where(*conditions).values(values))


def read(
    engine: Engine, since: datetime, until: datetime, step_seconds: int, worker: str | None = None
) -> dict[datetime, dict[str, Moments]]:
    """Per span of `step_seconds`, oldest first: the figures of one worker, or the samples of all."""
    query = select(_table.c.start, _table.c.body).where(
        _table.c.start >= second_of(since), _table.c.start < second_of(until)
    )
    if worker is not None:
        query = query.where(_table.c.worker == worker)
    found: dict[int, list[Figures]] = {}
    with reading(engine) as connection:
        for row in connection.execute(query):
            found.setdefault(row.start // step_seconds * step_seconds, []).append(figures_of(row.body))
    return {datetime.fromtimestamp(start, UTC): summed(parts) for start, parts in sorted(found.items())}


def merged(usages: Iterable[Usage], step_seconds: int) -> list[Usage]:
    """Spans as longer ones of `step_seconds`; each worker keeps its own."""
    groups: dict[tuple[str, int], list[Figures]] = {}
    for usage in usages:
        start = usage.start // step_seconds * step_seconds
        groups.setdefault((usage.worker, start), []).append(usage.figures)
    return [Usage(worker, step_seconds, start, summed(parts)) for (worker, start), parts in groups.items()]


def summed(parts: Iterable[Figures]) -> dict[str, Moments]:
    """The moments of all samples, by figure."""
    whole: dict[str, Moments] = {}
    for part in parts:
        for name, moments in part.items():
            whole[name] = whole[name].plus(moments) if name in whole else moments
    return whole


def usage_of(row: Row[Any]) -> Usage:
    """A row of the table."""
    return Usage(row.worker, row.step_seconds, row.start, figures_of(row.body))


def figures_of(body: str) -> dict[str, Moments]:
    return {name: Moments.from_numbers(numbers) for name, numbers in json.loads(body).items()}


def _key(usage: Usage) -> dict[str, Any]:
    return {"worker": usage.worker, "step_seconds": usage.step_seconds, "start": usage.start}


def _body(figures: Figures) -> str:
    return json_text({name: moments.as_numbers() for name, moments in figures.items()})
