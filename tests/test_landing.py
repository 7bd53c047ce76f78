"""Large bodies read past the parser, over a real socket and on both event loops."""

import asyncio
import hashlib
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from serving.api.reply import Reply
from serving.landing import Landing, Spares
from serving.protocol.raw_data import Buffer
from tests.test_wire import PATIENT, QUICK, Application, Caller, listening

HEAD = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\ncontent-length: %d\r\n"
LARGE = 600_000


def on_both_loops(
    told: Callable[..., Coroutine[Any, Any, None]],
) -> Callable[..., None]:
    """asyncio's own and the server's, which ask a protocol for memory each in its way."""

    def run_told(run: Callable[[Coroutine[Any, Any, None]], None]) -> None:
        run(told())

    run_told.__name__, run_told.__doc__ = told.__name__, told.__doc__
    runs = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
    marked: Callable[..., None] = runs(run_told)
    return marked


class Digesting(Application):
    """Answers on the spot with a digest of the body; leaves bodies that begin with `L` for the long way."""

    def __init__(self) -> None:
        super().__init__()
        self.views: list[Buffer] = []

    def at_once(self, scope: dict[str, Any], body: Buffer) -> Reply | None:
        if body[:1] == b"L":
            return None
        self.views.append(body)
        said = _digest(body)
        return Reply(200, [(b"content-length", b"%d" % len(said))], said)


def _digest(body: Buffer) -> bytes:
    return hashlib.sha256(body).hexdigest().encode()


def _picture(number: int, size: int = LARGE) -> bytes:
    return b"p" + np.random.default_rng(number).bytes(size - 1)


def _asked(body: bytes, more: bytes = b"") -> bytes:
    return HEAD % len(body) + more + b"\r\n" + body


async def _answers(caller: Caller, bodies: list[bytes]) -> None:
    for body in bodies:
        assert await caller.answer() == (200, _digest(body).decode())


@on_both_loops
async def test_bodies_arrive_whole_when_large_and_small_ones_mix_on_a_connection() -> None:
    """Sent all at once: none takes a byte of its neighbour's."""
    bodies = [_picture(1), b"small", _picture(2), _picture(3, 70_000), _picture(4), b"x" * 5000, _picture(5)]
    async with listening(PATIENT, Digesting()) as wire:
        caller = await wire.call()
        for body in bodies:
            caller.say(_asked(body))
        await _answers(caller, bodies)


@on_both_loops
async def test_body_arrives_whole_when_it_comes_in_odd_pieces() -> None:
    """The head alone, a byte, some, and the rest, twice over one connection."""
    async with listening(PATIENT, Digesting()) as wire:
        caller = await wire.call()
        for number in range(2):
            body = _picture(number)
            caller.say(HEAD % len(body) + b"\r\n")
            for start, end in ((0, 1), (1, 70_000), (70_000, LARGE)):
                await caller.writer.drain()
                caller.say(body[start:end])
            await _answers(caller, [body])


@on_both_loops
async def test_large_body_takes_the_long_way_when_it_cannot_be_answered_at_once() -> None:
    """The application gets all of it, and the connection goes on."""
    async with listening(PATIENT, Digesting()) as wire:
        caller = await wire.call(_asked(b"L" + _picture(1)))
        assert await caller.answer() == (200, str(LARGE + 1))
        caller.say(_asked(b"now"))
        await _answers(caller, [b"now"])
        caller.say(_asked(_picture(2), b"connection: close\r\n"))
        assert await caller.rest() == (200, _digest(_picture(2)).decode())


@on_both_loops
async def test_earlier_bodies_stay_as_they_were_when_more_arrive() -> None:
    """Whoever holds a view of a body, as the log does, reads what was sent."""
    application = Digesting()
    async with listening(PATIENT, application) as wire:
        caller = await wire.call()
        bodies = [_picture(number) for number in range(6)]
        for body in bodies:
            caller.say(_asked(body))
            await _answers(caller, [body])
        assert [bytes(view) for view in application.views] == bodies


@on_both_loops
async def test_request_is_answered_408_when_the_rest_of_a_large_body_does_not_come() -> None:
    """What is read past the parser has the same time to arrive."""
    async with listening(QUICK, Digesting()) as wire:
        body = _picture(1)
        caller = await wire.call((HEAD % len(body)) + b"\r\n" + body[:200_000])
        status, problem = await caller.error()
        assert (status, "body did not arrive in time" in problem) == (408, True)


@on_both_loops
async def test_connection_is_forgotten_when_its_caller_leaves_in_a_large_body() -> None:
    """And others are answered."""
    async with listening(PATIENT, Digesting()) as wire:
        body = _picture(1)
        caller = await wire.call((HEAD % len(body)) + b"\r\n" + body[:200_000])
        await caller.writer.drain()
        caller.writer.close()
        other = await wire.call(_asked(body))
        await _answers(other, [body])


@given(st.lists(st.tuples(st.integers(1, 300_000), st.booleans()), max_size=12))
def test_memory_is_given_again_when_nobody_looks_at_it(wishes: list[tuple[int, bool]]) -> None:
    """Never while a view is left, always large enough, and never more kept than allowed."""
    spares = Spares(1 << 19)
    looked_at: list[memoryview] = []
    for size, is_looked_at in wishes:
        memory = spares.take(size)
        assert len(memory) >= size
        assert not any(view.obj is memory for view in looked_at)
        if is_looked_at:
            looked_at.append(memoryview(memory)[:size].toreadonly())
        spares.keep(memory)
        assert spares.kept_bytes <= 1 << 19


def test_memory_is_the_same_when_bodies_are_alike() -> None:
    """The point of keeping it."""
    spares = Spares(1 << 20)
    first = spares.take(100_000)
    view = np.frombuffer(memoryview(first)[:100_000], np.uint8)
    spares.keep(first)
    second = spares.take(100_001)
    assert second is not first
    del view
    spares.keep(second)
    assert spares.take(99_999) is first


class Refusing:
    """A connection that has refused its request already."""

    def __init__(self) -> None:
        self.heard = 0

    def data_received(self, data: bytes) -> None:
        self.heard += 1

    def landed(self, size_bytes: int) -> None:
        self.heard += 1

    def takes_more(self) -> bool:
        return False

    def eof_received(self) -> object:
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        self.heard += 1

    def pause_writing(self) -> None:
        self.heard += 1

    def resume_writing(self) -> None:
        self.heard += 1


def test_what_still_comes_is_forgotten_when_the_request_was_refused() -> None:
    """There is always room for it, because a transport without room gives up."""
    connection = Refusing()
    landing = Landing(connection, bytearray(100), [b"ab"], 90, 3)
    for _ in range(3):
        assert len(landing.get_buffer(-1)) == 88
        landing.buffer_updated(88)
    assert (connection.heard, landing.is_whole) == (0, False)
