"""Reading a request body within its limit."""

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from serving.core.errors import BodyTooLarge, SignalboxError

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]

_DRAIN_FACTOR = 4


class ClientGone(SignalboxError):
    """The caller hung up before its request was complete."""


async def read_body(receive: Receive, headers: Mapping[str, str], limit_bytes: int) -> bytes | memoryview:
    """The whole body. A refused one is drained within bounds, so that plain clients read the answer."""
    declared = headers.get("content-length", "")
    too_large = declared.isdecimal() and int(declared) > limit_bytes
    pieces: list[bytes] = []
    size_bytes = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone("the client closed the connection")
        piece = message.get("body", b"")
        size_bytes += len(piece)
        too_large = too_large or size_bytes > limit_bytes
        if too_large:
            pieces.clear()
        else:
            pieces.append(piece)
        if not message.get("more_body", False) or size_bytes > _DRAIN_FACTOR * limit_bytes:
            break
    if too_large:
        raise BodyTooLarge(limit_bytes)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
