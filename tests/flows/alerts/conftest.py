"""A real store and a Slack-compatible receiver on loopback, reached through the real SDK."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from flows.alerts.slack import SlackAccess
from flows.cli.demo.slack_receiver import SlackReceiver, receiving
from serving.core.clock import ManualClock
from serving.store.database import open_engine, upgrade


@pytest.fixture
def store_url(tmp_path: Path) -> str:
    """URL of an upgraded, empty store."""
    url = f"sqlite:///{tmp_path / 'signalbox.db'}"
    upgrade(url)
    return url


@pytest.fixture
def engine(store_url: str) -> Iterator[Engine]:
    engine = open_engine(store_url)
    yield engine
    engine.dispose()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def slack(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlackReceiver]:
    """A receiver that no proxy of the tester's comes before."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def bot_access(slack: SlackReceiver) -> SlackAccess:
    return SlackAccess(bot_token=slack.token, channel=slack.channel, api_url=slack.api_url, timeout_seconds=1)


@pytest.fixture
def webhook_access(slack: SlackReceiver) -> SlackAccess:
    return SlackAccess(webhook_url=slack.webhook_url, timeout_seconds=1)
