"""The Slack notifiers, through the real SDK, against a receiver that misbehaves on demand."""

import socket
from dataclasses import replace

import pytest

from flows.alerts.notify import Broken, Misconfigured, Notifier, Outcome, Retry, Sent, Unknown
from flows.alerts.slack import SlackAccess, SlackBot, SlackWebhook, slack_notifier
from flows.cli.demo.slack_receiver import (
    Mishap,
    SlackReceiver,
    rate_limited,
    server_error,
    slack_error,
    taken_then_silent,
)
from tests.flows.alerts.notices import make_dispatch
from tests.flows.answers import answering

SECRET = "webhooksecret"


def send(access: SlackAccess) -> Outcome:
    channel = slack_notifier(access)
    assert channel is not None
    return channel.send(make_dispatch())


def unused_url() -> str:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{closed.getsockname()[1]}"


@pytest.fixture(params=["bot", "webhook"])
def access(
    request: pytest.FixtureRequest, bot_access: SlackAccess, webhook_access: SlackAccess
) -> SlackAccess:
    """Either way to the receiver."""
    return {"bot": bot_access, "webhook": webhook_access}[request.param]


@pytest.mark.parametrize(
    ("given", "made"),
    [
        pytest.param(SlackAccess(), type(None), id="nothing set"),
        pytest.param(SlackAccess(bot_token="t", channel="c"), SlackBot, id="bot"),
        pytest.param(SlackAccess(webhook_url="https://h"), SlackWebhook, id="webhook"),
        pytest.param(SlackAccess(bot_token="t", channel="c", webhook_url="h"), SlackBot, id="bot outranks"),
        pytest.param(SlackAccess(bot_token="t"), Misconfigured, id="no channel"),
        pytest.param(SlackAccess(channel="c"), Misconfigured, id="no token"),
    ],
)
def test_notifier_follows_what_is_set_when_built(given: SlackAccess, made: type) -> None:
    """Half a configuration is a channel that says what it lacks, not silence."""
    assert type(slack_notifier(given)) is made


def test_bot_keeps_what_names_the_message_when_sent(bot_access: SlackAccess, slack: SlackReceiver) -> None:
    """Channel and `ts`: enough to edit it later."""
    assert send(bot_access) == Sent({"channel": slack.channel, "ts": slack.messages[0].ts})
    assert slack.messages[0].text == ":rewind: digits: rolled_back happened"


@pytest.mark.parametrize("mishap", [rate_limited(0), server_error(500), server_error(503)])
def test_send_tries_again_at_once_when_slack_turns_it_away_once(
    access: SlackAccess, slack: SlackReceiver, mishap: Mishap
) -> None:
    """The SDK's handlers for rate limits and server errors are at work: one message in the end."""
    slack.mishaps.append(mishap)
    assert isinstance(send(access), Sent)
    assert (len(slack.requests), len(slack.messages)) == (2, 1)


def test_send_goes_back_to_the_outbox_when_the_rate_limit_is_long(
    access: SlackAccess, slack: SlackReceiver
) -> None:
    """A run does not sleep for Slack's minutes."""
    slack.mishaps.append(rate_limited(90))
    assert send(access) == Retry("Slack's rate limit", 90)
    assert len(slack.requests) == 1


@pytest.mark.parametrize(
    ("headers", "after_seconds"), [({}, 30.0), ({"Retry-After": "soon"}, 30.0), ({"Retry-After": "17"}, 17)]
)
def test_send_waits_a_while_when_the_rate_limit_names_no_time(
    access: SlackAccess, slack: SlackReceiver, headers: dict[str, str], after_seconds: float
) -> None:
    """A header that is missing or no number does not break the run."""
    slack.mishaps.append(Mishap(status=429, error="ratelimited", headers=headers))
    assert send(access) == Retry("Slack's rate limit", after_seconds)


def test_send_is_to_be_retried_when_slack_keeps_failing(access: SlackAccess, slack: SlackReceiver) -> None:
    """After one attempt more the outbox takes over."""
    slack.mishaps.extend([server_error(), server_error()])
    assert isinstance(send(access), Retry)
    assert slack.messages == []


@pytest.mark.parametrize("code", ["invalid_auth", "token_revoked", "channel_not_found", "not_in_channel"])
def test_send_is_broken_when_only_settings_can_help(
    access: SlackAccess, slack: SlackReceiver, code: str
) -> None:
    """The reason names Slack's answer and the next step."""
    slack.mishaps.append(slack_error(code))
    outcome = send(access)
    assert isinstance(outcome, Broken)
    assert outcome.reason.startswith(f"Slack answered {code}; ")


