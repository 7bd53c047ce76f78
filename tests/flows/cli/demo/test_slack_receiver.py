"""The receiver that stands in for Slack: as strict as Slack, seen through Slack's own SDK."""

from collections.abc import Iterator
from typing import Any

import pytest
from slack_sdk import WebClient, WebhookClient
from slack_sdk.errors import SlackApiError

from flows.cli.demo.block_limits import problems
from flows.cli.demo.slack_receiver import SlackReceiver, receiving


def plain(text: str) -> dict[str, Any]:
    return {"type": "plain_text", "text": text}


def section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text}}


def fields(*texts: str) -> dict[str, Any]:
    return {"type": "section", "fields": [plain(text) for text in texts]}


@pytest.fixture
def slack(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlackReceiver]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with receiving() as receiver:
        yield receiver


def client(slack: SlackReceiver, token: str | None = None) -> WebClient:
    made = WebClient(token=token or slack.token, base_url=slack.api_url, retry_handlers=[])
    made.proxy = None
    return made


@pytest.mark.parametrize(
    ("blocks", "wrong"),
    [
        pytest.param([section("x")], 0, id="plain"),
        pytest.param([section("x" * 3000)], 0, id="longest section"),
        pytest.param([section("x" * 3001)], 1, id="section too long"),
        pytest.param([section("")], 1, id="empty text"),
        pytest.param([{"type": "header", "text": plain("𝔸" * 75)}], 0, id="longest header"),
        pytest.param([{"type": "header", "text": plain("𝔸" * 75 + "x")}], 1, id="header too long"),
        pytest.param([{"type": "header", "text": section("x")["text"]}], 1, id="markup in a header"),
        pytest.param([fields(*"0123456789")], 0, id="ten fields"),
        pytest.param([fields(*"0123456789x")], 1, id="eleven fields"),
        pytest.param([fields("x" * 2000)], 0, id="longest field"),
        pytest.param([fields("x" * 2001)], 1, id="field too long"),
        pytest.param([fields()], 1, id="no field"),
        pytest.param([{"type": "section"}], 1, id="empty section"),
        pytest.param([section("x")] * 50, 0, id="fifty blocks"),
        pytest.param([section("x")] * 51, 1, id="too many blocks"),
        pytest.param([section("x" * 2600)] * 5, 0, id="longest message"),
        pytest.param([section("x" * 2601)] * 5, 1, id="message too long"),
        pytest.param([{"type": "context", "elements": [plain("x")] * 11}], 1, id="eleven elements"),
        pytest.param([{"type": "divider"}], 0, id="divider"),
        pytest.param([{"type": "divider", "text": plain("x")}], 1, id="key that does not belong"),
        pytest.param([section("x") | {"block_id": "x" * 256}], 1, id="long block id"),
        pytest.param([{"type": "banner"}], 1, id="unknown type"),
        pytest.param(["x"], 1, id="no object"),
        pytest.param([], 1, id="no block"),
        pytest.param({"type": "divider"}, 1, id="no list"),
    ],
)
def test_problems_are_found_when_limits_are_passed(blocks: object, wrong: int) -> None:
    """Both sides of every limit."""
    assert len(problems(blocks)) == wrong


def test_messages_can_be_posted_and_edited_when_the_token_is_right(slack: SlackReceiver) -> None:
    """As a later stage edits what an earlier one posted."""
    bot = client(slack)
    assert bot.auth_test()["user"] == "signalbox"
    posted = bot.chat_postMessage(channel="#signalbox", text="one", blocks=[section("one")])
    assert posted["channel"] == slack.channel
    bot.chat_update(channel=posted["channel"], ts=posted["ts"], text="two")
    [message] = slack.messages
    assert (message.ts, message.text, message.blocks, message.updates) == (posted["ts"], "two", [], 1)
    assert slack.wait_for(1)


@pytest.mark.parametrize(
    ("token", "message", "error"),
    [
        pytest.param("xoxb-other", {"channel": "signalbox", "text": "x"}, "invalid_auth", id="token"),
        pytest.param(None, {"channel": "elsewhere", "text": "x"}, "channel_not_found", id="channel"),
        pytest.param(None, {"channel": "signalbox"}, "no_text", id="nothing to say"),
        pytest.param(None, {"channel": "signalbox", "text": "x" * 40_001}, "msg_too_long", id="long text"),
        pytest.param(
            None, {"channel": "signalbox", "text": "x", "blocks": [fields()]}, "invalid_blocks", id="blocks"
        ),
    ],
)
def test_message_is_refused_when_slack_would(
    slack: SlackReceiver, token: str | None, message: dict[str, Any], error: str
) -> None:
    """With Slack's own words."""
    with pytest.raises(SlackApiError) as refused:
        client(slack, token).api_call("chat.postMessage", json=message)
    assert refused.value.response["error"] == error
    assert slack.messages == []


def test_update_is_refused_when_there_is_no_such_message(slack: SlackReceiver) -> None:
    """A `ts` names exactly one message."""
    with pytest.raises(SlackApiError, match="message_not_found"):
        client(slack).chat_update(channel=slack.channel, ts="1.0", text="x")


@pytest.mark.parametrize(
    ("body", "status", "answer"),
    [
        ({"text": "x"}, 200, "ok"),
        ({"text": "x", "blocks": [section("x")]}, 200, "ok"),
        ({"text": "x", "blocks": [fields()]}, 400, "invalid_blocks"),
        ({"unfurl_links": True}, 400, "no_text"),
    ],
)
def test_webhook_answers_in_text_when_called(
    slack: SlackReceiver, body: dict[str, Any], status: int, answer: str
) -> None:
    """A webhook says `ok` or what is wrong, without JSON."""
    hook = WebhookClient(slack.webhook_url, retry_handlers=[])
    hook.proxy = None
    found = hook.send_dict(body)
    assert (found.status_code, found.body) == (status, answer)
    assert len(slack.messages) == (status == 200)
