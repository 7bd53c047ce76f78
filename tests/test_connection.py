"""Requests answered on the spot, and those that take the long way, over a real socket."""

from typing import Any

from serving.api.reply import Reply
from tests.story import story
from tests.test_wire import PATIENT, Application, listening

POST = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\ncontent-length: 3\r\n"


class Prompt(Application):
    """Answers bodies of `now` on the spot, and leaves the others for later."""

    def at_once(self, scope: dict[str, Any], body: bytes) -> Reply | None:
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


@story
async def test_request_takes_the_long_way_when_its_length_is_not_said() -> None:
    """Its pieces are counted as they come."""
    async with listening(PATIENT, Prompt()) as wire:
        caller = await wire.call()
        head = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\ntransfer-encoding: chunked\r\n\r\n"
        caller.say(head + b"3\r\nnow\r\n0\r\n\r\n")
        assert await caller.answer() == (200, "3")
