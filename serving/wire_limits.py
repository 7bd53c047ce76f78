"""What one HTTP connection may take of the server, before anybody has read a request of it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WireLimits:
    """`header_seconds` from the first moment of a request, `body_seconds` from the end of its headers."""

    header_seconds: float = 10.0
    body_seconds: float = 30.0
    max_connections: int = 1000
