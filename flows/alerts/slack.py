"""Slack through its own SDK: as a bot that posts to a channel, or through an incoming webhook.

Built by wiring from settings. Resends within one attempt only what Slack did not get or turned away; whatever
may have arrived is `Unknown`. No token or webhook URL ever stands in a reason.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException, InvalidURL
from json import JSONDecodeError
from typing import Any, Final
from urllib.error import URLError

from slack_sdk import WebClient, WebhookClient
from slack_sdk.errors import SlackApiError, SlackClientError
from slack_sdk.http_retry.builtin_handlers import (
    ConnectionErrorRetryHandler,
    RateLimitErrorRetryHandler,
    ServerErrorRetryHandler,
)
from slack_sdk.http_retry.handler import RetryHandler
from slack_sdk.http_retry.request import HttpRequest
from slack_sdk.http_retry.response import HttpResponse
from slack_sdk.http_retry.state import RetryState

from flows.alerts.blocks import Block, Message, message
from flows.alerts.notify import Broken, Dispatch, Misconfigured, Notifier, Outcome, Retry, Sent, Unknown

NAME = "slack"

# The SDK logs each failed attempt as an error; here that is an outcome, reported once.
_sdk_log = logging.getLogger(f"{__name__}.sdk")
_sdk_log.setLevel(logging.CRITICAL)

_PATIENCE_SECONDS = 5
_DEFAULT_WAIT_SECONDS = 30.0

# "It's possible some aspect of the operation succeeded" (Slack, common errors).
_DOUBTFUL: Final = frozenset({"fatal_error", "internal_error"})
_RATE_LIMITED: Final = frozenset({"ratelimited", "rate_limited", "rollup_error"})
_MESSAGE_REFUSED: Final = frozenset(
    {
        "invalid_blocks",
        "invalid_blocks_format",
        "invalid_payload",
        "invalid_attachments",
        "msg_blocks_too_long",
        "msg_too_long",
        "too_many_attachments",
    }
)
# What only somebody with access to the settings or to Slack can put right.
_BROKEN: Final[Mapping[str, str]] = {
    "invalid_auth": "check SIGNALBOX_SLACK_BOT_TOKEN",
    "not_authed": "set SIGNALBOX_SLACK_BOT_TOKEN",
    "account_inactive": "the app was removed or its workspace closed",
    "token_revoked": "install the app again and set SIGNALBOX_SLACK_BOT_TOKEN",
    "token_expired": "set a new SIGNALBOX_SLACK_BOT_TOKEN",
    "not_allowed_token_type": "SIGNALBOX_SLACK_BOT_TOKEN must be a bot token (xoxb-)",
    "missing_scope": "give the app the scope chat:write",
    "no_permission": "give the app the scope chat:write",
    "access_denied": "ask an administrator of the workspace",
    "accesslimited": "ask an administrator of the workspace",
    "team_access_not_granted": "ask an administrator of the workspace",
    "org_login_required": "ask an administrator of the workspace",
    "ekm_access_denied": "ask an administrator of the workspace",
    "restricted_action": "ask an administrator of the workspace",
    "action_prohibited": "ask an administrator of the workspace",
    "posting_to_general_channel_denied": "choose another channel",
    "channel_not_found": "check SIGNALBOX_SLACK_CHANNEL, and invite the app if the channel is private",
    "not_in_channel": "invite the app to the channel",
    "is_archived": "choose another channel",
    "channel_is_archived": "choose another channel",
    "invalid_token": "check SIGNALBOX_SLACK_WEBHOOK_URL",
    "no_service": "check SIGNALBOX_SLACK_WEBHOOK_URL",
    "no_service_id": "check SIGNALBOX_SLACK_WEBHOOK_URL",
    "no_team": "check SIGNALBOX_SLACK_WEBHOOK_URL",
    "team_disabled": "check SIGNALBOX_SLACK_WEBHOOK_URL",
    "user_not_found": "check SIGNALBOX_SLACK_WEBHOOK_URL",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SlackAccess:
    """How Slack is reached. A bot token outranks a webhook: only it can edit messages later."""

    bot_token: str = ""
    channel: str = ""
    webhook_url: str = ""
    api_url: str = WebClient.BASE_URL
    timeout_seconds: int = 10


def slack_notifier(access: SlackAccess) -> Notifier | None:
    """The notifier that the settings ask for; None where Slack is not set up at all."""
    if access.bot_token:
        if access.channel:
            return SlackBot(access)
        return Misconfigured(NAME, "a bot token needs a channel; set SIGNALBOX_SLACK_CHANNEL")
    if access.webhook_url:
        return SlackWebhook(access)
    if access.channel:
        return Misconfigured(NAME, "a channel needs a bot token; set SIGNALBOX_SLACK_BOT_TOKEN")
    return None


class SlackBot:
    """Posts with `chat.postMessage`; the receipt holds channel and `ts`, which name the message."""

    name = NAME

    def __init__(self, access: SlackAccess) -> None:
        self._channel = access.channel
        self._client = WebClient(
            token=access.bot_token,
            base_url=access.api_url,
            timeout=access.timeout_seconds,
            logger=_sdk_log,
            retry_handlers=_retries(),
        )
        # The SDK would send loopback through a proxy too; urllib itself heeds NO_PROXY.
        self._client.proxy = None

    def send(self, dispatch: Dispatch) -> Outcome:
        return _with_plain_fallback(self._post, message(dispatch))

    def _post(self, text: str, blocks: Sequence[Block] | None) -> Outcome:
        try:
            answer = self._client.chat_postMessage(
                channel=self._channel, text=text, blocks=blocks, unfurl_links=False, unfurl_media=False
            )
        except SlackApiError as error:
            response = error.response
            return _judged(response.status_code, str(response.get("error") or ""), response.headers)
        except Exception as error:
            return _unanswered(error)
        return Sent({"channel": str(answer.get("channel")), "ts": str(answer.get("ts"))})


class SlackWebhook:
    """Posts to an incoming webhook, which names no message: its receipt is empty."""

    name = NAME

    def __init__(self, access: SlackAccess) -> None:
        self._client = WebhookClient(
            access.webhook_url, timeout=access.timeout_seconds, logger=_sdk_log, retry_handlers=_retries()
        )
        self._client.proxy = None

    def send(self, dispatch: Dispatch) -> Outcome:
        return _with_plain_fallback(self._post, message(dispatch))

    def _post(self, text: str, blocks: Sequence[Block] | None) -> Outcome:
        try:
            answer = self._client.send(text=text, blocks=blocks)
        except Exception as error:
            return _unanswered(error)
        if answer.status_code == 200 and answer.body.strip() == "ok":
            return Sent()
        return _judged(answer.status_code, answer.body.strip(), answer.headers)


class _ShortRateLimit(RateLimitErrorRetryHandler):
    """Waits out a short limit in place; a long one goes back to the outbox instead of stalling the run."""

    def _can_retry(
        self,
        *,
        state: RetryState,
        request: HttpRequest,
        response: HttpResponse | None = None,
        error: Exception | None = None,
    ) -> bool:
        limited = super()._can_retry(state=state, request=request, response=response, error=error)
        if not limited or response is None:
            return False
        wait_seconds = _retry_after(response.headers)
        return wait_seconds is not None and wait_seconds <= _PATIENCE_SECONDS


def _retries() -> list[RetryHandler]:
    # Of connection errors only those before the request was out: a reset after it may hide a delivery.
    return [
        ConnectionErrorRetryHandler(error_types=[URLError]),
        _ShortRateLimit(),
        ServerErrorRetryHandler(),
    ]


def _with_plain_fallback(post: Callable[[str, Sequence[Block] | None], Outcome], content: Message) -> Outcome:
    """Blocks that Slack refuses must not hold the notice back: its text goes alone."""
    outcome = post(content.text, content.blocks)
    return post(content.text, None) if isinstance(outcome, _Refused) else outcome


@dataclass(frozen=True, slots=True)
class _Refused(Retry):
    """Slack read the message and did not like it."""


def _judged(status: int, code: str, headers: Mapping[str, Any]) -> Outcome:
    """What an answer other than success means. `code` is Slack's error, or a body that is not Slack's."""
    said = f"Slack answered {code}" if code.isidentifier() else f"no answer of Slack's (status {status})"
    if status == 429 or code in _RATE_LIMITED:
        return Retry("Slack's rate limit", _retry_after(headers) or _DEFAULT_WAIT_SECONDS)
    if code in _BROKEN:
        return Broken(f"{said}; {_BROKEN[code]}")
    if code in _DOUBTFUL:
        return Unknown(said)
    if code in _MESSAGE_REFUSED:
        return _Refused(said)
    if status in (401, 403, 404, 410):
        return Broken(f"{said}; check SIGNALBOX_SLACK_API_URL and SIGNALBOX_SLACK_WEBHOOK_URL")
    return Retry(said)


def _unanswered(error: Exception) -> Outcome:
    """What it means that no answer came back."""
    if isinstance(error, URLError):
        return Retry(f"Slack cannot be reached: {error.reason}")
    if isinstance(error, JSONDecodeError | UnicodeDecodeError):
        return Unknown("the answer to the message cannot be read")
    if isinstance(error, SlackClientError | ValueError | InvalidURL):
        # Refused by the client before anything was sent. The texts may quote the secret.
        return Broken(f"the Slack settings cannot be used ({type(error).__name__})")
    if isinstance(error, HTTPException | OSError):
        # Read timeout, reset, half an answer: all after the request was out.
        return Unknown(f"no usable answer from Slack ({type(error).__name__})")
    raise error


def _retry_after(headers: Mapping[str, Any]) -> int | None:
    """Seconds of a Retry-After header; None where there is none that is a number."""
    for name, value in headers.items():
        if name.lower() == "retry-after":
            first = value[0] if isinstance(value, list) else value
            return int(first) if str(first).isdecimal() else None
    return None
