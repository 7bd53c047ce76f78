"""A server on loopback that answers as Slack does, for the demo and for tests of the real SDK.

It knows `auth.test`, `chat.postMessage`, `chat.update` and one incoming webhook, holds every message
to Slack's limits, keeps what it took, and can be told to misbehave for the next requests.
"""

import json
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from flows.cli.demo.block_limits import problems

TOKEN = "xoxb-signalbox-receiver"
CHANNEL = "C0SIGNALBOX"
_CHANNEL_NAMES = ("signalbox", "#signalbox")
_WEBHOOK_PATH = "/services/T0SIGNALBOX/B0SIGNALBOX/webhooksecret"
_MESSAGE_UNITS = 40_000
_HANG_SECONDS = 30.0
_FIRST_TS = 1_767_225_600


@dataclass(slots=True)
class Posted:
    """One message as the channel shows it. `updates` counts how often it was edited."""

    ts: str
    text: str
    blocks: list[dict[str, Any]]
    updates: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Mishap:
    """What happens to one request instead of a proper answer."""

    status: int = 200
    error: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    takes_message: bool = False
    answers: bool = True


def rate_limited(after_seconds: int) -> Mishap:
    return Mishap(status=429, error="ratelimited", headers={"Retry-After": str(after_seconds)})


def server_error(status: int = 500) -> Mishap:
    return Mishap(status=status, error="internal server error")


def slack_error(code: str) -> Mishap:
    """Slack's own refusals come with status 200; those of a webhook as a text with 4xx."""
    return Mishap(error=code)


def taken_then_silent() -> Mishap:
    """The message is posted, and no answer comes before the client gives up."""
    return Mishap(takes_message=True, answers=False)


@dataclass(slots=True)
class SlackReceiver:
    """What the receiver took and refused. `mishaps` are used up one per request, from the left."""

    url: str = ""
    token: str = TOKEN
    channel: str = CHANNEL
    messages: list[Posted] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    mishaps: deque[Mishap] = field(default_factory=deque)
    arrived: threading.Condition = field(default_factory=threading.Condition)
    closing: threading.Event = field(default_factory=threading.Event)

    @property
    def api_url(self) -> str:
        return f"{self.url}/api/"

    @property
    def webhook_url(self) -> str:
        return f"{self.url}{_WEBHOOK_PATH}"

    def wait_for(self, count: int, seconds: float = 10.0) -> bool:
        """Whether `count` messages have come before the time is up."""
        with self.arrived:
            return self.arrived.wait_for(lambda: len(self.messages) >= count, seconds)

    def post(self, body: Mapping[str, Any]) -> str:
        """Take a message; its `ts`."""
        with self.arrived:
            ts = f"{_FIRST_TS + len(self.messages)}.000100"
            self.messages.append(Posted(ts, str(body.get("text") or ""), list(body.get("blocks") or [])))
            self.arrived.notify_all()
            return ts

    def edit(self, body: Mapping[str, Any]) -> bool:
        """Replace a message's content; False where there is none with that `ts`."""
        for message in self.messages:
            if message.ts == body.get("ts"):
                message.text, message.blocks = str(body.get("text") or ""), list(body.get("blocks") or [])
                message.updates += 1
                return True
        return False

    def next_mishap(self) -> Mishap | None:
        with self.arrived:
            return self.mishaps.popleft() if self.mishaps else None


@contextmanager
def receiving(port: int = 0) -> Iterator[SlackReceiver]:
    """Serve on loopback until the block ends; a free port unless one is named."""
    receiver = SlackReceiver()

    class Respond(_Request):
        slack = receiver

    server = ThreadingHTTPServer(("127.0.0.1", port), Respond)
    receiver.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()