def test_send_is_broken_when_the_token_is_wrong(bot_access: SlackAccess, slack: SlackReceiver) -> None:
    """Judged by the receiver's own check, and the token stays out of the reason."""
    outcome = send(replace(bot_access, bot_token="xoxb-mistyped"))
    assert outcome == Broken("Slack answered invalid_auth; check SIGNALBOX_SLACK_BOT_TOKEN")
    assert slack.messages == []


@pytest.mark.parametrize("code", ["fatal_error", "internal_error"])
def test_send_is_unknown_when_slack_says_part_may_have_succeeded(
    bot_access: SlackAccess, slack: SlackReceiver, code: str
) -> None:
    """Slack documents both so."""
    slack.mishaps.append(slack_error(code))
    assert send(bot_access) == Unknown(f"Slack answered {code}")


def test_send_is_unknown_and_not_repeated_when_no_answer_comes(
    access: SlackAccess, slack: SlackReceiver
) -> None:
    """The message is there once; a second request would have doubled it."""
    slack.mishaps.append(taken_then_silent())
    outcome = send(access)
    assert isinstance(outcome, Unknown)
    assert (len(slack.requests), len(slack.messages)) == (1, 1)


def test_send_is_unknown_when_the_connection_ends_after_the_request(
    access: SlackAccess, slack: SlackReceiver
) -> None:
    """A reset after the request was out may hide a delivery."""
    slack.closing.set()
    slack.mishaps.append(taken_then_silent())
    assert isinstance(send(access), Unknown)
    assert (len(slack.requests), len(slack.messages)) == (1, 1)


@pytest.mark.parametrize("kind", ["bot", "webhook"])
def test_send_is_to_be_retried_when_nothing_listens(kind: str, slack: SlackReceiver) -> None:
    """Surely not delivered."""
    url = unused_url()
    bot = SlackAccess(bot_token="t", channel="c", api_url=url, timeout_seconds=1)
    outcome = send({"bot": bot, "webhook": SlackAccess(webhook_url=f"{url}/{SECRET}")}[kind])
    assert isinstance(outcome, Retry)
    assert "cannot be reached" in outcome.reason
    assert SECRET not in outcome.reason


@pytest.mark.parametrize(
    "given",
    [
        pytest.param(SlackAccess(webhook_url=f"hooks.example/{SECRET}"), id="no scheme"),
        pytest.param(SlackAccess(webhook_url=f"http://127.0.0.1:1/{SECRET} x"), id="space in the URL"),
        pytest.param(SlackAccess(bot_token=f"{SECRET}é\u2026", channel="c"), id="token beyond Latin-1"),
        pytest.param(SlackAccess(bot_token=f"{SECRET}\nx", channel="c"), id="token of two lines"),
    ],
)
def test_send_is_broken_when_settings_are_no_settings(given: SlackAccess, slack: SlackReceiver) -> None:
    """Refused before anything is sent, without repeating the secret."""
    outcome = send(replace(given, api_url=slack.api_url))
    assert isinstance(outcome, Broken)
    assert SECRET not in outcome.reason
    assert slack.requests == []


def test_send_is_to_be_retried_when_the_answer_is_not_slacks(bot_access: SlackAccess) -> None:
    """A proxy's page, for one."""
    with answering(lambda asked: (200, "<html>please log in</html>")) as page:
        outcome = send(replace(bot_access, api_url=page.url))
    assert outcome == Retry("no answer of Slack's (status 200)")


def test_webhook_is_broken_when_its_address_is_gone(slack: SlackReceiver) -> None:
    """404 and its like are no weather."""
    slack.mishaps.append(Mishap(status=404, error="no_service"))
    outcome = send(SlackAccess(webhook_url=slack.webhook_url))
    assert outcome == Broken("Slack answered no_service; check SIGNALBOX_SLACK_WEBHOOK_URL")


def test_sdk_stays_quiet_when_an_attempt_fails(
    bot_access: SlackAccess, slack: SlackReceiver, caplog: pytest.LogCaptureFixture
) -> None:
    """The outcome is told once, by us."""
    slack.mishaps.append(taken_then_silent())
    notifier: Notifier = SlackBot(bot_access)
    notifier.send(make_dispatch())
    assert caplog.records == []
