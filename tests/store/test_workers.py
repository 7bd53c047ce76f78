"""Heartbeats: one row per worker, counted only while young."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, select, update

from serving.store import schema, workers
from serving.store.database import writing
from serving.store.workers import Beat, Proof, WorkerModel

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def beat(worker: str = "a", at: datetime = NOW) -> Beat:
    model = WorkerModel(
        "2",
        Proof("2", "d" * 64, NOW),
        {"3": "broken"},
        challenger="4",
        percent=25,
        rollout="r-1",
        challenger_proof=Proof("4", "e" * 64, NOW),
        challenger_refused={"5": "broken"},
    )
    return Beat(worker, "http://127.0.0.1:8080", NOW, at, {"digits": model})


def test_live_returns_what_was_beaten(engine: Engine) -> None:
    """A beat comes back as it was sent."""
    workers.beat(engine, beat())
    assert workers.live(engine, NOW) == [beat()]


def test_live_reads_what_an_earlier_release_beat(engine: Engine) -> None:
    """It knew nothing of splits: then there is none."""
    workers.beat(engine, beat())
    with writing(engine) as connection:
        state = json.loads(connection.execute(select(schema.workers.c.state)).scalar_one())
        state["models"]["digits"] = {"champion": "2", "proof": None, "refused": {}}
        connection.execute(update(schema.workers).values(state=json.dumps(state)))
    [found] = workers.live(engine, NOW)
    assert found.models == {"digits": WorkerModel("2", None, {})}


def test_beat_replaces_the_row_when_the_worker_is_known(engine: Engine) -> None:
    workers.beat(engine, beat())
    later = NOW + timedelta(seconds=1)
    workers.beat(engine, beat(at=later))
    assert [found.beat_at for found in workers.live(engine, later)] == [later]


@pytest.mark.parametrize(("age_seconds", "counted"), [(4.9, True), (5.0, True), (5.1, False)])
def test_live_counts_a_worker_when_its_beat_is_young(
    engine: Engine, age_seconds: float, counted: bool
) -> None:
    workers.beat(engine, beat())
    assert bool(workers.live(engine, NOW + timedelta(seconds=age_seconds))) is counted


def test_leave_removes_a_worker_when_it_stops_on_purpose(engine: Engine) -> None:
    """Nobody waits for a worker that said goodbye."""
    workers.beat(engine, beat("a"))
    workers.beat(engine, beat("b"))
    workers.leave(engine, "a")
    assert [found.worker for found in workers.live(engine, NOW)] == ["b"]


def test_beat_forgets_others_when_they_were_silent_for_an_hour(engine: Engine) -> None:
    """Dead workers do not pile up."""
    workers.beat(engine, beat("old"))
    now = NOW + timedelta(hours=2)
    workers.beat(engine, beat("new", now))
    assert [found.worker for found in workers.live(engine, now, live_seconds=86400)] == ["new"]