class _Request(BaseHTTPRequestHandler):
    """One request; `slack` is the receiver it belongs to."""

    slack: SlackReceiver

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.slack.requests.append(self.path)
        mishap = self.slack.next_mishap()
        if mishap is not None:
            self._go_wrong(mishap, _json(raw) or {})
        elif self.path == _WEBHOOK_PATH:
            self._webhook(_json(raw))
        else:
            self._api(self.path.removeprefix("/api/"), raw)

    def _go_wrong(self, mishap: Mishap, body: Mapping[str, Any]) -> None:
        if mishap.takes_message:
            self.slack.post(body)
        if not mishap.answers:
            self.slack.closing.wait(_HANG_SECONDS)
            self.close_connection = True
        elif self.path == _WEBHOOK_PATH:
            status = 403 if mishap.status == 200 else mishap.status
            self._answer(status, mishap.error, mishap.headers)
        elif mishap.status >= 500:
            self._answer(mishap.status, mishap.error, mishap.headers)
        else:
            self._say(mishap.error, status=mishap.status, headers=mishap.headers)

    def _webhook(self, body: dict[str, Any] | None) -> None:
        if body is None:
            self._answer(400, "invalid_payload")
            return
        wrong = self._wrong(body)
        if wrong is None:
            self.slack.post(body)
        self._answer(200 if wrong is None else 400, wrong or "ok")

    def _api(self, method: str, raw: bytes) -> None:
        given = self.headers.get("Authorization", "")
        called: dict[str, Callable[[dict[str, Any]], None]] = {
            "chat.postMessage": self._post_message,
            "chat.update": self._update,
        }
        if given != f"Bearer {self.slack.token}":
            self._say("invalid_auth" if given else "not_authed")
        elif method == "auth.test":
            self._say(user="signalbox", team="Receiver", user_id="U0SIGNALBOX", team_id="T0SIGNALBOX")
        elif method not in called:
            self._say("unknown_method")
        elif not self.headers.get("Content-Type", "").startswith("application/json"):
            self._say("invalid_post_type")
        elif (body := _json(raw)) is None:
            self._say("invalid_json")
        elif body.get("channel") not in (self.slack.channel, *_CHANNEL_NAMES):
            self._say("channel_not_found")
        elif (wrong := self._wrong(body)) is not None:
            self._say(wrong, errors=self.slack.refused[-1:])
        else:
            called[method](body)

    def _post_message(self, body: dict[str, Any]) -> None:
        self._say(channel=self.slack.channel, ts=self.slack.post(body))

    def _update(self, body: dict[str, Any]) -> None:
        if self.slack.edit(body):
            self._say(channel=self.slack.channel, ts=body["ts"])
        else:
            self._say("message_not_found")

    def _wrong(self, body: Mapping[str, Any]) -> str | None:
        """Slack's word for what is wrong with a message; the details go to `refused`."""
        text, blocks = body.get("text"), body.get("blocks")
        if not text and not blocks:
            self.slack.refused.append("neither text nor blocks")
            return "no_text"
        if len(str(text or "")) > _MESSAGE_UNITS:
            self.slack.refused.append(f"a text of {len(str(text))}")
            return "msg_too_long"
        found = problems(blocks) if blocks is not None else []
        self.slack.refused.extend(found)
        return "invalid_blocks" if found else None

    def _say(
        self, error: str = "", *, status: int = 200, headers: Mapping[str, str] | None = None, **more: object
    ) -> None:
        body = {"ok": False, "error": error, **more} if error else {"ok": True, **more}
        self._answer(status, json.dumps(body), headers, content_type="application/json; charset=utf-8")

    def _answer(
        self,
        status: int,
        text: str,
        headers: Mapping[str, str] | None = None,
        content_type: str = "text/html; charset=utf-8",
    ) -> None:
        sent = text.encode()
        self.send_response(status)
        for name, value in {"Content-Type": content_type, **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    def log_message(self, format: str, *args: Any) -> None:
        """The receiver is quiet."""


def _json(raw: bytes) -> dict[str, Any] | None:
    try:
        body = json.loads(raw)
    except ValueError:
        return None
    return body if isinstance(body, dict) else None
