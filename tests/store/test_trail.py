"""Recording goes to the store, else to the journal, and never stops the caller."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from serving.core.clock import ManualClock
from serving.store import audit
from serving.store.database import open_engine, upgrade
from serving.store.journal import Journal
from serving.store.trail import Trail


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal.jsonl")


@pytest.fixture
def late_url(blank_url: str) -> str:
    """A store that is away until somebody upgrades it."""
    return blank_url


@pytest.fixture
def late_engine(late_url: str) -> Iterator[Engine]:
    engine = open_engine(late_url)
    yield engine
    engine.dispose()


def test_record_writes_to_the_store_when_it_answers(
    engine: Engine, journal: Journal, clock: ManualClock
) -> None:
    """The usual way."""
    Trail(engine, journal, clock).record("load", actor="serving", model="m", version="1", seconds=0.5)
    [row] = audit.tail(engine)
    assert (row.entry.action, row.entry.actor, row.entry.model, row.entry.version) == (
        "load",
        "serving",
        "m",
        "1",
    )
    assert (row.entry.details, row.entry.at) == ({"seconds": 0.5}, clock.now())
    assert journal.is_empty()


def test_record_journals_when_the_store_is_away(
    late_engine: Engine, late_url: str, journal: Journal, clock: ManualClock
) -> None:
    """And the entry joins the trail, with its own time, when the store is back."""
    trail = Trail(late_engine, journal, clock)
    trail.record("override", actor="serving", model="m")
    assert trail.merge() == 0
    happened_at = clock.now()
    clock.advance(60)
    upgrade(late_url)
    assert trail.merge() == 1
    [row] = audit.tail(late_engine)
    assert (row.entry.at, row.entry.details) == (happened_at, {"journalled": True})
    assert journal.is_empty()


def test_record_leaves_the_store_alone_when_it_just_failed(
    late_engine: Engine, late_url: str, journal: Journal, clock: ManualClock
) -> None:
    """A store that hangs delays one record in five seconds, not each."""
    trail = Trail(late_engine, journal, clock)
    trail.record("load", actor="first")
    upgrade(late_url)
    clock.advance(4.9)
    trail.record("load", actor="second")
    assert audit.tail(late_engine) == []
    clock.advance(0.2)
    trail.record("load", actor="third")
    assert [row.entry.actor for row in audit.tail(late_engine)] == ["third"]
    assert trail.merge() == 2


def test_record_returns_to_the_store_when_a_merge_succeeded(
    late_engine: Engine, late_url: str, journal: Journal, clock: ManualClock
) -> None:
    """A merge proves that the store is back."""
    trail = Trail(late_engine, journal, clock)
    trail.record("load", actor="first")
    upgrade(late_url)
    trail.merge()
    trail.record("load", actor="second")
    assert [row.entry.actor for row in audit.tail(late_engine)] == ["first", "second"]


def test_record_journals_when_there_is_no_store_at_all(journal: Journal, clock: ManualClock) -> None:
    """Without an engine nothing is lost either."""
    trail = Trail(None, journal, clock)
    trail.record("load", actor="serving")
    assert not journal.is_empty()
    assert trail.merge() == 0


def test_record_logs_the_entry_when_the_disk_refuses_too(
    tmp_path: Path, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The last place is the log; the caller goes on."""
    (tmp_path / "taken").write_text("a file")
    with caplog.at_level(logging.ERROR):
        Trail(None, Journal(tmp_path / "taken" / "journal"), clock).record("roll back", actor="serving")
    assert "audit_entry_lost" in caplog.text
    assert '"action":"roll back"' in caplog.text


def test_record_takes_any_detail_when_it_has_no_json_form(
    engine: Engine, journal: Journal, clock: ManualClock
) -> None:
    """Evidence of a failure often holds what failed."""
    Trail(engine, journal, clock).record("roll back", actor="serving", output=float("nan"))
    assert audit.tail(engine)[0].entry.details == {"output": "nan"}
