"""The outermost application: every request passes the same door, inference then takes the short way.

Host, key and request id are settled here, and every error becomes its answer here; what is not
inference goes on to the framework behind.
"""

import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from uuid import uuid4

import orjson

from serving.api.access import Access
from serving.api.body import ClientGone, Message, Receive
from serving.api.encoding import read_content
from serving.api.errors import Failure, failure_of
from serving.core.errors import SignalboxError
from serving.logs import bound_request
from serving.protocol.infer import InferEndpoint
from serving.protocol.scoring import ScoringEndpoint

log = logging.getLogger(__name__)

Scope = Mapping[str, object]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[dict[str, object], Receive, Send], Awaitable[None]]

_REQUEST_ID = re.compile(r"[\w.-]{1,128}", re.ASCII)
_BODILESS = frozenset({"GET", "HEAD", "OPTIONS"})
_ONLY_POST = Failure(405, "method not allowed here; see /docs", {"Allow": "POST"})
# What an answer says to a browser that came upon it: take it for what it declares, frame it nowhere,
# tell nobody where you were, keep no copy.
_PROTECTIVE = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)
_INFER_PATH = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?/infer")
_SCORING_PATH = re.compile(r"(?:/models/([^/]+)(?:/versions/([^/]+))?)?/invocations")
_MAX_HEADERS = 100
_MAX_HEADER_BYTES = 32 << 10
_TOO_MANY_HEADERS = Failure(
    431, f"the headers are too many: {_MAX_HEADERS} of {_MAX_HEADER_BYTES} bytes together are read here"
)


class Edge:
    """ASGI application."""

    def __init__(self, access: Access, infer: InferEndpoint, scoring: ScoringEndpoint, behind: App) -> None:
        self._access = access
        self._infer = infer
        self._scoring = scoring
        self._behind = behind

    async def __call__(self, scope: dict[str, object], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._behind(scope, receive, send)
            return
        headers = _headers(scope)
        request_id = _request_id(headers)
        bound_request.set(request_id)
        sending = _Sending(send)
        try:
            await self._handle(scope, headers, request_id, receive, sending)
        except ClientGone:
            return
        except Exception as error:  # the edge: whatever escaped becomes an answer
            if not sending.has_started:
                await respond(sending, failure_of(error), request_id)
            elif not isinstance(error, SignalboxError):
                log.exception("request_failed request_id=%s", request_id)

    async def _handle(
        self,
        scope: dict[str, object],
        headers: Mapping[str, str],
        request_id: str,
        receive: Receive,
        send: Send,
    ) -> None:
        if _are_too_many(scope):
            await respond(send, _TOO_MANY_HEADERS, request_id)
            return
        method, path = str(scope["method"]), str(scope["path"])
        self._access.check_host(headers.get("host", ""))
        raw_path = _raw_path(scope)
        endpoint: InferEndpoint | ScoringEndpoint = self._infer
        target = _INFER_PATH.fullmatch(raw_path)
        if target is None and raw_path.endswith("/invocations"):
            endpoint, target = self._scoring, _SCORING_PATH.fullmatch(raw_path)
        if target is not None and method != "POST":
            await respond(send, _ONLY_POST, request_id)
            return
        caller = self._access.admit(method, path, headers, target=_target(scope), address=_address(scope))
        if target is not None:
            await endpoint(target[1], target[2], headers, request_id, receive, send)
            return
        scope["state"] = {"actor": caller.name, "caller": caller, "request_id": request_id}
        if method not in _BODILESS:
            receive = _whole(await read_content(receive, headers, self._infer.max_body_bytes), receive)
        await self._behind(scope, receive, _naming(send, request_id))


class _Sending:
    """Passes an answer on and remembers that it began: a second one must not follow."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.has_started = False

    async def __call__(self, message: Message) -> None:
        self.has_started = True
        await self._send(message)


async def respond(send: Send, failure: Failure, request_id: str) -> None:
    """Send an error's answer."""
    body = orjson.dumps({"error": failure.message})
    headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        "x-request-id": request_id,
        **{name.lower(): value for name, value in failure.headers.items()},
    }
    encoded = [*((name.encode(), value.encode()) for name, value in headers.items()), *_PROTECTIVE]
    await send({"type": "http.response.start", "status": failure.status, "headers": encoded})
    await send({"type": "http.response.body", "body": body})


def _whole(body: bytes, receive: Receive) -> Receive:
    """Gives a body that was read within its limit once, then whatever the server reports next."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_whole() -> Message:
        return messages.pop() if messages else await receive()

    return receive_whole


def _naming(send: Send, request_id: str) -> Send:
    async def send_named(message: Message) -> None:
        if message["type"] == "http.response.start":
            named = (b"x-request-id", request_id.encode())
            message["headers"] = [*message.get("headers", []), named, *_PROTECTIVE]
        await send(message)

    return send_named


def _are_too_many(scope: Mapping[str, object]) -> bool:
    raw = scope["headers"]
    assert isinstance(raw, list)
    if len(raw) > _MAX_HEADERS:
        return True
    return sum([len(name) + len(value) for name, value in raw]) > _MAX_HEADER_BYTES


def _headers(scope: Mapping[str, object]) -> dict[str, str]:
    raw = scope["headers"]
    assert isinstance(raw, list)
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in raw}


def _raw_path(scope: Mapping[str, object]) -> str:
    """The path before unquoting, so that a quoted slash stays inside its model's name."""
    raw = scope.get("raw_path")
    return raw.decode("latin-1").partition("?")[0] if isinstance(raw, bytes) else str(scope["path"])


def _target(scope: Mapping[str, object]) -> str:
    """Path and query as they were sent."""
    query = scope.get("query_string", b"")
    text = query.decode("latin-1") if isinstance(query, bytes) else ""
    return f"{_raw_path(scope)}?{text}" if text else _raw_path(scope)


def _address(scope: Mapping[str, object]) -> str:
    client = scope.get("client")
    return str(client[0]) if isinstance(client, tuple | list) and client else "unknown"


def _request_id(headers: Mapping[str, str]) -> str:
    given = headers.get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else uuid4().hex
