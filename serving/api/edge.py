"""The outermost application: every request passes the same door, inference then takes the short way.

Host, key and request id are settled here, and every error becomes its answer here; what is not
inference goes on to the framework behind.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from random import getrandbits
from typing import Any, cast

import orjson

from serving.api.access import ANONYMOUS, Access, Caller
from serving.api.body import ClientGone, Message, Receive
from serving.api.encoding import read_content
from serving.api.errors import Failure, failure_of
from serving.api.head import MAX_HEADER_BYTES, MAX_HEADERS, Alike, Head, Heads, read_head
from serving.api.intake import Arrival, Intake
from serving.api.reply import Reply
from serving.core.errors import AccessRefused, NotServed, SignalboxError
from serving.logs import bound_request
from serving.protocol.infer import InferEndpoint
from serving.protocol.raw_data import Buffer
from serving.protocol.route_key import route_key
from serving.protocol.scoring import ScoringEndpoint

log = logging.getLogger(__name__)

Scope = Mapping[str, object]
Send = Callable[[Message], Awaitable[None]]
Drawn = tuple[str, str]  # a request's id and its route key
App = Callable[[dict[str, object], Receive, Send], Awaitable[None]]

# Marks in a request's scope: its work may be dropped when the caller hangs up, and it was.
DROPPABLE, ABANDONED = "signalbox.droppable", "signalbox.abandoned"
# In the scope as well: the request's id and route key, where they were drawn already.
DRAWN = "signalbox.drawn"

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
_MAX_TARGET_BYTES = 8 << 10
_TARGET_TOO_LONG = Failure(414, f"the address is longer than {_MAX_TARGET_BYTES} bytes")
_STOPPED = Failure(
    503, "the server stopped before this was answered; ask another replica", {"Retry-After": "1"}
)
_TOO_MANY_HEADERS = Failure(
    431, f"the headers are too many: {MAX_HEADERS} of {MAX_HEADER_BYTES} bytes together are read here"
)


class Edge:
    """ASGI application. `is_routed` tells whether anything behind takes a request of this method and path."""

    def __init__(
        self,
        access: Access,
        intake: Intake,
        infer: InferEndpoint,
        scoring: ScoringEndpoint,
        behind: App,
        is_routed: Callable[[Scope], bool],
    ) -> None:
        self._access = access
        self._intake = intake
        self._infer = infer
        self._scoring = scoring
        self._behind = behind
        self._is_routed = is_routed
        self._heads = Heads()

    async def __call__(self, scope: dict[str, object], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._behind(scope, receive, send)
            return
        known = self._heads.find(scope)
        head = read_head(scope) if known is None else known.head
        request_id, key = cast("Drawn | None", scope.get(DRAWN)) or _drawn(head)
        bound_request.set(request_id)
        sending, arrival = _Sending(send), Arrival(self._intake, receive)
        try:
            if known is None:
                refusal = self._refusal(head)
                if refusal is not None:
                    await respond(sending, refusal, request_id)
                    return
                asking = self._access.asking(head.method, head.path, head.headers, target=head.target)
                self._heads.keep(scope, head, asking)
            await self._handle(scope, head, (request_id, key), arrival, sending)
        except ClientGone:
            return
        except asyncio.CancelledError:
            if ABANDONED not in scope and not sending.has_started:
                await respond(sending, _STOPPED, request_id)
        except Exception as error:  # the edge: whatever escaped becomes an answer
            if not sending.has_started:
                await respond(sending, failure_of(error), request_id)
            elif not isinstance(error, SignalboxError):
                log.exception("request_failed request_id=%s", request_id)
        finally:
            arrival.leave()

    def at_once(self, scope: dict[str, object], body: Buffer) -> Reply | None:
        """The answer to an inference request that came whole, where nothing has to be waited for.

        None, and nothing done, where `__call__` must see to it.
        """
        alike = self._heads.find(scope)
        if alike is None or alike.head.infer is None or alike.head.method != "POST":
            return None
        if DRAWN in scope:  # `again` could not answer it
            return None
        answered = self.again(alike, body, address_of(scope))
        if isinstance(answered, Reply):
            return answered
        scope[DRAWN] = answered
        return None

    def recall(self, raw: bytes) -> Alike | None:
        """What was learnt of requests that begin with these bytes, up to the blank line."""
        return self._heads.recall(raw)

    def learn(self, raw: bytes, scope: dict[str, object]) -> None:
        """Have requests that begin with these bytes recalled as what `at_once` has just answered."""
        if (alike := self._heads.find(scope)) is not None:
            self._heads.learn(raw, alike)

    def again(self, alike: Alike, body: Buffer, address: str) -> Reply | Drawn:
        """As `at_once`, for a POST to an inference path whose head was read before.

        Where `__call__` must see to it, its id and route key, which belong into its scope.
        """
        head = alike.head
        # Drawn once for a request, whichever way it takes: who were drawn again would be twice as likely
        # to meet the version with the smaller share.
        if alike.is_nameless:
            request_id = key = f"{getrandbits(128):032x}"
        else:
            request_id, key = _drawn(head)
        if head.infer is None or len(body) > self._infer.max_body_bytes:
            return request_id, key
        if len(body) > self._intake.limit_bytes - self._intake.held_bytes:
            return request_id, key
        try:
            route = self._infer.prompt_route(head.infer, head.headers, key)
        except NotServed:  # said to those alone who may ask
            return request_id, key
        if route is None:
            return request_id, key
        try:
            self._access.admitted(alike.asking, address)
            answer = self._infer.at_once(route, head.headers, request_id, body)
        except Exception as error:  # as in `__call__`
            return _failed(failure_of(error), request_id)
        return (request_id, key) if answer is None else answer

    def _refusal(self, head: Head) -> Failure | None:
        """What is wrong with a head whoever sends it. Raises `AccessRefused` for a strange host."""
        if head.are_too_many:
            return _TOO_MANY_HEADERS
        if len(head.target) > _MAX_TARGET_BYTES:
            return _TARGET_TOO_LONG
        self._access.check_host(head.headers.get("host", ""))
        return None

    async def _handle(
        self, scope: dict[str, object], head: Head, drawn: Drawn, receive: Receive, send: Send
    ) -> None:
        method, headers, (request_id, key) = head.method, head.headers, drawn
        endpoint: InferEndpoint | ScoringEndpoint = self._infer if head.infer else self._scoring
        target = head.infer or head.scoring
        if target is not None and method != "POST":
            await respond(send, _ONLY_POST, request_id)
            return
        caller = self._admitted(scope, head)
        if target is not None:
            scope[DROPPABLE] = True
            await endpoint(cast(Any, target[0]), target[1], headers, request_id, key, receive, send)
            return
        scope["state"] = {"actor": caller.name, "caller": caller, "request_id": request_id}
        if method not in _BODILESS:
            receive = _whole(await read_content(receive, headers, self._infer.max_body_bytes), receive)
        await self._behind(scope, receive, _naming(send, request_id))

    def _admitted(self, scope: Scope, head: Head) -> Caller:
        """Who calls. Raises `AccessRefused`, on loopback only where there is something behind to be refused:
        a mistyped address is told as one, and not as the want of a key.
        """
        try:
            return self._access.admit(
                head.method, head.path, head.headers, target=head.target, address=address_of(scope)
            )
        except AccessRefused:
            is_inference = head.infer is not None or head.scoring is not None
            if is_inference or not self._access.is_loopback or self._is_routed(scope):
                raise
            return ANONYMOUS


class _Sending:
    """Passes an answer on and remembers that it began: a second one must not follow."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.has_started = False

    async def __call__(self, message: Message) -> None:
        self.has_started = True
        await self._send(message)


def _drawn(head: Head) -> Drawn:
    """An id for the request, the caller's own where one was given, and its route key."""
    request_id = head.given_id or f"{getrandbits(128):032x}"
    return request_id, route_key(head.headers, request_id)


async def respond(send: Send, failure: Failure, request_id: str) -> None:
    """Send an error's answer."""
    reply = _failed(failure, request_id)
    await send({"type": "http.response.start", "status": reply.status, "headers": reply.headers})
    await send({"type": "http.response.body", "body": reply.content})


def _failed(failure: Failure, request_id: str) -> Reply:
    body = orjson.dumps({"error": failure.message})
    headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        "x-request-id": request_id,
        **{name.lower(): value for name, value in failure.headers.items()},
    }
    encoded = [*((name.encode(), value.encode()) for name, value in headers.items()), *_PROTECTIVE]
    return Reply(failure.status, encoded, body)


def _whole(body: Buffer, receive: Receive) -> Receive:
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


def address_of(scope: Mapping[str, object]) -> str:
    """Where a request comes from, as rate limits have it."""
    client = scope.get("client")
    return str(client[0]) if isinstance(client, tuple | list) and client else "unknown"
