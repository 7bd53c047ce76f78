"""Connections bounded in time, bytes and number, over a real socket and the server that is used."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

import pytest
import uvicorn

from serving.api.edge import ABANDONED, DROPPABLE
from serving.wire import MAX_HEAD_BYTES, bounded
from serving.wire_limits import WireLimits
from tests.story import eventually, story

QUICK = WireLimits(header_seconds=0.3, body_seconds=0.3, max_connections=3)
PATIENT = WireLimits(header_seconds=20.0, body_seconds=20.0, max_connections=100)
GET = b"GET /a HTTP/1.1\r\nHost: x\r\n"


class Application:
    """Answers with the size of the body, once `gate` is open; notes what became of its requests."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.begun = 0
        self.ends: list[str] = []
        self.is_droppable = False

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        self.begun += 1
        if self.is_droppable:
            scope[DROPPABLE] = True
        try:
            size_bytes, more = 0, True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    self.ends.append("hung up")
                    return
                size_bytes, more = size_bytes + len(message["body"]), message["more_body"]
            await self.gate.wait()
            body = str(size_bytes).encode()
            headers = [(b"content-length", str(len(body)).encode())]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": body})
            self.ends.append("answered")
        except asyncio.CancelledError:
            self.ends.append("abandoned" if ABANDONED in scope else "cancelled")


class Caller:
    """One connection that says what it is told to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def say(self, text: bytes) -> None:
        self.writer.write(text)

    async def rest(self) -> tuple[int, str]:
        """Status and body of the last answer, once the server has closed the connection."""
        told = await asyncio.wait_for(self.reader.read(), 20)
        if not told:
            return 0, ""
        head, _, body = told.rpartition(b"\r\n\r\n")
        return int(head.rpartition(b"HTTP/1.1 ")[2].split()[0]), body.decode()

    async def answer(self) -> tuple[int, str]:
        """Status and body of the next answer; the connection may stay open."""
        head = (await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 20)).lower()
        size = int(head.partition(b"content-length: ")[2].split()[0])
        return int(head.split()[1]), (await self.reader.readexactly(size)).decode()

    async def error(self) -> tuple[int, str]:
        """Status and sentence of an error, after which the connection is closed."""
        status, body = await self.rest()
        return status, json.loads(body)["error"]


class Wire:
    """A listening server around an application."""

    def __init__(self, port: int, application: Application) -> None:
        self.port, self.application = port, application
        self._callers: list[Caller] = []

    async def call(self, text: bytes = b"") -> Caller:
        caller = Caller(*await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 20))
        self._callers.append(caller)
        caller.say(text)
        return caller

    def close(self) -> None:
        for caller in self._callers:
            caller.writer.close()


@asynccontextmanager
async def listening(limits: WireLimits, application: Application | None = None) -> AsyncIterator[Wire]:
    application = application or Application()
    config = uvicorn.Config(
        cast(Any, application),
        port=0,
        loop="none",
        http=bounded(limits),
        ws="none",
        lifespan="off",
        log_config=None,
    )
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    wire = Wire(server.servers[0].sockets[0].getsockname()[1], application)
    try:
        yield wire
    finally:
        wire.close()
        server.force_exit = True
        await server.shutdown()


@pytest.mark.parametrize(
    ("said", "what"),
    [
        pytest.param(b"GET /a HT", "headers", id="request-line"),
        pytest.param(GET + b"X-More: ", "headers", id="header"),
        pytest.param(b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n", "body", id="no-body"),
        pytest.param(b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc", "body", id="part"),
        pytest.param(
            b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc", "body", id="chunk"
        ),
    ],
)
@story
async def test_request_is_answered_408_when_it_does_not_arrive_in_time(said: bytes, what: str) -> None:
    """And the connection is closed; whoever waited for the body is told that the caller left."""
    async with listening(QUICK) as wire:
        caller = await wire.call(said)
        status, problem = await caller.error()
        assert (status, problem.startswith(f"the {what} did not arrive in time")) == (408, True)
        if what == "body":
            await eventually(lambda: wire.application.ends == ["hung up"], "the application let go")


@pytest.mark.parametrize("said", [b"", b"\r\n", b"\r\n\r\n"])
@story
async def test_connection_is_closed_when_nothing_is_asked(said: bytes) -> None:
    """Silence and blank lines are no request, so there is nothing to answer."""
    async with listening(QUICK) as wire:
        assert await (await wire.call(said)).rest() == (0, "")


@story
async def test_headers_have_one_time_limit_when_they_trickle() -> None:
    """A byte now and then does not buy more time: the sum is limited, not the pause."""
    async with listening(QUICK) as wire:
        caller = await wire.call(GET)
        dripping = asyncio.create_task(_drip(caller))
        assert (await caller.error())[0] == 408
        dripping.cancel()


async def _drip(caller: Caller) -> None:
    never = asyncio.Event()
    while True:
        caller.say(b"X: y\r\n")
        with suppress(TimeoutError):
            async with asyncio.timeout(0.02):
                await never.wait()


@story
async def test_slow_answer_is_given_when_the_request_was_quick() -> None:
    """The limits are on what callers send, not on how long we take."""
    async with listening(QUICK) as wire:
        wire.application.gate.clear()
        slow = await wire.call(b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc")
        other = await wire.call(GET)
        assert (await other.error())[0] == 408  # by now the limit has passed for the first one too
        wire.application.gate.set()
        assert await slow.answer() == (200, "3")


@story
async def test_pipelined_request_is_answered_when_the_one_before_takes_long() -> None:
    """While an earlier answer is due we do not read: that is no slowness of the caller's."""
    async with listening(QUICK) as wire:
        wire.application.gate.clear()
        post = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
        caller = await wire.call(post % 1 + b"a" + post % 4 + b"ab")
        assert (await (await wire.call(GET)).error())[0] == 408
        caller.say(b"cd")
        wire.application.gate.set()
        assert await caller.answer() == (200, "1")
        assert await caller.answer() == (200, "4")


