"""What every channel keeps, whichever it is: one contract, run over all notifiers and the fake."""

import pytest

from flows.alerts.console import Console
from flows.alerts.notify import Broken, Misconfigured, Notifier, Sent
from flows.alerts.slack import SlackAccess, slack_notifier
from flows.cli.demo.slack_receiver import SlackReceiver, slack_error
from serving.store.outbox import Severity
from tests.flows.alerts.notices import FACTS, FakeNotifier, make_dispatch


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture(params=["bot", "webhook", "console", "fake"])
def notifier(
    request: pytest.FixtureRequest,
    bot_access: SlackAccess,
    webhook_access: SlackAccess,
    lines: list[str],
) -> Notifier:
    """A channel that works."""
    made: dict[str, Notifier | None] = {
        "bot": slack_notifier(bot_access),
        "webhook": slack_notifier(webhook_access),
        "console": Console(lambda severity, line: lines.append(line)),
        "fake": FakeNotifier(),
    }
    found = made[request.param]
    assert found is not None
    return found


@pytest.mark.parametrize("kind", FACTS)
def test_send_says_sent_when_the_channel_works(notifier: Notifier, kind: str, slack: SlackReceiver) -> None:
    """Every kind of notice is taken at the first attempt, with a receipt that can be stored."""
    outcome = notifier.send(make_dispatch(kind))
    assert isinstance(outcome, Sent)
    assert all(isinstance(part, str) for entry in outcome.receipt.items() for part in entry)
    assert slack.refused == []


def test_send_leaves_each_notice_separate_when_called_twice(notifier: Notifier) -> None:
    """Nothing is remembered from one notice to the next; whether to repeat is delivery's to decide."""
    first, second = notifier.send(make_dispatch()), notifier.send(make_dispatch())
    assert isinstance(first, Sent)
    assert isinstance(second, Sent)


def test_name_stays_when_a_notice_was_sent(notifier: Notifier) -> None:
    """The outbox knows the channel by it."""
    name = notifier.name
    notifier.send(make_dispatch())
    assert notifier.name == name
    assert name.isidentifier()


def test_console_writes_one_line_when_the_title_has_several(lines: list[str]) -> None:
    """With severity, time and doubt."""
    severities: list[Severity] = []

    def write(severity: Severity, line: str) -> None:
        severities.append(severity)
        lines.append(line)

    Console(write).send(make_dispatch(maybe_duplicate=True))
    assert severities == [Severity.CRITICAL]
    assert lines == [
        "critical: digits: rolled_back happened (notice 7, 2026-01-01T00:00:00+00:00, maybe a duplicate)"
    ]


def test_misconfigured_keeps_everything_when_asked_to_send() -> None:
    """It says what is missing."""
    assert Misconfigured("slack", "set the channel").send(make_dispatch()) == Broken("set the channel")


@pytest.mark.parametrize("kind", ["bot", "webhook"])
def test_send_goes_without_blocks_when_slack_refuses_them(
    kind: str, bot_access: SlackAccess, webhook_access: SlackAccess, slack: SlackReceiver
) -> None:
    """A message that Slack finds fault with is not held back for its looks."""
    channel = slack_notifier({"bot": bot_access, "webhook": webhook_access}[kind])
    assert channel is not None
    slack.mishaps.append(slack_error("invalid_blocks"))
    assert isinstance(channel.send(make_dispatch()), Sent)
    [posted] = slack.messages
    assert (posted.text, posted.blocks) == (":rewind: digits: rolled_back happened", [])
