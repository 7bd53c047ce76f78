"""Causes of failures: one row each, counted over workers and restarts, bounded."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine

from serving.core.model import VersionRef
from serving.store import failures
from serving.store.failures import MAX_PER_MODEL, Cause

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def cause(fingerprint: str, *, times: int = 1, after: int = 0, model: str = "m", version: str = "1") -> Cause:
    return Cause(
        fingerprint=fingerprint,
        ref=VersionRef(model, version),
        error="ValueError",
        place="model.py:forward",
        message=f"message {after}",
        inputs="{'x': 'float32[1, 3]'}",
        request_id=f"r-{after}",
        traceback="Traceback ...",
        times=times,
        first_seen_at=NOW + timedelta(seconds=after),
        last_seen_at=NOW + timedelta(seconds=after),
    )


def test_cause_is_counted_and_keeps_its_first_and_latest_example(engine: Engine) -> None:
    """First seen stays; message and request are of the latest."""
    failures.note(engine, [cause("a", times=3)], NOW)
    failures.note(engine, [cause("a", times=2, after=5), cause("b", after=1)], NOW)
    first, second = failures.recent(engine)
    assert (first.fingerprint, first.times, first.request_id, first.message) == ("a", 5, "r-5", "message 5")
    assert (first.first_seen_at, first.last_seen_at) == (NOW, NOW + timedelta(seconds=5))
    assert second.fingerprint == "b"


def test_causes_are_read_by_model_and_version(engine: Engine) -> None:
    """Newest first, at most as many as asked for."""
    given = [cause("a"), cause("b", version="2", after=1), cause("c", model="n", after=2)]
    failures.note(engine, given, NOW)
    assert [each.fingerprint for each in failures.recent(engine)] == ["c", "b", "a"]
    assert [each.fingerprint for each in failures.recent(engine, "m")] == ["b", "a"]
    assert [each.fingerprint for each in failures.recent(engine, "m", "1")] == ["a"]
    assert [each.fingerprint for each in failures.recent(engine, limit=1)] == ["c"]


def test_oldest_causes_go_when_a_model_has_too_many(engine: Engine) -> None:
    """Of that model alone."""
    failures.note(engine, [cause("other", model="n")], NOW)
    failures.note(engine, [cause(f"f{n:04}", after=n) for n in range(MAX_PER_MODEL + 20)], NOW)
    kept = failures.recent(engine, "m", limit=1000)
    assert len(kept) == MAX_PER_MODEL
    assert min(each.fingerprint for each in kept) == "f0020"
    assert len(failures.recent(engine, "n")) == 1


def test_cause_is_forgotten_when_it_was_not_seen_for_a_month(engine: Engine) -> None:
    """Whatever the model."""
    failures.note(engine, [cause("a")], NOW)
    failures.note(engine, [cause("b", model="n", after=1)], NOW + timedelta(days=30, microseconds=1))
    assert [each.fingerprint for each in failures.recent(engine)] == ["b"]


def test_same_cause_seen_again_is_added_up() -> None:
    """Before it is written, as between two flushes."""
    both = cause("a", times=2).plus(cause("a", after=9))
    assert (both.times, both.request_id, both.first_seen_at) == (3, "r-9", NOW)
