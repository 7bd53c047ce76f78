"""Ctrl-C, a request to end and a lost terminal, all as `KeyboardInterrupt`; and none of them at the end.

Used by `up` and the demonstration. What was started must be stopped in full, however often somebody
presses Ctrl-C.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Never

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def interruptible() -> Iterator[None]:
    """Under `nohup` a lost terminal stays ignored."""
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    for number, current in before.items():
        if number != signal.SIGHUP or current is not signal.SIG_IGN:
            signal.signal(number, _interrupt)
    try:
        yield
    finally:
        for number, current in before.items():
            signal.signal(number, current)


@contextmanager
def undisturbed() -> Iterator[None]:
    """What interrupts meanwhile does so afterwards: a line is printed whole, the printer left in order."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def go_undisturbed() -> None:
    """From now on nothing interrupts this process."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _interrupt(_number: int, _frame: FrameType | None) -> Never:
    raise KeyboardInterrupt
