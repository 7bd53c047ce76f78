"""Restore points: written once, found by id, moment and version, and never believed when damaged."""

from datetime import timedelta

import pytest
from sqlalchemy import Engine, update

from serving.core.clock import ManualClock
from serving.core.errors import ChangeRefused, InvalidRequest, NotServed
from serving.store import audit, changes, destination, outbox, restore_points, schema
from serving.store.changes import ChangeIntent, Outcome
from serving.store.database import writing
from serving.store.destination import Wanted
from serving.store.leases import Lease, Leases
from serving.store.outbox import Notice, Severity
from serving.store.restore_points import Kind, RestorePoint, Verdict
from tests.store.points import MODEL, NOW, draft, registered, state


def made(
    engine: Engine, point_id: str, champion: str, minutes: int = 0, kind: Kind = Kind.BY_HAND
) -> RestorePoint:
    at = NOW + timedelta(minutes=minutes)
    return restore_points.create(engine, draft(point_id, state(registered(champion=champion)), kind), at)


def test_point_is_as_it_was_written_when_read(engine: Engine) -> None:
    """State, checksum and audit row; a second one of the same id changes nothing."""
    point = made(engine, "p1", "2")
    assert point.champion == "2"
    assert point.is_intact
    assert point.state["model"]["versions"]["2"]["digest"] == f"{2:064d}"
    assert made(engine, "p1", "3", minutes=5) == point
    [row] = audit.tail(engine, 10, action="restore_point")
    assert (row.entry.model, row.entry.details["restore_point"]) == (MODEL, "p1")
    assert audit.verify(engine).verdict is audit.Verdict.INTACT


@pytest.mark.parametrize("column", ["state", "reason", "created_by", "created_at"])
def test_point_is_refused_when_its_row_was_changed(engine: Engine, column: str) -> None:
    """Everything but the verdict is covered by the checksum."""
    point = made(engine, "p1", "2")
    new = {"state": '{"model":{"aliases":{"champion":"3"}}}', "created_at": (NOW + timedelta(1)).isoformat()}
    with writing(engine) as connection:
        values = {column: new.get(column, "changed")}
        connection.execute(update(schema.restore_points).values(values))
    damaged = restore_points.get(engine, point.id)
    assert not damaged.is_intact
    with pytest.raises(ChangeRefused, match="restore point p1 is damaged"):
        destination.resolve(engine, MODEL, Wanted(restore_point="p1"))


def test_verdict_leaves_the_point_intact_when_noted(engine: Engine) -> None:
    """A verdict is news once; its notice goes with it."""
    point = made(engine, "p1", "2")
    notice = Notice(kind="restore_point_unusable", severity=Severity.WARNING, title="gone", dedup_key="k")
    restore_points.judge(engine, point, Verdict.UNUSABLE, "it was deleted", NOW, notice)
    judged = restore_points.get(engine, "p1")
    assert (judged.is_intact, judged.verdict, judged.checked_at) == (True, Verdict.UNUSABLE, NOW)
    restore_points.judge(engine, judged, Verdict.UNUSABLE, "it was deleted", NOW, None)
    assert len(audit.tail(engine, 10, action="restore_point_checked")) == 1
    assert [row.notice.kind for row in outbox.recent(engine, 10)] == ["restore_point_unusable"]
    with pytest.raises(ChangeRefused, match="cannot be restored: it was deleted"):
        destination.resolve(engine, MODEL, Wanted(restore_point="p1"))


def test_point_is_found_by_the_beginning_of_its_id(engine: Engine) -> None:
    """Only where one point is meant."""
    made(engine, "ab1", "1")
    made(engine, "ab2", "2", minutes=1)
    assert restore_points.get(engine, "ab1").champion == "1"
    for unclear in ("ab", "zz", ""):
        with pytest.raises(NotServed):
            restore_points.get(engine, unclear)
    assert [point.id for point in restore_points.listed(engine, MODEL)] == ["ab2", "ab1"]
    assert restore_points.listed(engine, "other") == []


