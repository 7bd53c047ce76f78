"""A channel's condition: a fault is told once an hour, a hold ends by itself."""

from datetime import timedelta

import pytest
from sqlalchemy import Engine

from flows.alerts import condition
from flows.alerts.condition import Condition, Verdict
from tests.flows.alerts.notices import NOW

BROKEN = Condition(Verdict.BROKEN, "invalid_auth", NOW)


@pytest.mark.parametrize(
    ("known", "after_seconds", "news"),
    [
        pytest.param(None, 0, True, id="never had trouble"),
        pytest.param(BROKEN, 3599, False, id="said within the hour"),
        pytest.param(BROKEN, 3600, True, id="an hour later"),
        pytest.param(Condition(Verdict.BROKEN, "not_in_channel", NOW), 1, True, id="another reason"),
        pytest.param(Condition(Verdict.WORKING, "invalid_auth", NOW), 1, True, id="broke again"),
    ],
)
def test_is_news_once_an_hour_when_broken(known: Condition | None, after_seconds: int, news: bool) -> None:
    """Both sides of every border."""
    assert condition.is_news(known, "invalid_auth", NOW + timedelta(seconds=after_seconds)) is news


@pytest.mark.parametrize(("after_seconds", "open_now"), [(29, False), (30, True)])
def test_is_open_again_when_the_hold_is_over(after_seconds: int, open_now: bool) -> None:
    """A hold is a time, not a state somebody must end."""
    held = Condition(Verdict.HELD, "rate limit", NOW, NOW + timedelta(seconds=30))
    assert condition.is_open(held, NOW + timedelta(seconds=after_seconds)) is open_now
    assert condition.is_open(BROKEN, NOW)
    assert condition.is_open(None, NOW)


def test_current_is_the_last_noted_when_there_are_several(engine: Engine) -> None:
    """Each channel has its own."""
    held = Condition(Verdict.HELD, "rate limit", NOW + timedelta(seconds=1), NOW + timedelta(seconds=30))
    assert condition.current(engine, "slack") is None
    condition.note(engine, "slack", BROKEN)
    condition.note(engine, "slack", held)
    condition.note(engine, "mail", BROKEN)
    assert condition.current(engine, "slack") == held
    assert condition.current(engine, "mail") == BROKEN
