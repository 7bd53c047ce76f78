"""Health levels keep the last verdict per model and level."""

from datetime import UTC, datetime

from sqlalchemy import Engine

from serving.core.health import Level, LevelReport, Status, not_measured
from serving.store import levels
from serving.store.levels import StoredLevel

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def level(status: Status, version: str = "1") -> StoredLevel:
    return StoredLevel("digits", Level.FUNCTIONAL, version, LevelReport(status, "seen", NOW))


def test_set_level_replaces_the_verdict_when_there_is_one(engine: Engine) -> None:
    levels.set_level(engine, level(Status.HEALTHY))
    levels.set_level(engine, level(Status.CRITICAL, "2"))
    assert levels.all_levels(engine) == [level(Status.CRITICAL, "2")]


def test_set_level_stores_nothing_when_nothing_was_checked(engine: Engine) -> None:
    """An absence is not a verdict."""
    levels.set_level(engine, StoredLevel("digits", Level.PREDICTIVE, None, not_measured("no data")))
    assert levels.all_levels(engine) == []
