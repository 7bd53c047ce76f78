"""One request that is read whole and answered on the spot, as a connection holds it meanwhile."""

# The content of a bytes object begins at a multiple of this, and so does every number in numpy's arrays.
_ALIGNED_BYTES = 16
# Smaller ones are copied sooner than put together anew.
_LARGE_BYTES = 4096


class Turn:
    """Stands in the place of uvicorn's cycle."""

    __slots__ = (
        "disconnected",
        "json_bytes",
        "keep_alive",
        "length",
        "message_event",
        "pieces",
        "response_complete",
        "response_started",
        "scope",
    )

    def __init__(self, scope: dict[str, object], length: int, json_bytes: int, *, keep_alive: bool) -> None:
        self.scope = scope
        self.pieces: list[bytes] = []
        self.length = length
        self.json_bytes = json_bytes  # as its sender says; what that is worth is seen when it is read
        # What uvicorn's protocol looks at and sets.
        self.keep_alive = keep_alive
        self.response_started = self.response_complete = self.disconnected = False
        self.message_event = self

    def set(self) -> None:
        """In the place of an event: nobody waits for it."""

    @property
    def missing_bytes(self) -> int:
        return self.length - sum(map(len, self.pieces))

    @property
    def skipped(self) -> int:
        """How many bytes to leave free before the body."""
        return -self.json_bytes % _ALIGNED_BYTES

    def body(self) -> bytes | memoryview:
        """Put together so that tensors which follow JSON begin where their numbers can be read in place."""
        pieces, skipped = self.pieces, self.skipped
        if len(pieces) == 1 and not (skipped and len(pieces[0]) >= _LARGE_BYTES):
            return pieces[0]
        if not skipped:
            return b"".join(pieces)
        return memoryview(b"".join([b"\0" * skipped, *pieces]))[skipped:]
