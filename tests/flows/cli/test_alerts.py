"""`signalbox alerts`: the outbox as a table, and a test message that says what Slack answered."""

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from random import Random

import pytest
from sqlalchemy import Engine
from typer.testing import CliRunner

from flows.alerts.delivery import deliver
from flows.alerts.notify import Unknown
from flows.cli.alerts import alerts_app
from flows.cli.demo.slack_receiver import SlackReceiver, rate_limited, receiving, slack_error
from flows.cli.errors import CommandFailed
from flows.settings import FlowSettings
from serving.core.clock import ManualClock
from serving.store.database import open_engine, upgrade
from tests.flows.alerts.notices import NOW, FakeNotifier, enqueue


@pytest.fixture
def engine(home: Path) -> Iterator[Engine]:
    """The state store of the home."""
    url = FlowSettings().database_url
    upgrade(url)
    engine = open_engine(url)
    yield engine
    engine.dispose()


@pytest.fixture
def slack(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SlackReceiver]:
    """A receiver, and the settings of a bot for it."""
    with receiving() as receiver:
        settings = {
            "SIGNALBOX_SLACK_BOT_TOKEN": receiver.token,
            "SIGNALBOX_SLACK_CHANNEL": receiver.channel,
            "SIGNALBOX_SLACK_API_URL": receiver.api_url,
            "NO_PROXY": "127.0.0.1",
        }
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        yield receiver


def output(*arguments: str) -> str:
    result = CliRunner().invoke(alerts_app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def failure(*arguments: str) -> str:
    """The sentence of the command's error."""
    result = CliRunner().invoke(alerts_app, list(arguments))
    assert isinstance(result.exception, CommandFailed)
    return str(result.exception)


def test_alerts_shows_how_far_each_came_when_listed(engine: Engine) -> None:
    """Delivered, doubtful and waiting, newest last, with the last error while it matters."""
    enqueue(engine, "a", "b", "c")
    clock = ManualClock(NOW)
    deliver(engine, [FakeNotifier()], clock, Random(7), limit=1)
    deliver(engine, [FakeNotifier([Unknown("timeout")])], clock, Random(7))
    first, second, third = json.loads(output("--json"))
    assert [entry["state"] for entry in (first, second, third)] == [
        "delivered to fake",
        "maybe delivered",
        "waiting",
    ]
    assert first["channels"]["fake"]["receipt"] == {"id": "1"}
    assert (first["next_try_at"], first["facts"]["to"]) == (None, "2")
    assert second["channels"]["fake"]["maybe_duplicate"] is True
    clock.advance(3600)
    deliver(engine, [FakeNotifier()], clock, Random(7))
    table = output()
    assert "delivered to fake, maybe twice" in table
    assert "timeout" not in table
    assert [entry["title"] for entry in json.loads(output("--json", "--limit", "1"))] == ["notice c"]


def test_alerts_says_so_when_there_are_none(engine: Engine) -> None:
    """An empty table is a sentence, empty JSON a list."""
    assert output() == "no notice yet\n"
    assert json.loads(output("--json")) == []


def test_alerts_shows_the_error_when_a_notice_waits(engine: Engine) -> None:
    """What keeps it back stands in the table."""
    enqueue(engine, "a")
    deliver(engine, [FakeNotifier([Unknown("timeout")])], ManualClock(NOW + timedelta(seconds=1)))
    table = output()
    assert "maybe delivered" in table
    assert "fake: outcome unknown: timeout (may have arrived)" in table


def test_test_slack_says_where_the_message_is_when_taken(slack: SlackReceiver) -> None:
    """One message; channel and `ts` as Slack answered."""
    said = output("test", "slack")
    [posted] = slack.messages
    assert said == f"Slack took the message (channel {slack.channel}, ts {posted.ts})\n"
    assert posted.text == ":bell: Signalbox can reach this channel"
    assert slack.refused == []
    assert json.loads(output("test", "slack", "--json"))["receipt"]["ts"] == slack.messages[1].ts


def test_test_slack_uses_the_webhook_when_only_that_is_set(
    slack: SlackReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which names no message."""
    monkeypatch.delenv("SIGNALBOX_SLACK_BOT_TOKEN")
    monkeypatch.delenv("SIGNALBOX_SLACK_CHANNEL")
    monkeypatch.setenv("SIGNALBOX_SLACK_WEBHOOK_URL", slack.webhook_url)
    assert output("test", "slack") == "Slack took the message (the webhook answered ok)\n"


def test_test_slack_names_the_settings_when_none_is_set(home: Path) -> None:
    """What to set, in one sentence."""
    assert failure("test", "slack") == (
        "Slack is not set up; set SIGNALBOX_SLACK_BOT_TOKEN and SIGNALBOX_SLACK_CHANNEL, "
        "or SIGNALBOX_SLACK_WEBHOOK_URL"
    )


def test_test_slack_names_the_channel_when_it_is_missing(
    slack: SlackReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a configuration is not taken for none."""
    monkeypatch.delenv("SIGNALBOX_SLACK_CHANNEL")
    assert "set SIGNALBOX_SLACK_CHANNEL" in failure("test", "slack")


@pytest.mark.parametrize("code", ["invalid_auth", "not_in_channel"])
def test_test_slack_repeats_slacks_answer_when_refused(slack: SlackReceiver, code: str) -> None:
    """With what to do about it."""
    slack.mishaps.append(slack_error(code))
    assert f"Slack answered {code}; " in failure("test", "slack")


def test_test_slack_says_when_to_come_back_when_rate_limited(slack: SlackReceiver) -> None:
    """As Slack asks."""
    slack.mishaps.append(rate_limited(90))
    assert failure("test", "slack") == (
        "Slack did not take the message: Slack's rate limit; try again in 90 s"
    )
