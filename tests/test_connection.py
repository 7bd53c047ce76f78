"""Requests answered on the spot, and those that take the long way, over a real socket."""

import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from serving.api.reply import Reply
from serving.promptness import Watchdog
from serving.protocol.raw_data import Buffer
from tests.desk import become_prompt, edge, open_desk
from tests.story import story
from tests.test_wire import PATIENT, Application, listening
from tests.versions import loaded

POST = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\ncontent-length: 3\r\n"


class Prompt(Application):
    """Answers bodies of `now` on the spot, and leaves the others for later."""

    def at_once(self, scope: dict[str, Any], body: Buffer) -> Reply | None:
        if body != b"now":
            return None
        return Reply(200, [(b"content-length", b"4"), (b"x-way", b"short")], b"done")


@story
async def test_answers_keep_their_order_when_ways_mix_on_one_connection() -> None:
    """What comes behind an answer that is not there yet waits for its turn, on the long way."""
    async with listening(PATIENT, Prompt()) as wire:
        caller = await wire.call()
        caller.say(POST + b"\r\nnow" + POST + b"\r\nlat" + POST + b"\r\nnow")
        assert [await caller.answer() for _ in range(3)] == [(200, "done"), (200, "3"), (200, "3")]
        caller.say(POST + b"\r\nnow")
        assert await caller.answer() == (200, "done")


@story
async def test_connection_closes_after_its_answer_when_the_caller_says_so() -> None:
    """Told in the answer too."""
    async with listening(PATIENT, Prompt()) as wire:
        caller = await wire.call()
        caller.say(POST + b"connection: close\r\n\r\nnow")
        assert await caller.rest() == (200, "done")


@story
async def test_body_is_put_together_when_it_comes_in_pieces() -> None:
    """However the network cuts it."""
    async with listening(PATIENT, Prompt()) as wire:
        caller = await wire.call()
        caller.say(POST + b"\r\nn")
        await caller.writer.drain()
        caller.say(b"ow")
        assert await caller.answer() == (200, "done")


class Aligned(Application):
    """Answers whether what follows the first 5 bytes of a body can be read in place."""

    def at_once(self, scope: dict[str, Any], body: Buffer) -> Reply | None:
        address = np.frombuffer(body, np.uint8)[5:].ctypes.data
        said = b"%d %d" % (address % 8, len(body))
        return Reply(200, [(b"content-length", b"%d" % len(said))], said)


@pytest.mark.parametrize("size", [4096, 300_000])
@story
async def test_tensors_can_be_read_in_place_when_json_of_odd_length_comes_first(size: int) -> None:
    """In whatever pieces they came; a picture is not copied once more for that."""
    async with listening(PATIENT, Aligned()) as wire:
        caller = await wire.call()
        head = f"content-length: {size}\r\ninference-header-content-length: 5\r\n\r\n".encode()
        caller.say(b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\n" + head + b"x" * size)
        assert await caller.answer() == (200, f"0 {size}")


@story
async def test_request_takes_the_long_way_when_its_length_is_not_said() -> None:
    """Its pieces are counted as they come."""
    async with listening(PATIENT, Prompt()) as wire:
        caller = await wire.call()
        head = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\ntransfer-encoding: chunked\r\n\r\n"
        caller.say(head + b"3\r\nnow\r\n0\r\n\r\n")
        assert await caller.answer() == (200, "3")


def _request(**parameters: int) -> bytes:
    tensor = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}
    body = json.dumps({"inputs": [tensor], "parameters": parameters}).encode()
    head = f"POST /v2/models/digits/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}"
    return f"{head}\r\n\r\n".encode() + body


@story
async def test_quick_version_is_not_asked_when_the_caller_allows_no_time(tmp_path: Path) -> None:
    """A microsecond is over before the body is read; the connection goes on, and so does the version."""
    watchdog, desk = Watchdog(), open_desk(tmp_path)
    version = loaded("2", watchdog=watchdog)
    desk.install(version)
    await become_prompt(desk, version)
    async with listening(PATIENT, cast(Any, edge(desk))) as wire:
        caller = await wire.call()
        for parameters, expected in (({}, 200), ({"timeout": 1}, 504), ({"timeout": 10_000_000}, 200)):
            asked = version.requests
            caller.say(_request(**parameters))
            status, _ = await caller.answer()
            assert (status, version.requests - asked) == (expected, status == 200)
    watchdog.close()
