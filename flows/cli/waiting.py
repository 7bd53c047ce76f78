"""Waiting on a condition with a deadline, for what no other process would announce."""

import time
from collections.abc import Callable

_TURN_SECONDS = 0.1


def wait_until(holds: Callable[[], bool], within_seconds: float) -> bool:
    """Whether `holds` came true in time; asked at once and then ten times a second."""
    deadline = time.monotonic() + within_seconds
    while not holds():
        if time.monotonic() >= deadline:
            return False
        time.sleep(_TURN_SECONDS)
    return True
