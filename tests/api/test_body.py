"""Reading a body within its limit: whole, refused and drained, or given up."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.api.body import ClientGone, Message, read_body
from serving.core.errors import BodyTooLarge
from tests.story import story

LIMIT = 10


class Wire:
    """A request body as the server hands it over, piece by piece."""

    def __init__(self, *pieces: bytes, hang_up: bool = False) -> None:
        self._messages: list[Message] = [
            {"type": "http.request", "body": piece, "more_body": hang_up or number < len(pieces)}
            for number, piece in enumerate(pieces, 1)
        ]
        if hang_up:
            self._messages.append({"type": "http.disconnect"})

    async def receive(self) -> Message:
        return self._messages.pop(0)

    @property
    def left(self) -> int:
        return len(self._messages)


@pytest.mark.parametrize(
    "pieces", [[b""], [b"x" * LIMIT], [b"ab", b"cd", b""], [b"a"] * LIMIT, [b"", b"", b"a"]]
)
@story
async def test_body_is_whole_when_it_is_within_the_limit(pieces: Sequence[bytes]) -> None:
    """To the last byte, in however many pieces."""
    assert await read_body(Wire(*pieces).receive, {}, LIMIT) == b"".join(pieces)


@pytest.mark.parametrize(
    ("pieces", "headers"),
    [
        pytest.param([b"x" * (LIMIT + 1)], {}, id="one-byte-too-many"),
        pytest.param([b"x"] * (LIMIT + 1), {}, id="in-pieces"),
        pytest.param([b"x" * 6, b"x" * 6], {"content-length": "12"}, id="declared"),
        pytest.param([b"x"], {"content-length": "11"}, id="declared-only"),
    ],
)
@story
async def test_body_is_refused_after_it_was_drained_when_it_is_too_large(
    pieces: Sequence[bytes], headers: dict[str, str]
) -> None:
    """So that a plain client finishes sending and reads the answer."""
    wire = Wire(*pieces)
    with pytest.raises(BodyTooLarge) as refusal:
        await read_body(wire.receive, headers, LIMIT)
    assert refusal.value.limit_bytes == LIMIT
    assert wire.left == 0


@story
async def test_draining_is_bounded_when_the_body_never_ends() -> None:
    """Four limits are enough of anybody's time."""
    wire = Wire(*[b"x" * LIMIT] * 100)
    with pytest.raises(BodyTooLarge):
        await read_body(wire.receive, {}, LIMIT)
    assert wire.left == 100 - 5


@story
async def test_body_is_given_up_when_the_client_hangs_up() -> None:
    """Half a request is no request."""
    with pytest.raises(ClientGone):
        await read_body(Wire(b"ab", hang_up=True).receive, {}, LIMIT)


@pytest.mark.parametrize("declared", ["-1", "ten", "²", "", "9" * 30])
@story
async def test_declared_length_is_no_reason_to_fail_when_it_is_nonsense(declared: str) -> None:
    """What arrives is counted anyway."""
    reading = read_body(Wire(b"ab").receive, {"content-length": declared}, LIMIT)
    if declared == "9" * 30:
        with pytest.raises(BodyTooLarge):
            await reading
    else:
        assert await reading == b"ab"


@given(st.lists(st.binary(max_size=6), min_size=1, max_size=8))
def test_body_is_all_or_refused(pieces: list[bytes]) -> None:
    """For every way to cut a body into pieces."""
    body = b"".join(pieces)

    @story
    async def read() -> None:
        if len(body) <= LIMIT:
            assert await read_body(Wire(*pieces).receive, {}, LIMIT) == body
        else:
            with pytest.raises(BodyTooLarge):
                await read_body(Wire(*pieces).receive, {}, LIMIT)

    read()
