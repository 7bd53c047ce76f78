"""Canonical text: equal values give equal text, and nothing is refused."""

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.core.model import Alias
from serving.store.text import json_text, read_optional_time, read_time, time_text


def test_json_text_is_equal_when_only_the_order_of_keys_differs() -> None:
    """Key order says nothing."""
    assert json_text({"b": 1, "a": {"d": 2, "c": 3}}) == json_text({"a": {"c": 3, "d": 2}, "b": 1})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        pytest.param(float("nan"), '"nan"', id="nan"),
        pytest.param(float("-inf"), '"-inf"', id="infinity"),
        pytest.param(Path("a/b"), '"a/b"', id="path"),
        pytest.param(Alias.CHAMPION, '"champion"', id="enum"),
        pytest.param((1, None, True), "[1,null,true]", id="tuple"),
        pytest.param({2: "x"}, '{"2":"x"}', id="numeric-key"),
        pytest.param(datetime(2026, 1, 2, tzinfo=UTC), '"2026-01-02T00:00:00.000000+00:00"', id="time"),
        pytest.param("\ud800\x00é", '"\\ud800\\u0000\\u00e9"', id="characters-no-database-takes"),
    ],
)
def test_json_text_writes_something_when_json_has_no_such_value(value: object, text: str) -> None:
    """An audit entry must never fail because of what it describes."""
    assert json_text(value) == text


@given(st.datetimes(), st.datetimes())
def test_time_text_sorts_as_time_when_compared_as_text(first: datetime, second: datetime) -> None:
    """Queries compare times as text."""
    earlier, later = sorted((first.replace(tzinfo=UTC), second.replace(tzinfo=UTC)))
    assert time_text(earlier) <= time_text(later)
    assert read_time(time_text(earlier)) == earlier


def test_time_text_is_in_utc_when_given_another_zone() -> None:
    """One moment has one text."""
    moment = datetime(2026, 1, 1, 1, 30, tzinfo=timezone(timedelta(hours=1)))
    assert time_text(moment) == "2026-01-01T00:30:00.000000+00:00"


def test_time_text_refuses_when_there_is_no_zone() -> None:
    """A naive time could mean anything."""
    with pytest.raises(ValueError, match="aware"):
        time_text(datetime(2026, 1, 1))  # noqa: DTZ001


def test_read_optional_time_gives_none_when_nothing_was_stored() -> None:
    """Null stays null."""
    assert read_optional_time(None) is None
