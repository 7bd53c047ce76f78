"""A measuring process with an end: its turn, its deadline, and what it died of in words.

Called by `flows.catalog.benchmark`. Whatever the process does, nothing of it is left behind.
"""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

_TOLD_BYTES = 4096
_LOOK_SECONDS = 0.2
_WATCH_SECONDS = 0.05
_MEGABYTE = 1 << 20


@dataclass(frozen=True, slots=True)
class Ending:
    """How a process ended that did not end well: a phrase that 'while ...' can follow."""

    reason: str
    is_late: bool = False


def run_confined(
    module: str, arguments: Sequence[str], log_path: Path, deadline_seconds: float, memory_bytes: int
) -> Ending | None:
    """Run `python -m module`; None where it ended well."""
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", module, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            exceeded = _watched(process.pid, deadline_seconds, memory_bytes)
        finally:
            code = _ended(process)
    return exceeded or _crash(code, log_path)


@contextmanager
def turn(lock: Path, patience_seconds: float) -> Iterator[None]:
    """Wait for other benchmarks of this home, but not for ever: the ratio holds beside another one too."""
    with lock.open("wb") as file:
        until = time.monotonic() + patience_seconds
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() < until:
                    time.sleep(_LOOK_SECONDS)
                    continue
            break
        yield


def _watched(pid: int, deadline_seconds: float, memory_bytes: int) -> Ending | None:
    """Which limit the process went beyond, None where it ended by itself.

    Memory is what it holds: a limit on address space would refuse good models, as the runtimes reserve
    far more of it than they touch.
    """
    process, ends_at = psutil.Process(pid), time.monotonic() + deadline_seconds
    while True:
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                return None
            held_bytes = process.memory_info().rss
        except psutil.NoSuchProcess:
            return None
        if held_bytes > memory_bytes:
            return Ending(f"the process held more than the limit of {memory_bytes / _MEGABYTE:.0f} MB")
        if time.monotonic() > ends_at:
            return Ending(f"there was no end within {deadline_seconds:.3g} s", is_late=True)
        time.sleep(_WATCH_SECONDS)


def _ended(process: subprocess.Popen[bytes]) -> int:
    """End whatever is left of the process and its group, and give its exit code.

    Not reaped before: until then nobody else can have its number.
    """
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    return process.wait()


def _crash(code: int, log_path: Path) -> Ending | None:
    if code == 0:
        return None
    if code == -signal.SIGKILL:
        return Ending("the process was killed, most likely for want of memory,")
    if code < 0:
        return Ending(f"the process died of {signal.Signals(-code).name}")
    return Ending(f"the process ended with exit code {code} ({_last_line(log_path)})")


def _last_line(log_path: Path) -> str:
    lines = log_path.read_bytes()[-_TOLD_BYTES:].decode(errors="replace").strip().splitlines()
    return lines[-1].strip()[:300] if lines else "it said nothing"
