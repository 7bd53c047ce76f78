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

_TOLD_BYTES = 4096
_LOOK_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Ending:
    """How a process ended that did not end well: a phrase that 'while ...' can follow."""

    reason: str
    is_late: bool = False


def run_confined(
    module: str, arguments: Sequence[str], log_path: Path, deadline_seconds: float
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
            return _ending(process, deadline_seconds, log_path)
        finally:
            _kill(process)


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


def _ending(process: subprocess.Popen[bytes], deadline_seconds: float, log_path: Path) -> Ending | None:
    try:
        code = process.wait(timeout=deadline_seconds)
    except subprocess.TimeoutExpired:
        return Ending(f"there was no end within {deadline_seconds:.0f} s", is_late=True)
    if code == 0:
        return None
    if code == -signal.SIGKILL:
        return Ending("the process was killed, most likely for want of memory,")
    if code < 0:
        return Ending(f"the process died of {signal.Signals(-code).name}")
    return Ending(f"the process ended with exit code {code} ({_last_line(log_path)})")


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the process if it still runs, with whatever it started."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _last_line(log_path: Path) -> str:
    lines = log_path.read_bytes()[-_TOLD_BYTES:].decode(errors="replace").strip().splitlines()
    return lines[-1].strip()[:300] if lines else "it said nothing"
