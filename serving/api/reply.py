"""A whole answer over HTTP, where nobody had to wait for any part of it."""

from dataclasses import dataclass

Headers = list[tuple[bytes, bytes]]


@dataclass(slots=True)
class Reply:
    """Ready to be sent. Header names are in lower case."""

    status: int
    headers: Headers
    content: bytes
