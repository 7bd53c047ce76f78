"""How much of all callers' bodies is in memory at once: bounded, so that many large ones cannot fill it.

What has really arrived counts, not what was declared: a caller who promises much and sends nothing takes
nothing from others. It counts until its request is answered, because inputs are views of their body.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from serving.api.body import Message, Receive
from serving.core.errors import Overloaded

_RETRY_SECONDS = 1.0


class Intake:
    """Confined to the event loop's thread. `held_bytes` belongs to the requests in flight."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.held_bytes = 0

    def take(self, size_bytes: int) -> None:
        """Raises `Overloaded` where that is too much; then nothing was taken."""
        if self.held_bytes + size_bytes > self.limit_bytes:
            raise Overloaded(
                f"requests in flight hold {self.held_bytes >> 20} MB of {self.limit_bytes >> 20} MB "
                "(SIGNALBOX_MAX_INFLIGHT_MB); try again",
                retry_after_seconds=_RETRY_SECONDS,
            )
        self.held_bytes += size_bytes

    def give_back(self, size_bytes: int) -> None:
        self.held_bytes -= size_bytes

    @contextmanager
    def holding(self, size_bytes: int) -> Iterator[None]:
        """Take it for the length of a block. Raises `Overloaded`."""
        self.take(size_bytes)
        try:
            yield
        finally:
            self.give_back(size_bytes)


class Arrival:
    """What one request has brought so far: its `receive`, which counts, until `leave`."""

    __slots__ = ("_intake", "_receive", "held_bytes")

    def __init__(self, intake: Intake, receive: Receive) -> None:
        self._intake = intake
        self._receive = receive
        self.held_bytes = 0

    async def __call__(self) -> Message:
        message = await self._receive()
        if body := message.get("body"):
            self.take(len(body))
        return message

    def take(self, size_bytes: int) -> None:
        """Raises `Overloaded`."""
        self._intake.take(size_bytes)
        self.held_bytes += size_bytes

    def leave(self) -> None:
        self._intake.give_back(self.held_bytes)
        self.held_bytes = 0
