"""A whole answer over HTTP, where nobody had to wait for any part of it."""

from dataclasses import dataclass

Headers = list[tuple[bytes, bytes]]


@dataclass(slots=True)
class Reply:
    """Ready to be sent. Header names are in lower case.

    `lines` are the headers as they are sent, each with its line end, where they were put together already.
    """

    status: int
    headers: Headers
    content: bytes
    lines: bytes | None = None


def header_lines(headers: Headers) -> bytes:
    """As they are sent. Raises RuntimeError where a header would end early and begin another."""
    lines = b"".join([b"%b: %b\r\n" % header for header in headers])
    if lines.count(b"\n") != len(headers) or lines.count(b"\r") != len(headers):
        raise RuntimeError("a header holds a line end")
    return lines
