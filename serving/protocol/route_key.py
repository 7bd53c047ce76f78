"""By what a request belongs to one part of a split: the key its caller chose, else an id of our own.

Never the body's `id`, nor a caller's `X-Request-Id`: clients set those to constants, or the same for all.
"""

from collections.abc import Mapping
from uuid import uuid4

HEADER = "x-request-key"
_REQUEST_ID = "x-request-id"


def route_key(headers: Mapping[str, str], request_id: str) -> str:
    """The key of a request with these headers, in lower case; `request_id` is ours where none was sent."""
    given = headers.get(HEADER)
    if given:
        return given
    return uuid4().hex if _REQUEST_ID in headers else request_id
