"""The application of a worker: as the one behind it, until its connections are to be closed."""

from typing import Any

import pytest

from serving.api.access import Asking
from serving.api.head import Alike, Head
from serving.api.reply import Reply
from serving.closing import Closing
from serving.connection import OnTheSpot
from serving.core.keys import Scope
from tests.story import story

ALIKE = Alike(
    Head("POST", "/v2/models/m/infer", "", "", {}, 0, False, None, ("m", None), None),
    Asking(Scope.OPEN, None, "POST", "/v2/models/m/infer", "", is_counted=True),
    is_nameless=True,
    body_bytes=2,
)


class Behind:
    """Knows one request, and answers every one with its body."""

    def __init__(self) -> None:
        self.learnt: list[bytes] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-way", b"long")]})
        await send({"type": "http.response.body", "body": b"{}"})

    def at_once(self, scope: Any, body: Any) -> Reply | None:
        return Reply(200, [], bytes(body))

    def recall(self, raw: bytes) -> Alike | None:
        return ALIKE if raw in self.learnt else None

    def learn(self, raw: bytes, scope: Any) -> None:
        self.learnt.append(raw)

    def again(self, alike: Alike, body: Any, address: str) -> Reply | None:
        return Reply(200, [], bytes(body))


async def headers_of(closing: Closing) -> list[tuple[bytes, bytes]]:
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    await closing({"type": "http"}, receive, send)
    return list(sent[0]["headers"])


@story
async def test_answers_are_those_behind_until_connections_are_to_be_closed() -> None:
    """On the spot too: that is how a worker answers most of its requests."""
    closing = Closing(Behind())
    assert isinstance(closing, OnTheSpot)
    closing.learn(b"head", {})
    assert closing.recall(b"head") is ALIKE
    assert closing.at_once({}, b"a") == Reply(200, [], b"a")
    assert closing.again(ALIKE, b"b", "") == Reply(200, [], b"b")
    assert await headers_of(closing) == [(b"x-way", b"long")]


@story
async def test_nothing_is_answered_on_the_spot_when_connections_are_to_be_closed() -> None:
    """Whatever comes goes the way on which its caller is told to make another connection."""
    closing = Closing(Behind())
    closing.learn(b"head", {})
    closing.is_on = True
    assert closing.recall(b"head") is None
    assert closing.at_once({}, b"a") is None
    assert closing.again(ALIKE, b"b", "") is None
    assert await headers_of(closing) == [(b"x-way", b"long"), (b"connection", b"close")]


@pytest.mark.parametrize("is_on", [False, True])
def test_application_that_answers_nothing_on_the_spot_is_not_asked_to(is_on: bool) -> None:
    """As one that is open to web pages."""

    async def behind(scope: Any, receive: Any, send: Any) -> None:
        return None

    closing = Closing(behind)
    closing.is_on = is_on
    closing.learn(b"head", {})
    assert closing.recall(b"head") is None
    assert closing.at_once({}, b"a") is None
