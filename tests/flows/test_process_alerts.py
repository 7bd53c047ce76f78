"""Delivery as the flows run it: channels by settings, the outcome in the run's state and log."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prefect.testing.utilities import prefect_test_harness
from sqlalchemy import Engine

from flows.alerts.console import Console
from flows.alerts.notify import Misconfigured
from flows.alerts.slack import SlackBot, SlackWebhook
from flows.cli.demo.slack_receiver import receiving
from flows.process_alerts import deliver_notices, process_alerts
from flows.settings import FlowSettings
from flows.wiring import notifiers, wired
from serving.core.clock import ManualClock
from serving.store import outbox
from serving.store.database import open_engine, upgrade
from tests.flows.alerts.notices import enqueue
from tests.flows.conftest import SettingsFactory

_START_SECONDS = 120


@pytest.fixture
def engine(home: Path) -> Iterator[Engine]:
    """The state store of the home."""
    url = FlowSettings().database_url
    upgrade(url)
    engine = open_engine(url)
    yield engine
    engine.dispose()


class RunLog(logging.Handler):
    """Keeps what a run said."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[logging.LogRecord] = []
        self.logger = logging.Logger("run")
        self.logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record)

    def lines(self) -> list[str]:
        return [record.getMessage() for record in self.said]


@pytest.mark.parametrize(
    ("given", "made"),
    [
        pytest.param({}, Console, id="nothing set"),
        pytest.param({"slack_bot_token": "", "slack_webhook_url": ""}, Console, id="set to nothing"),
        pytest.param({"slack_bot_token": "t", "slack_channel": "c"}, SlackBot, id="bot"),
        pytest.param({"slack_webhook_url": "https://hooks.example/x"}, SlackWebhook, id="webhook"),
        pytest.param({"slack_bot_token": "t"}, Misconfigured, id="token without channel"),
        pytest.param({"slack_channel": "c"}, Misconfigured, id="channel without token"),
    ],
)
def test_notifiers_follow_settings_when_built(
    make_settings: SettingsFactory, given: dict[str, str], made: type
) -> None:
    """Exactly one channel; the log only where Slack is not set up."""
    assert [type(found) for found in notifiers(make_settings(**given), lambda severity, line: None)] == [made]


def test_deliver_notices_writes_to_the_log_when_no_channel_is_set(
    engine: Engine, make_settings: SettingsFactory
) -> None:
    """The outbox does not grow for want of a channel; severity is the line's level."""
    log = RunLog()
    enqueue(engine, "100% a", now=datetime.now(UTC))
    with wired(make_settings()) as wiring:
        done = deliver_notices(wiring, log.logger)
    assert done.sentence() == "delivered 1 (log 1); no notice waits"
    [record] = log.said
    assert record.levelno == logging.ERROR
    assert record.getMessage().startswith("critical: notice 100% a (notice 1, ")


def test_deliver_notices_warns_once_when_the_token_is_wrong(
    engine: Engine, make_settings: SettingsFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything is kept, and delivered once the token is right."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    enqueue(engine, "a", "b", now=datetime.now(UTC))
    log, clock = RunLog(), ManualClock(datetime.now(UTC))
    with receiving() as slack:
        common = {"slack_channel": slack.channel, "slack_api_url": slack.api_url}
        for token, kept in (("xoxb-mistyped", 2), ("xoxb-mistyped", 2), (slack.token, 0)):
            with wired(make_settings(slack_bot_token=token, **common)) as wiring:
                assert deliver_notices(replace(wiring, clock=clock), log.logger).kept == kept
            clock.advance(60)
        assert [posted.text for posted in slack.messages] == [":rewind: notice a", ":rewind: notice b"]
    why = "Slack answered invalid_auth; check SIGNALBOX_SLACK_BOT_TOKEN"
    assert log.lines() == [f"slack takes no notices, they are kept: {why}", "slack works again"]


@pytest.mark.integration
@pytest.mark.slow
def test_process_alerts_completes_with_what_it_did_when_run(engine: Engine) -> None:
    """A run that did nothing says so as well."""
    enqueue(engine, "a", now=datetime.now(UTC) - timedelta(seconds=1))
    with prefect_test_harness(server_startup_timeout=_START_SECONDS):
        states = [process_alerts(return_state=True) for _ in range(2)]
    assert [state.is_completed() for state in states] == [True, True]
    assert [state.message for state in states] == [
        "delivered 1 (log 1); no notice waits",
        "no notice was waiting",
    ]
    assert outbox.waiting(engine) == 0
