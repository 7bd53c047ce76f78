"""How long a request may take: the smallest of what the server, the request and its header allow."""

from collections.abc import Mapping
from typing import Any

from serving.core.errors import InvalidRequest


def timeout_seconds(parameters: Mapping[str, Any], header: str | None, default_seconds: float) -> float:
    """`parameters` may name a `timeout` in microseconds, as Triton's do; `header` is in seconds."""
    microseconds = parameters.get("timeout")
    if microseconds is None and header is None:
        return default_seconds
    limits = [default_seconds]
    if microseconds is not None:
        if type(microseconds) is not int or microseconds < 0:
            raise InvalidRequest("parameter 'timeout' must be a whole number of microseconds")
        limits += [microseconds / 1e6] if microseconds else []
    if header is not None:
        limits.append(_header_seconds(header))
    return min(limits)


def _header_seconds(header: str) -> float:
    try:
        seconds = float(header)
    except ValueError:
        raise InvalidRequest("X-Request-Timeout must be a number of seconds") from None
    if not seconds > 0:
        raise InvalidRequest("X-Request-Timeout must be more than 0 seconds")
    return seconds
