"""A server process of a benchmark: started, waited for, and ended with all it started."""

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

import httpx

_STOP_SECONDS = 15.0


@contextmanager
def running(
    command: Sequence[str | Path],
    url: str,
    log: Path,
    *,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    seconds: float = 120.0,
) -> Iterator[subprocess.Popen[bytes]]:
    """The process, once `url` answers. Raises RuntimeError with the end of its log where it never does."""
    with log.open("ab") as file:
        process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, **(environment or {})},
            cwd=folder,
        )
    try:
        _await(process, url, log, seconds)
        yield process
    finally:
        _end(process)


def _await(process: subprocess.Popen[bytes], url: str, log: Path, seconds: float) -> None:
    deadline, pause = monotonic() + seconds, threading.Event()
    with httpx.Client(trust_env=False, timeout=2.0) as client:
        while monotonic() < deadline and process.poll() is None:
            with contextlib.suppress(httpx.HTTPError):
                if client.get(url).status_code < 500:
                    return
            pause.wait(0.1)
    raise RuntimeError(f"{process.args!r} did not answer; its log ends:\n{log.read_text()[-2000:]}")


def _end(process: subprocess.Popen[bytes]) -> None:
    for how in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, how)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_SECONDS)
            return
