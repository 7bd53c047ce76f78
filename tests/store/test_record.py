"""Serving's own record: what it answered with is what it comes back with."""

import stat
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from serving.core.errors import StoreUnusable
from serving.core.traffic import Split
from serving.store.record import ModelRecord, Record, ServedVersion, WatchRecord

ONE = ServedVersion("1", 1_700, "models:/m-1", "abc", "digits/1-abc")
TWO = ServedVersion("2", 1_700, "models:/m-2", "def", "digits/2-def")
NOW = datetime(2026, 1, 1, 12, 30, 1, 250, tzinfo=UTC)


@pytest.fixture
def record(tmp_path: Path) -> Record:
    return Record(tmp_path / "serving" / "served.json")


def test_record_is_empty_when_never_written(record: Record) -> None:
    """A first start knows nothing."""
    assert record.read() == {}


def test_record_gives_back_what_was_written(record: Record, tmp_path: Path) -> None:
    """Aliases, history, watch and grace period, to the microsecond."""
    models = {
        "digits": ModelRecord(
            aliases={"champion": TWO, "previous": ONE},
            champions=(ONE, TWO),
            watch=WatchRecord("2", "1", True, NOW + timedelta(minutes=5)),
            orphaned_since=NOW,
            split=Split("3", 25, "r-1", 50),
        ),
        "bare / 模": ModelRecord(),
    }
    record.write(models)
    assert record.read() == models
    assert stat.S_IMODE((tmp_path / "serving" / "served.json").stat().st_mode) == 0o600
    record.write({})
    assert record.read() == {}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"models": {"dig',
        b"[]",
        b"{}",
        b'{"models": []}',
        b'{"models": {"digits": []}}',
        b'{"models": {"digits": {"aliases": {}}}}',
        b'{"models": {"digits": {"aliases": {"champion": {"version": "1"}}, "champions": [], '
        b'"watch": null, "orphaned_since": null}}}',
        b'{"models": {"digits": {"aliases": {}, "champions": [], "watch": null, "orphaned_since": "noon"}}}',
        b"\xff\xfe",
    ],
)
def test_record_is_refused_with_the_next_step_when_damaged(
    record: Record, tmp_path: Path, content: bytes
) -> None:
    """Starting from nothing would forget which version failed: a person decides."""
    path = tmp_path / "serving" / "served.json"
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(StoreUnusable, match=r"served\.json is damaged .*; move the file away"):
        record.read()


def test_change_of_one_model_leaves_the_others_when_several_workers_write(tmp_path: Path) -> None:
    """Each has its own view; none undoes what another wrote of another model."""
    one, other = (Record(tmp_path / "served.json") for _ in range(2))
    one.write({"a": ModelRecord(aliases={"champion": ONE}), "b": ModelRecord(by_hand=(ONE,))})
    before = other.stamp()
    one.merge("a", lambda _: ModelRecord(aliases={"champion": TWO}))
    assert other.stamp() != before
    other.merge("b", lambda found: replace(found, aliases={"champion": TWO}))
    other.merge("c", lambda found: found)
    assert one.read() == {
        "a": ModelRecord(aliases={"champion": TWO}),
        "b": ModelRecord(aliases={"champion": TWO}, by_hand=(ONE,)),
        "c": ModelRecord(),
    }
    one.merge("a", lambda _: None)
    assert sorted(other.read()) == ["b", "c"]
