"""A real MLflow server for tests, started with the launcher that ships.

Owns the server's whole process group; `stop` and `start` keep port and home, so that a test
can play an outage. Used through the fixture `mlflow_server` of conftest.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

import httpx

LAUNCHER = Path(__file__).parents[1] / "mlflow" / "launch"
START_SECONDS = 120.0
STOP_SECONDS = 10.0


def free_port() -> int:
    """A loopback port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


@dataclass
class MlflowServer:
    """MLflow on SQLite under `home`, on a loopback port that stays the same over restarts."""

    home: Path
    port: int = field(default_factory=free_port)
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False, repr=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        return self.home / "mlflow.log"

    def start(self) -> None:
        """Start and wait until `/health` answers; does nothing while the server runs."""
        if self._process is not None:
            return
        self.home.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [LAUNCHER, "--home", self.home, "--port", str(self.port), "--python", sys.executable],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._await_health(self._process)

    def stop(self, how: signal.Signals = signal.SIGKILL) -> None:
        """End the whole process group and wait until it is gone; does nothing when stopped."""
        process, self._process = self._process, None
        if process is None:
            return
        group = process.pid
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, how)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
        self._await_end(group)
        process.wait(STOP_SECONDS)

    def _await_health(self, process: subprocess.Popen[bytes]) -> None:
        deadline = monotonic() + START_SECONDS
        pause = threading.Event()
        with httpx.Client(trust_env=False, timeout=1.0) as client:
            while monotonic() < deadline and process.poll() is None:
                with contextlib.suppress(httpx.TransportError):
                    if client.get(f"{self.url}/health").status_code == httpx.codes.OK:
                        return
                pause.wait(0.05)
        self.stop()
        raise RuntimeError(f"MLflow did not become healthy; its log ends:\n{self.log.read_text()[-2000:]}")

    @staticmethod
    def _await_end(group: int) -> None:
        deadline = monotonic() + STOP_SECONDS
        pause = threading.Event()
        while _group_lives(group) and monotonic() < deadline:
            pause.wait(0.02)
        if _group_lives(group):
            os.killpg(group, signal.SIGKILL)
