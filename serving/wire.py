"""One HTTP connection, bounded in time and bytes before anybody has read a request of it.

httptools parses whatever comes for as long as it comes. Here a request line with its headers, and then
a body, have to arrive within their time, headers within their size, and connections are counted. One
timer per connection watches, set only where a request did not come in one piece; a caller who hangs up
ends the work of a request that nobody else needs.
"""

import asyncio
from collections.abc import Mapping
from functools import partial
from http import HTTPStatus
from typing import Any, cast

import orjson

from serving.api.edge import ABANDONED, DROPPABLE
from serving.connection import DirectConnection
from serving.wire_limits import WireLimits

MAX_HEAD_BYTES = 64 << 10
# A large body may take a second more for each of these that has arrived.
_BODY_BYTES_PER_SECOND = 256 << 10
# An answer to somebody who is still sending would be lost with the connection: let it be read.
_LINGER_SECONDS = 2.0
_RETRY_AFTER = {"retry-after": "1"}
_NO_HEADERS: Mapping[str, str] = {}


def bounded(limits: WireLimits) -> type[asyncio.Protocol]:
    """What uvicorn makes its connections of."""
    return cast(type[asyncio.Protocol], partial(Connection, limits=limits))


class Connection(DirectConnection):
    """Confined to the event loop's thread."""

    def __init__(self, *given: Any, limits: WireLimits, **named: Any) -> None:
        super().__init__(*given, **named)
        self._limits = limits
        self._timer: asyncio.TimerHandle | None = None
        self._due: float | None = None  # when what is being read has to be complete
        self._is_reading = self._in_head = self._is_lingering = False
        self._head_bytes = self._body_bytes = 0
        self._running: Any = None  # the request being answered, and the task that does it
        self._task: Any = None

    @property
    def _is_answering(self) -> bool:
        return self._running is not None and not self._running.response_complete

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        count, most = len(self.connections), self._limits.max_connections
        if count > 2 * most:
            self.transport.abort()
        elif count > most:
            told = f"{most} connections are open already (SIGNALBOX_MAX_CONNECTIONS); try again"
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, told, _RETRY_AFTER)
        else:
            self._expect(self._limits.header_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        super().connection_lost(exc)
        if self._is_answering and DROPPABLE in self._running.scope:
            self._running.scope[ABANDONED] = True
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        if self._is_refused():
            return
        if not self._is_reading:
            if self.again(data):
                self._due = None
                self._expect(self._limits.header_seconds)
                return
            self.piece = data
        was_in_head = self._in_head
        super().data_received(data)
        self.piece = None
        self._account(len(data), was_in_head=was_in_head)

    def landed(self, size_bytes: int) -> None:
        super().landed(size_bytes)
        self._account(size_bytes, was_in_head=False)

    def takes_more(self) -> bool:
        return not self._is_refused()

    def _account(self, size_bytes: int, *, was_in_head: bool) -> None:
        """What has arrived, complete or not, decides how long the rest may take."""
        if self._is_refused():
            return
        if self._is_reading:
            self._count(size_bytes, was_in_head=was_in_head)
        elif self.cycle is None or self.cycle.response_complete:  # blank lines keep no connection open
            self._expect(self._limits.header_seconds)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_reading = self._in_head = True
        self._head_bytes = self._body_bytes = 0
        self._due = None

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._due = None
        super().on_headers_complete()
        if self.turn is not None:
            self._running = self.turn

    def on_message_complete(self) -> None:
        self._is_reading = False
        self._due = None
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """What cannot be parsed; as the base class, but in the form of every other error."""
        if not self.transport.is_closing():
            self._stop_waiting()
            self._refuse(HTTPStatus.BAD_REQUEST, "this is not HTTP/1.1 that can be read here")

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        """As the base class, and remember who works for this connection."""
        self._running, self._task = cycle, self.loop.create_task(cycle.run_asgi(app))
        self._task.add_done_callback(self.tasks.discard)
        self.tasks.add(self._task)

    def _is_refused(self) -> bool:
        return self._is_lingering or self.transport.is_closing()

    def _count(self, size_bytes: int, *, was_in_head: bool) -> None:
        """Account a piece of a request that is not complete yet."""
        if not self._in_head:
            self._body_bytes += size_bytes
            self._expect(self._limits.body_seconds)
            return
        if was_in_head:
            self._head_bytes += size_bytes
        if self._head_bytes > MAX_HEAD_BYTES:
            told = f"request line and headers are larger than {MAX_HEAD_BYTES} bytes"
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, told)
        else:
            self._expect(self._limits.header_seconds)

    def _expect(self, seconds: float) -> None:
        """Have what is being read complete within `seconds`, unless that was said already."""
        if self._due is None:
            self._due = self.loop.time() + seconds
            if self._timer is None:
                self._timer = self.loop.call_later(seconds, self._look)

    def _look(self) -> None:
        """Time is up, or would be if nothing had happened since the timer was set."""
        self._timer = None
        if self._due is None or self.transport.is_closing():
            return
        now = self.loop.time()
        is_another_due = self._is_answering and (self._in_head or self._running is not self.cycle)
        if self.flow.read_paused or is_another_due:  # it waits for us
            self._due = now + self._limits.body_seconds
        due = self._due + self._body_bytes / _BODY_BYTES_PER_SECOND
        if now < due:
            self._timer = self.loop.call_later(due - now, self._look)
        else:
            self._give_up()

    def _give_up(self) -> None:
        is_answered = not self._in_head and self._running is not None and self._running.response_started
        if self._is_lingering or not self._is_reading or is_answered:
            self.transport.close()  # nothing was asked, or it was answered already
            return
        what = "headers" if self._in_head else "body"
        self._stop_waiting()
        setting = "SIGNALBOX_HEADER_SECONDS" if self._in_head else "SIGNALBOX_BODY_SECONDS"
        self._refuse(HTTPStatus.REQUEST_TIMEOUT, f"the {what} did not arrive in time ({setting})")

    def _stop_waiting(self) -> None:
        """End the application's wait for the rest of a body that will not come."""
        running = self._running
        if (
            self._is_answering
            and running is self.cycle
            and not self._in_head
            and not running.response_started
        ):
            running.disconnected = True
            running.message_event.set()
            self._running = None

    def _refuse(self, status: HTTPStatus, problem: str, headers: Mapping[str, str] = _NO_HEADERS) -> None:
        """Answer in place of the application, then close once that could be read."""
        if self._is_answering:  # an earlier request's answer is due first, and now never comes
            self.transport.close()
            return
        body = orjson.dumps({"error": problem})
        told = {
            "content-type": "application/json",
            "content-length": str(len(body)),
            "connection": "close",
            **headers,
        }
        lines = [f"HTTP/1.1 {status.value} {status.phrase}", *(f"{name}: {told[name]}" for name in told)]
        self.transport.write("\r\n".join([*lines, "", ""]).encode() + body)
        self._linger()

    def _linger(self) -> None:
        """Take and forget what still comes: closing at once could reset what was just written."""
        self._is_lingering = True
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        if self._timer is not None:
            self._timer.cancel()
        self._due = self.loop.time() + _LINGER_SECONDS
        self._body_bytes = 0
        self._timer = self.loop.call_later(_LINGER_SECONDS, self.transport.close)