def test_oldest_automatic_points_go_when_there_are_too_many(engine: Engine) -> None:
    """Those made by hand stay."""
    made(engine, "by-hand", "1")
    for number in range(102):
        made(engine, f"a{number:03d}", "1", minutes=number + 1, kind=Kind.AUTOMATIC)
    kept = [point.id for point in restore_points.listed(engine, MODEL, limit=500)]
    assert len(kept) == 101
    assert kept[-1] == "by-hand"
    assert "a001" not in kept


def test_point_longest_unchecked_is_due_first(engine: Engine) -> None:
    """One that was never looked into before all others; none that was looked into lately."""
    first, second = made(engine, "p1", "1"), made(engine, "p2", "2", minutes=1)
    week_ago = NOW - timedelta(days=7)
    assert restore_points.due_for_check(engine, week_ago) == second
    restore_points.judge(engine, second, Verdict.RESTORABLE, "fine", NOW, None)
    due = restore_points.due_for_check(engine, week_ago)
    assert due is not None
    assert due.id == first.id
    restore_points.judge(engine, first, Verdict.RESTORABLE, "fine", NOW - timedelta(days=8), None)
    due = restore_points.due_for_check(engine, week_ago)
    assert due is not None
    assert due.id == "p1"
    restore_points.judge(engine, due, Verdict.RESTORABLE, "fine", NOW, None)
    assert restore_points.due_for_check(engine, week_ago) is None


@pytest.fixture
def lease(engine: Engine) -> Lease:
    got = Leases(engine, ManualClock()).acquire(f"model:{MODEL}", "test")
    assert isinstance(got, Lease)
    return got


def moved(engine: Engine, lease: Lease, old: str, new: str, minutes: int) -> None:
    at = NOW + timedelta(minutes=minutes)
    intent = ChangeIntent(MODEL, "champion", old, new, lease.epoch, "anna", "promoted")
    changes.settle(
        engine, changes.intend(engine, intent, lease, now=at), Outcome.APPLIED, "read back", now=at
    )


@pytest.mark.parametrize(
    ("minutes", "version", "point"),
    [
        pytest.param(5, "1", "p1", id="before the first change"),
        pytest.param(10, "2", "p2", id="at the first change"),
        pytest.param(15, "2", "p2", id="between two"),
        pytest.param(25, "3", None, id="after the last, of which there is no point"),
    ],
)
def test_moment_leads_to_what_was_champion_then(
    engine: Engine, lease: Lease, minutes: int, version: str, point: str | None
) -> None:
    """By the record of changes, with the point made right before the next one."""
    made(engine, "p1", "1", minutes=10)
    moved(engine, lease, "1", "2", 10)
    made(engine, "p2", "2", minutes=20)
    moved(engine, lease, "2", "3", 20)
    goal = destination.resolve(engine, MODEL, Wanted(at=NOW + timedelta(minutes=minutes)))
    assert goal is not None
    assert (goal.version, goal.point.id if goal.point else None) == (version, point)


def test_destination_is_refused_when_it_is_nowhere(engine: Engine) -> None:
    """Each in one sentence; nothing wanted is nothing found."""
    made(engine, "p1", "1")
    assert destination.resolve(engine, MODEL, Wanted()) is None
    with pytest.raises(NotServed, match="nothing is on record of what answered"):
        destination.resolve(engine, "other", Wanted(at=NOW))
    with pytest.raises(ChangeRefused, match="is one of 'digits', not of 'other'"):
        destination.resolve(engine, "other", Wanted(restore_point="p1"))
    with pytest.raises(InvalidRequest, match="name one of"):
        Wanted(restore_point="p1", version="1")
    without = draft("p0", state(registered()))
    restore_points.create(engine, without, NOW)
    with pytest.raises(ChangeRefused, match="had no champion to go back to"):
        destination.resolve(engine, MODEL, Wanted(restore_point="p0"))
