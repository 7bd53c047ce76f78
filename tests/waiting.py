"""Waiting in tests: on a condition, with a deadline, and a sentence for when it never came true."""

import threading
from collections.abc import Callable
from time import monotonic

_PAUSE_SECONDS = 0.02


def until(
    condition: Callable[[], object], what: str, *, seconds: float = 15.0, context: Callable[[], str] = str
) -> float:
    """Seconds until `condition` was true. Fails naming `what`, and `context` for finding out why."""
    started = monotonic()
    pause = threading.Event()
    while not condition():
        if monotonic() - started > seconds:
            raise AssertionError(f"waited {seconds:g} s in vain: {what}\n{context()}")
        pause.wait(_PAUSE_SECONDS)
    return monotonic() - started


def holds(condition: Callable[[], object], what: str, *, seconds: float) -> None:
    """Fails at the first moment within `seconds` at which `condition` is not true."""
    deadline = monotonic() + seconds
    pause = threading.Event()
    while monotonic() < deadline:
        assert condition(), f"did not stay so: {what}"
        pause.wait(_PAUSE_SECONDS)
