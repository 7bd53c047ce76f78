"""Since when an alias names what it names: noted once, by whoever sees it first."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine

from serving.store import sightings
from serving.store.sightings import Sighting

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LATER = NOW + timedelta(seconds=30)


def see(engine: Engine, version: str | None, now: datetime) -> Sighting | None:
    return sightings.see(engine, "digits", "challenger", version, now)


def test_see_returns_the_sighting_when_it_is_the_first(engine: Engine) -> None:
    first = see(engine, "2", NOW)
    assert first == Sighting("digits", "challenger", "2", NOW)
    assert sightings.current(engine, "digits", "challenger") == first


def test_see_keeps_the_first_time_when_the_alias_is_unchanged(engine: Engine) -> None:
    """A second pair of eyes, or a restart, makes no new wish of an old one."""
    see(engine, "2", NOW)
    assert see(engine, "2", LATER) is None
    current = sightings.current(engine, "digits", "challenger")
    assert current is not None
    assert current.seen_at == NOW


def test_see_is_new_when_the_alias_names_another_version(engine: Engine) -> None:
    see(engine, "2", NOW)
    assert see(engine, "3", LATER) == Sighting("digits", "challenger", "3", LATER)


def test_see_is_new_when_the_alias_was_deleted_in_between(engine: Engine) -> None:
    """Deleting and setting the same version again is a new wish."""
    see(engine, "2", NOW)
    assert see(engine, None, LATER) is None
    assert sightings.current(engine, "digits", "challenger") is None
    assert see(engine, "2", LATER) is not None
