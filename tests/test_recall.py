"""Requests recognised by the bytes they begin with: answered as those that were read, or read after all."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

from serving.api.access import Access
from serving.api.edge import Edge
from serving.api.keyring import AdminKeyFile, KeyMirror, Keyring
from serving.api.rate import RateLimits
from serving.core.clock import ManualClock
from serving.promptness import Watchdog
from tests import desk as desks
from tests.desk import Desk, become_prompt, open_desk
from tests.story import story
from tests.test_wire import PATIENT, Caller, Wire, listening
from tests.versions import adds, loaded

HEAD = b"POST /v2/models/digits/infer HTTP/1.1\r\nHost: localhost\r\n"


def request(x: float = 1.5, *lines: bytes, **more: Any) -> bytes:
    tensor = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [x, x, x]}
    body = json.dumps({"inputs": [tensor], **more}).encode()
    return HEAD + b"".join(lines) + b"Content-Length: %d\r\n\r\n" % len(body) + body


def head_of(said: bytes) -> bytes:
    return said[: said.index(b"\r\n\r\n") + 4]


@dataclass
class Place:
    """A server with one quick version, and a caller."""

    wire: Wire
    desk: Desk
    edge: Edge
    caller: Caller

    async def ask(self, said: bytes) -> tuple[int, list[float]]:
        self.caller.say(said)
        status, told = await self.caller.answer()
        return status, json.loads(told)["outputs"][0]["data"] if status == 200 else []

    async def teach(self, said: bytes) -> None:
        """Ask until the server knows how such requests begin."""
        for _ in range(3):
            await self.ask(said)
        assert self.edge.recall(head_of(said)) is not None


@asynccontextmanager
async def place(tmp_path: Path, app: Edge | None = None, desk: Desk | None = None) -> AsyncIterator[Place]:
    watchdog, desk = Watchdog(), desk or open_desk(tmp_path)
    version = loaded("2", watchdog=watchdog)
    desk.install(version)
    await become_prompt(desk, version)
    app = app or desks.edge(desk)
    async with listening(PATIENT, cast(Any, app)) as wire:
        yield Place(wire, desk, app, await wire.call())
    watchdog.close()


@story
async def test_request_is_answered_alike_when_it_is_recalled(tmp_path: Path) -> None:
    """But for the date and its own id, byte for byte; on another connection too."""
    async with place(tmp_path) as here:
        said = request()
        await here.teach(said)
        here.caller.say(said)
        recalled = await here.caller.reader.readuntil(b"\r\n\r\n") + await here.caller.reader.read(1000)
        other = await here.wire.call()
        other.say(said[:20])
        await other.writer.drain()
        other.say(said[20:])  # in two pieces, so that it is read
        read = await other.reader.readuntil(b"\r\n\r\n") + await other.reader.read(1000)

        def lines(told: bytes) -> list[bytes]:
            return [line for line in told.split(b"\r\n") if not line.startswith((b"date", b"x-request-id"))]

        assert lines(recalled) == lines(read)
        assert recalled != read  # their ids
        assert await here.ask(request(2.5)) == (200, [4.5] * 3)


@story
async def test_numbers_of_a_recalled_request_are_its_own(tmp_path: Path) -> None:
    """Only how it begins is known of it."""
    async with place(tmp_path) as here:
        await here.teach(request(1.5))
        for x in (1.5, 7.5, -3.5)[:2]:
            assert await here.ask(request(x)) == (200, [x + 2] * 3)
        caller = await here.wire.call()
        caller.say(request(1.5).replace(b"1.5", b"bad"))
        assert (await caller.answer())[0] == 400


@story
async def test_part_of_a_head_is_not_learnt_when_it_came_in_pieces(tmp_path: Path) -> None:
    """Its end is no beginning of any request."""
    async with place(tmp_path) as here:
        said = request()
        for _ in range(4):
            here.caller.say(said[:40])
            await here.caller.writer.drain()
            assert await here.ask(said[40:]) == (200, [3.5] * 3)
        assert here.edge.recall(head_of(said[40:])) is None
        caller = await here.wire.call(said[40:])
        assert (await caller.error())[0] == 400


@story
async def test_requests_are_answered_in_order_when_several_come_at_once(tmp_path: Path) -> None:
    """One behind another is not one whose body is longer."""
    async with place(tmp_path) as here:
        await here.teach(request(1.5))
        here.caller.say(request(1.5) + request(2.5) + request(3.5))
        told = [json.loads((await here.caller.answer())[1]) for _ in range(3)]
        assert [each["outputs"][0]["data"][0] for each in told] == [3.5, 4.5, 5.5]


@story
async def test_body_is_waited_for_when_it_comes_later(tmp_path: Path) -> None:
    """In however many pieces."""
    async with place(tmp_path) as here:
        said = request()
        await here.teach(said)
        end = len(head_of(said))
        for cut in (end, end + 10):
            here.caller.say(said[:cut])
            await here.caller.writer.drain()
            assert await here.ask(said[cut:]) == (200, [3.5] * 3)


@story
async def test_recalled_request_takes_the_long_way_when_its_version_is_not_quick(tmp_path: Path) -> None:
    """A new champion has yet to prove itself."""
    async with place(tmp_path) as here:
        said = request()
        await here.teach(said)
        here.desk.install(loaded("3", adds(10.0)))
        assert await here.ask(said) == (200, [11.5] * 3)


@story
async def test_revoked_key_is_refused_when_its_requests_are_recalled(tmp_path: Path) -> None:
    """Whether a caller may is asked each time."""
    key_file = tmp_path / "admin.key"
    key_file.write_text("secret")
    key_file.chmod(0o600)
    keyring = Keyring(AdminKeyFile(key_file).digest, KeyMirror(tmp_path / "keys.json"))
    desk = open_desk(tmp_path)
    async with place(tmp_path, _guarded(desk, keyring), desk) as here:
        said = request(1.5, b"X-API-Key: secret\r\n")
        await here.teach(said)
        key_file.write_text("another")
        assert (await here.ask(said))[0] == 401


@story
async def test_recalled_requests_count_towards_the_limit_of_their_address(tmp_path: Path) -> None:
    """Each of them, as one that is read does."""
    desk = open_desk(tmp_path)
    keyring = Keyring(lambda: None, KeyMirror(tmp_path / "keys.json"))
    async with place(tmp_path, _guarded(desk, keyring, per_second=6.0), desk) as here:
        await here.teach(request())
        statuses = [(await here.ask(request()))[0] for _ in range(5)]
        assert statuses == [200, 200, 200, 429, 429]


def _guarded(desk: Desk, keyring: Keyring, per_second: float = 0.0) -> Edge:
    clock = ManualClock()
    access = Access(
        keyring,
        RateLimits(clock, per_second),
        clock,
        is_loopback=True,
        require_infer_key=per_second == 0,
        hosts="",
    )
    return desks.edge(desk, access=access)


@pytest.mark.parametrize(
    "more", [{}, {"id": "q\u00e9-1"}, {"parameters": {}}], ids=["bare", "id", "parameters"]
)
@story
async def test_accounts_are_the_same_when_nothing_but_numbers_is_asked(
    tmp_path: Path, more: dict[str, Any]
) -> None:
    """Statistics, telemetry, scores and the log have each request once, and its id is given back."""
    async with place(tmp_path) as here:
        accounts = here.desk.inference._accounts
        version = here.desk.model.served["champion"]
        said = request(1.5, **more)
        await here.teach(said)
        counted = accounts._statistics.of(version.ref)

        def counts() -> tuple[int, ...]:
            batch = counted.batches[1]
            return counted.answered, counted.rendered, counted.executions, batch.answered, batch.rendered

        before, rows, answers = counts(), accounts._log.waiting_rows, here.desk.counted[0]
        here.caller.say(said)
        told = json.loads((await here.caller.answer())[1])
        assert (told.get("id"), told["outputs"][0]["shape"]) == (more.get("id"), [1, 3])
        assert counts() == tuple(count + 1 for count in before)
        assert (accounts._log.waiting_rows, here.desk.counted[0]) == (rows + 1, answers + 1)
