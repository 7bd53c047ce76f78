"""One HTTP connection that answers an inference request on the spot where nothing has to be waited for.

uvicorn starts a task per request, hands it the body and takes the answer piece by piece, which together
costs more than a small model. Here a short POST to an inference path is read whole first and offered to
the application's `at_once`. What that leaves, and every other request, goes uvicorn's way. A large one is
read past the parser, into the place where it stays.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Protocol, cast, runtime_checkable

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from serving.api.body import Message, Receive
from serving.api.edge import DRAWN, Drawn, address_of
from serving.api.head import Alike
from serving.api.reply import Headers, Reply, header_lines
from serving.landing import Approach, Landing, Spares
from serving.turn import Turn

AtOnce = Callable[[dict[str, object], bytes | memoryview], Reply | None]

_BLANK, _CLOSING = b"\r\n", b"connection: close\r\n\r\n"
_BLANK_LINE = b"\r\n\r\n"
_JSON_BYTES = b"inference-header-content-length"
_MAX_DIGITS = 10
_INFERENCE = b"/infer"
# Longer bodies come in pieces, which are counted before they are put together.
_MAX_BYTES = 1 << 20
_ONE_WRITE_BYTES = 1 << 16
# So much of a body must be missing to be worth a change of the transport's protocol.
_LANDED_BYTES = 1 << 16
# Eight callers with pictures, and what the log still looks at.
_SPARE_BYTES = 16 << 20
# A body of unknown length, one that waits to be asked for, and a proxy's word for whom it speaks.
_NOT_SHORT = frozenset(
    {b"transfer-encoding", b"expect", b"upgrade", b"x-forwarded-for", b"x-forwarded-proto"}
)


@runtime_checkable
class OnTheSpot(Protocol):
    """An application that answers what has come whole, and reads what begins alike only once."""

    def at_once(self, scope: dict[str, object], body: bytes | memoryview) -> Reply | None:
        """None where nothing was done, and the application must be called."""
        ...

    def recall(self, raw: bytes) -> Alike | None:
        """What was learnt of requests whose bytes up to their bodies are these."""
        ...

    def learn(self, raw: bytes, scope: dict[str, object]) -> None: ...

    def again(self, alike: Alike, body: bytes | memoryview, address: str) -> Reply | Drawn | None:
        """The answer; or the id and route key that were drawn for a request that must be read after all."""
        ...


# One event loop to a process.
_SPARES = Spares(_SPARE_BYTES)


class DirectConnection(HttpToolsProtocol):
    """Confined to the event loop's thread."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        # Not of `self.app`, which uvicorn has wrapped to look for a proxy's headers.
        self._at_once: AtOnce | None = getattr(self.config.app, "at_once", None)
        application: object = self.config.app
        self._spot = application if isinstance(application, OnTheSpot) else None
        self._address = ""
        self._defaults: Headers = []
        self._default_lines = b""
        # What came in one piece and began between two requests, while it is read.
        self.piece: bytes | None = None
        # The id and route key of a request that was recalled, and is read after all.
        self._drawn: object = None
        self._quiet_since = 0.0
        self._length = self._json_bytes = 0
        self.turn: Turn | None = None
        self._landing: Landing | None = None
        self._approach: Approach | None = None  # what reads after a large body, until one that is not

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        turn = self.turn
        if turn is not None and turn.missing_bytes >= _LANDED_BYTES and self.takes_more():
            self._land(turn)

    def landed(self, size_bytes: int) -> None:
        """More of a large body has arrived, past the parser; the last of it ends its request."""
        landing = self._landing
        if landing is not None and landing.is_whole:
            self._approach = self._approach or Approach(self)
            self._read_as(self._approach)
            self.on_message_complete()
            self._landing = None
            _SPARES.keep(landing.memory)
            # The old one still waits for the body.
            self.parser = httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)

    def takes_more(self) -> bool:
        return not self.transport.is_closing()

    def _land(self, turn: Turn) -> None:
        """Have the rest of the body read straight into its place."""
        memory = _SPARES.take(turn.skipped + turn.length)
        self._landing = Landing(self, memory, turn.pieces, turn.length, turn.skipped)
        turn.pieces.clear()
        self._read_as(self._landing)

    def _read_as(self, protocol: asyncio.BaseProtocol) -> None:
        """Have what comes next given to `protocol`; a transport asks how only when it begins to read."""
        is_reading = self.transport.is_reading()
        if is_reading:
            self.transport.pause_reading()
        self.transport.set_protocol(protocol)
        if is_reading:
            self.transport.resume_reading()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast(asyncio.Transport, transport))
        self._address = address_of({"client": self.client})

    def again(self, data: bytes) -> bool:
        """Answer a request that came in one piece and begins as others did; False leaves it to be read.

        Only between two requests. What the same bytes mean was found by the parser, which sees none of it.
        """
        spot, end = self._spot, data.find(_BLANK_LINE) + len(_BLANK_LINE)
        alike = spot.recall(data[:end]) if spot is not None else None
        if spot is None or alike is None or len(data) - end != alike.body_bytes:
            return False
        if self.flow.write_paused or (self.cycle is not None and not self.cycle.response_complete):
            return False
        reply = spot.again(alike, data[end:], self._address)
        if not isinstance(reply, Reply):
            self._drawn = reply
            return False
        self._write(reply, keep_alive=True)
        self.on_response_complete()
        return True

    def on_headers_complete(self) -> None:
        is_short = self._is_short()
        if self._approach is not None and not (is_short and self._length >= _LANDED_BYTES):
            self._approach = None
            self._read_as(self)
        if not is_short:
            self.turn = None
            super().on_headers_complete()
            return
        scope = cast("dict[str, object]", self.scope)
        scope["method"], scope["path"], scope["raw_path"] = "POST", self.url.decode("ascii"), self.url
        scope["query_string"] = b""
        keep_alive = self.parser.should_keep_alive()
        self.turn = Turn(scope, self._length, self._json_bytes, keep_alive=keep_alive)
        if self._drawn is not None:
            scope[DRAWN], self._drawn = self._drawn, None
        self.cycle = cast(Any, self.turn)

    def on_body(self, body: bytes) -> None:
        if self.turn is None:
            super().on_body(body)
        else:
            self.turn.pieces.append(body)

    def on_message_complete(self) -> None:
        turn, self.turn = self.turn, None
        if turn is None:
            super().on_message_complete()
        elif not turn.disconnected:
            body = turn.body() if self._landing is None else self._landing.body()
            reply = self._at_once(turn.scope, body) if self._at_once is not None else None
            if reply is None:
                self._go_the_long_way(turn, body)
            else:
                self._send(turn, reply)
                self._learn(turn, body)

    def _unset_keepalive_if_required(self) -> None:
        """The timer of a quiet connection runs on: it looks before it closes."""
        if self.transport.is_closing():
            super()._unset_keepalive_if_required()

    def on_response_complete(self) -> None:
        """As the base class, with one timer per connection in the place of one per request."""
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
        if self.transport.is_closing() or (self.cycle is not None and not self.cycle.response_complete):
            return  # the end of what is being answered looks again
        left_seconds = self._quiet_since + self.timeout_keep_alive - self.loop.time()
        if left_seconds > 0:
            self._look_again(left_seconds)
        else:
            self.transport.close()

    def _look_again(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def _is_short(self) -> bool:
        parser, url = self.parser, self.url
        if not url.endswith(_INFERENCE) or not url.startswith(b"/") or b"%" in url or b"?" in url:
            return False
        if self._at_once is None or self.root_path or parser.get_method() != b"POST":
            return False
        # Answers leave in the order of their requests, which uvicorn sees to.
        is_free = self.cycle is None or self.cycle.response_complete
        if not is_free or self.flow.write_paused or parser.get_http_version() != "1.1":
            return False
        length, self._json_bytes = b"", 0
        for name, value in self.headers:
            if name == b"content-length":
                length = value
            elif name == _JSON_BYTES:
                self._json_bytes = int(value) if value.isdigit() and len(value) < _MAX_DIGITS else 0
            elif name in _NOT_SHORT:
                return False
        self._length = int(length) if length.isdigit() and len(length) < _MAX_DIGITS else -1
        return 0 <= self._length <= _MAX_BYTES

    def _go_the_long_way(self, turn: Turn, body: bytes | memoryview) -> None:
        self.cycle = cast(Any, None)
        super().on_headers_complete()
        self.cycle.keep_alive = self.cycle.keep_alive and turn.keep_alive
        cycle = cast(Any, self.cycle)
        if isinstance(body, bytes):
            cycle.body = body
        else:
            cycle.receive = _as_it_lies(cycle, body)
        super().on_message_complete()

    def _learn(self, turn: Turn, body: bytes | memoryview) -> None:
        """Remember how a request began that came whole, and nothing else with it.

        Tensors that follow JSON may have to be put in place first (see `Turn.body`), so these are read.
        """
        piece, self.piece = self.piece, None
        if self._spot is None or piece is None or not turn.keep_alive or turn.json_bytes:
            return
        end = piece.find(_BLANK_LINE) + len(_BLANK_LINE)
        if piece[end:] == body:
            self._spot.learn(piece[:end], turn.scope)

    def _write(self, reply: Reply, *, keep_alive: bool) -> None:
        defaults = self.server_state.default_headers
        if defaults is not self._defaults:  # a list of its own each second, with the date
            self._defaults, self._default_lines = defaults, header_lines(defaults)
        lines = header_lines(reply.headers) if reply.lines is None else reply.lines
        head = STATUS_LINE[reply.status] + self._default_lines + lines + (_BLANK if keep_alive else _CLOSING)
        if len(reply.content) <= _ONE_WRITE_BYTES:
            self.transport.write(head + reply.content)
        else:
            self.transport.write(head)
            self.transport.write(reply.content)

    def _send(self, turn: Turn, reply: Reply) -> None:
        self._write(reply, keep_alive=turn.keep_alive)
        turn.response_started = turn.response_complete = True
        if not turn.keep_alive:
            self.transport.close()
        self.on_response_complete()


def _as_it_lies(cycle: Any, body: memoryview) -> Receive:
    """uvicorn's `receive` of a body that is whole, without the copy it would make."""
    receive, left = cycle.receive, [body]

    async def receive_whole() -> Message:
        if not left or cycle.disconnected:
            return cast(Message, await receive())
        cycle.message_event.clear()
        return {"type": "http.request", "body": left.pop(), "more_body": False}

    return receive_whole
