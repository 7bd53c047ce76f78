"""A body of known length, read from its socket straight into memory that is used again.

A stream protocol is given every piece as new bytes, the parser passes it on as others, and the whole is put
together from those: a picture lay in memory three times, and in pages that the kernel had to clear first.
Here the rest of a large body goes where it stays, and arrays are views of it.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Protocol

# Sizes that differ a little share their memory.
_STEP_BYTES = 1 << 16
_APPROACH_BYTES = 4096


class Spares:
    """Memory of earlier bodies, oldest first; confined to one event loop's thread.

    An array may outlive its request in the log, in a batch or in a copy of the request. What is still looked
    at, by whomever, cannot change its size, which is how that is known.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._kept: deque[bytearray] = deque()
        self._kept_bytes = 0

    @property
    def kept_bytes(self) -> int:
        return self._kept_bytes

    def take(self, size_bytes: int) -> bytearray:
        """At least so many bytes, of which nobody has a view. Their content is whatever it was."""
        wanted = -(-size_bytes // _STEP_BYTES) * _STEP_BYTES
        for place, memory in enumerate(self._kept):
            if len(memory) == wanted and _is_free(memory):
                del self._kept[place]
                self._kept_bytes -= wanted
                return memory
        return bytearray(wanted)

    def keep(self, memory: bytearray) -> None:
        """For another body, once no view of it is left; beyond the limit the oldest are let go."""
        self._kept.append(memory)
        self._kept_bytes += len(memory)
        while self._kept_bytes > self._limit_bytes:
            self._kept_bytes -= len(self._kept.popleft())


class Ashore(Protocol):
    """Whose body it is: its connection, which hears of everything but the bytes of the body."""

    def data_received(self, data: bytes) -> None: ...

    def landed(self, size_bytes: int) -> None:
        """So many more bytes of the body are in their place."""
        ...

    def takes_more(self) -> bool:
        """False once the request was refused: what still comes is forgotten."""
        ...

    def eof_received(self) -> object: ...

    def connection_lost(self, exc: Exception | None) -> None: ...

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...


class _Passing(asyncio.BufferedProtocol):
    """Passes on what is no data."""

    def __init__(self, ashore: Ashore) -> None:
        self._ashore = ashore

    def eof_received(self) -> bool | None:
        return bool(self._ashore.eof_received())

    def connection_lost(self, exc: Exception | None) -> None:
        self._ashore.connection_lost(exc)

    def pause_writing(self) -> None:
        self._ashore.pause_writing()

    def resume_writing(self) -> None:
        self._ashore.resume_writing()


class Approach(_Passing):
    """The transport's protocol between two large bodies.

    Reads little at a time, so that of the next body next to nothing comes together with its head.
    """

    def __init__(self, ashore: Ashore) -> None:
        super().__init__(ashore)
        self._view = memoryview(bytearray(_APPROACH_BYTES))

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._view

    def buffer_updated(self, nbytes: int) -> None:
        self._ashore.data_received(bytes(self._view[:nbytes]))


class Landing(_Passing):
    """The transport's protocol while the rest of one body arrives.

    `skipped` bytes stay free before the body, so that its numbers lie where they can be read in place.
    """

    def __init__(
        self, ashore: Ashore, memory: bytearray, pieces: Sequence[bytes], size_bytes: int, skipped: int
    ) -> None:
        super().__init__(ashore)
        self.memory = memory
        self._view = memoryview(memory)[skipped : skipped + size_bytes]
        self._at = 0
        for piece in pieces:
            self._view[self._at : self._at + len(piece)] = piece
            self._at += len(piece)

    @property
    def is_whole(self) -> bool:
        return self._at == len(self._view)

    def body(self) -> memoryview:
        return self._view.toreadonly()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Room for what is missing, and for no byte of the next request."""
        return self._view[self._at :]

    def buffer_updated(self, nbytes: int) -> None:
        if self._ashore.takes_more():
            self._at += nbytes
            self._ashore.landed(nbytes)


def _is_free(memory: bytearray) -> bool:
    try:
        memory.append(memory.pop())
    except BufferError:
        return False
    return True
