"""One HTTP connection: inference is answered as soon as its body is complete, all else is uvicorn's.

uvicorn starts a task per request and hands it the body and takes the answer piece by piece, which costs
more than a small model. A POST to an inference path that says how long it is gets its turn here: run on
the spot as far as it goes, which is to the end for a model that answers at once, and as a task from where
it must wait.
"""

import asyncio
import logging
from collections.abc import Coroutine, Generator
from typing import Any, cast

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from serving.api.body import Message

log = logging.getLogger(__name__)

_INFERENCE = (b"/infer", b"/invocations")
# Beyond this a body comes in pieces, so that what is refused need not be held.
_MAX_BYTES = 16 << 20
_ONE_WRITE_BYTES = 1 << 16
# A body of unknown length, one that waits to be asked for, and a proxy's word for whom it speaks.
_NOT_SHORT = frozenset({b"transfer-encoding", b"expect", b"x-forwarded-for", b"x-forwarded-proto"})


class Turn:
    """One request and its answer, in the place of uvicorn's cycle. Its body is given as one message."""

    def __init__(self, connection: "Connection", scope: dict[str, Any], keep_alive: bool) -> None:
        self._connection = connection
        self.scope = scope
        self.keep_alive = keep_alive
        self.pieces: list[bytes] = []
        self.task: asyncio.Task[None] | None = None
        # As uvicorn's cycle has them: its protocol looks at these.
        self.disconnected = False
        self.response_complete = False
        self.message_event = asyncio.Event()
        self._is_read = False
        self._head: Message | None = None

    async def receive(self) -> Message:
        if not self._is_read:
            self._is_read = True
            pieces, self.pieces = self.pieces, []
            body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            return {"type": "http.request", "body": body, "more_body": False}
        if not self.disconnected and not self.response_complete:
            await self.message_event.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Head and body leave together, so the body must be whole."""
        if self._head is None:
            self._head = message
            return
        connection = self._connection
        if connection.flow.write_paused and not self.disconnected:
            await connection.flow.drain()
        if self.disconnected or self.response_complete:
            return
        body = message["body"]
        head = _head(self._head, connection.server_state.default_headers, self.keep_alive)
        if len(body) <= _ONE_WRITE_BYTES:
            connection.transport.write(head + body)
        else:
            connection.transport.write(head)
            connection.transport.write(body)
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive:
            connection.transport.close()
        connection.on_response_complete()

    def begin(self) -> None:
        """Run the application until it must wait, and the rest of it as a task."""
        connection = self._connection
        # Not `connection.app`: uvicorn has wrapped that, to look for a proxy's headers.
        application = cast(Any, connection.config.app)
        coroutine: Coroutine[Any, Any, None] = application(self.scope, self.receive, self.send)
        try:
            awaited = coroutine.send(None)
        except StopIteration:
            return
        except Exception:  # the edge has answered for everything it knows
            self._broken()
            return
        self.task = connection.loop.create_task(self._rest(coroutine, awaited))
        connection.tasks.add(self.task)
        self.task.add_done_callback(connection.tasks.discard)

    async def _rest(self, coroutine: Coroutine[Any, Any, None], awaited: Any) -> None:
        try:
            await _Rest(coroutine, awaited)
        except Exception:  # as above
            self._broken()

    def _broken(self) -> None:
        log.exception("application_failed")
        self._connection.transport.close()


class _Rest:
    """A coroutine that was begun outside of its task, to be awaited in it."""

    def __init__(self, coroutine: Coroutine[Any, Any, None], awaited: Any) -> None:
        self._coroutine = coroutine
        self._awaited = awaited

    def __await__(self) -> Generator[Any, Any, None]:
        awaited = self._awaited
        try:
            while True:
                try:
                    # The first wait may be over already: a bare yield asks for the next turn of the loop.
                    given = yield awaited
                except BaseException as raised:  # a cancellation goes to where the coroutine waits
                    awaited = self._coroutine.throw(raised)
                else:
                    awaited = self._coroutine.send(given)
        except StopIteration:
            return


class Connection(HttpToolsProtocol):
    """For `uvicorn.Config(http=Connection)`."""

    _turn: Turn | None = None
    _quiet_since = 0.0

    def on_headers_complete(self) -> None:
        if not self._is_inference():
            self._turn = None
            super().on_headers_complete()
            return
        scope = cast("dict[str, Any]", self.scope)
        path = self.url.decode("ascii")
        scope["method"], scope["path"], scope["raw_path"] = "POST", path, self.url
        scope["query_string"] = b""
        self._turn = Turn(self, scope, self.parser.should_keep_alive())
        self.cycle = cast(Any, self._turn)

    def on_body(self, body: bytes) -> None:
        if self._turn is None:
            super().on_body(body)
        else:
            self._turn.pieces.append(body)

    def on_message_complete(self) -> None:
        if self._turn is None:
            super().on_message_complete()
        else:
            self._turn.begin()

    def connection_lost(self, exc: Exception | None) -> None:
        turn = self._turn
        super().connection_lost(exc)
        if turn is not None and turn.task is not None:
            # Nobody waits for the answer any more. Later, so that the task has begun and can tidy up.
            self.loop.call_soon(turn.task.cancel)

    def data_received(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.send_400_response("Invalid HTTP request received.")
        except httptools.HttpParserUpgrade:
            self._unsupported_upgrade_warning()

    def on_response_complete(self) -> None:
        """As uvicorn's, with one timer per connection in the place of one per request."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
            return
        self._quiet_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._look_again(self.timeout_keep_alive)

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that was quiet for long; look again later at one that was not."""
        self.timeout_keep_alive_task = None
        if self.transport.is_closing():
            return
        if self.cycle is not None and not self.cycle.response_complete:
            return  # its end looks again
        left_seconds = self._quiet_since + self.timeout_keep_alive - self.loop.time()
        if left_seconds > 0:
            self._look_again(left_seconds)
        else:
            self.transport.close()

    def _look_again(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def _is_inference(self) -> bool:
        if not self.url.endswith(_INFERENCE) or b"%" in self.url or b"?" in self.url:
            return False
        parser = self.parser
        if parser.get_method() != b"POST" or parser.get_http_version() != "1.1" or parser.should_upgrade():
            return False
        if self.root_path or not self.url.startswith(b"/"):
            return False
        if self.cycle is not None and not self.cycle.response_complete:
            return False  # answers leave in the order of their requests, which uvicorn sees to
        length = b""
        for name, value in self.headers:
            if name == b"content-length":
                length = value
            elif name in _NOT_SHORT:
                return False
        return length.isdigit() and int(length) <= _MAX_BYTES


def _head(message: Message, defaults: list[tuple[bytes, bytes]], keep_alive: bool) -> bytes:
    """Status line and headers. Raises RuntimeError where a header would end early and begin another."""
    headers = [*defaults, *message["headers"]]
    lines = b"".join([b"%b: %b\r\n" % header for header in headers])
    if lines.count(b"\n") != len(headers) or lines.count(b"\r") != len(headers):
        raise RuntimeError("a header holds a line end")
    closing = b"\r\n" if keep_alive else b"connection: close\r\n\r\n"
    return b"".join((STATUS_LINE[message["status"]], lines, closing))
