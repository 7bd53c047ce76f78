"""Heartbeats of the serving workers: what each one answers with, how it splits, and when it proved it.

Each worker writes its own row every second. A change counts as applied once every live worker
reports a probe of the new version that began after the write.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Engine, delete, select, update

from serving.store import schema
from serving.store.database import insert_new, reading, writing
from serving.store.text import json_text, read_time, time_text

_table = schema.workers

LIVE_SECONDS = 5.0
_FORGET_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Proof:
    """The last probe of a model's champion or challenger that was answered, by version and digest."""

    version: str
    digest: str
    started_at: datetime


@dataclass(frozen=True, slots=True)
class WorkerModel:
    """One model as one worker serves it. `refused` is the reason by version that it would not serve.

    `percent` of its requests go to `challenger`, for `rollout` where one owns the split; 0 while no split
    is in effect. `challenger_refused` is why the version that alias challenger names is not served.
    """

    champion: str | None
    proof: Proof | None
    refused: Mapping[str, str]
    challenger: str | None = None
    percent: int = 0
    rollout: str | None = None
    challenger_proof: Proof | None = None
    challenger_refused: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Beat:
    """One worker's report of itself."""

    worker: str
    url: str
    started_at: datetime
    beat_at: datetime
    models: Mapping[str, WorkerModel]


def beat(engine: Engine, report: Beat) -> None:
    """Write a worker's row, and forget workers that have been silent for an hour."""
    values = {"beat_at": time_text(report.beat_at), "state": json_text(_plain(report))}
    with writing(engine) as connection:
        if not insert_new(connection, _table, {"worker": report.worker, **values}):
            connection.execute(update(_table).where(_table.c.worker == report.worker).values(values))
        silent = time_text(report.beat_at - timedelta(seconds=_FORGET_SECONDS))
        connection.execute(delete(_table).where(_table.c.beat_at < silent))


def leave(engine: Engine, worker: str) -> None:
    """Remove the row of a worker that stops on purpose, so that nobody waits for it."""
    with writing(engine) as connection:
        connection.execute(delete(_table).where(_table.c.worker == worker))


def live(engine: Engine, now: datetime, live_seconds: float = LIVE_SECONDS) -> list[Beat]:
    """Workers whose heartbeat is young enough to count."""
    since = time_text(now - timedelta(seconds=live_seconds))
    query = select(_table).where(_table.c.beat_at >= since).order_by(_table.c.worker)
    with reading(engine) as connection:
        return [_beat(json.loads(row.state)) for row in connection.execute(query)]


def _plain(report: Beat) -> dict[str, Any]:
    return asdict(report)


def _beat(state: Mapping[str, Any]) -> Beat:
    return Beat(
        worker=state["worker"],
        url=state["url"],
        started_at=read_time(state["started_at"]),
        beat_at=read_time(state["beat_at"]),
        models={name: _worker_model(model) for name, model in state["models"].items()},
    )


def _worker_model(model: Mapping[str, Any]) -> WorkerModel:
    return WorkerModel(
        champion=model["champion"],
        proof=_proof(model["proof"]),
        refused=model["refused"],
        # A worker of an earlier release does not report these.
        challenger=model.get("challenger"),
        percent=model.get("percent", 0),
        rollout=model.get("rollout"),
        challenger_proof=_proof(model.get("challenger_proof")),
        challenger_refused=model.get("challenger_refused", {}),
    )


def _proof(proof: Mapping[str, Any] | None) -> Proof | None:
    return Proof(proof["version"], proof["digest"], read_time(proof["started_at"])) if proof else None