@story
async def test_large_body_gets_time_by_its_size_when_it_keeps_coming() -> None:
    """Two pieces of a megabyte give seconds to a body whose limit is a fraction of one."""
    async with listening(QUICK) as wire:
        piece = b"x" * (1 << 20)
        caller = await wire.call(b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (2 << 20))
        caller.say(piece)
        assert (await (await wire.call(GET)).error())[0] == 408
        caller.say(piece)
        assert await caller.answer() == (200, str(2 << 20))


@story
async def test_endless_headers_are_refused_before_they_are_complete() -> None:
    """431, and no more of them is kept."""
    async with listening(PATIENT) as wire:
        caller = await wire.call(GET)
        for number in range(2 * MAX_HEAD_BYTES // (8 << 10)):
            caller.say(b"X-%d: " % number + b"y" * (8 << 10) + b"\r\n")
            await caller.writer.drain()
            await asyncio.sleep(0)
        status, problem = await caller.error()
        assert (status, wire.application.begun) == (431, 0)
        assert f"larger than {MAX_HEAD_BYTES} bytes" in problem


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", id="tls"),
        pytest.param(b"GET /a b c HTTP/9.9\r\n\r\n", id="version"),
        pytest.param(b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n", id="path"),
        pytest.param(
            b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", id="chunk-size"
        ),
    ],
)
@story
async def test_what_is_not_http_is_answered_as_every_error(said: bytes) -> None:
    """400 as `{"error": ...}`."""
    async with listening(PATIENT) as wire:
        status, problem = await (await wire.call(said)).error()
        assert (status, problem) == (400, "this is not HTTP/1.1 that can be read here")


@story
async def test_connection_beyond_the_limit_is_told_to_come_back() -> None:
    """503 at once; those that are open stay, and once one of them ends there is room again."""
    async with listening(WireLimits(20.0, 20.0, max_connections=3)) as wire:
        full = GET + b"\r\n"
        early = [await wire.call(full) for _ in range(3)]
        for caller in early:
            assert await caller.answer() == (200, "0")
        status, problem = await (await wire.call()).error()
        assert status == 503
        assert problem.startswith("3 connections are open already")
        early[0].writer.close()

        async def has_room() -> bool:
            caller = await wire.call(full)
            is_answered = (await caller.answer())[0] == 200
            caller.writer.close()
            return is_answered

        await eventually(has_room, "there is room again")
        early[1].say(full)
        assert await early[1].answer() == (200, "0")


@pytest.mark.parametrize(("is_droppable", "end"), [(True, "abandoned"), (False, "answered")])
@story
async def test_work_ends_with_its_caller_when_it_may_be_dropped(is_droppable: bool, end: str) -> None:
    """An inference nobody waits for is not computed; a change that was begun is finished."""
    async with listening(PATIENT) as wire:
        wire.application.gate.clear()
        wire.application.is_droppable = is_droppable
        caller = await wire.call(GET + b"\r\n")
        await eventually(lambda: wire.application.begun == 1, "the request has begun")
        caller.writer.close()
        await caller.writer.wait_closed()
        if not is_droppable:
            wire.application.gate.set()
        await eventually(lambda: wire.application.ends == [end], f"its work was {end}")
