"""The stack itself: `up`, a second `up`, `status`, parts killed and back, `down`; with the real parts."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from flows.cli.waiting import wait_until
from tests.mlflow_server import free_port

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ROOT = Path(__file__).parents[3]
UP_SECONDS = 180
BACK_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Signalbox:
    """The command line with a home and ports of its own."""

    home: Path
    mlflow_port: int
    prefect_port: int
    serving_port: int

    def environment(self) -> dict[str, str]:
        return os.environ | {
            "PYTHONPATH": str(ROOT),
            "SIGNALBOX_HOME": str(self.home),
            "SIGNALBOX_MLFLOW_URL": f"http://127.0.0.1:{self.mlflow_port}",
            "SIGNALBOX_PREFECT_API_URL": f"http://127.0.0.1:{self.prefect_port}/api",
            "SIGNALBOX_SERVING_URL": f"http://127.0.0.1:{self.serving_port}",
        }

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        # Captured output shows whether anything detached keeps the caller's streams open.
        return subprocess.run(
            [sys.executable, "-P", "-m", "flows.cli.main", *arguments],
            capture_output=True,
            text=True,
            timeout=UP_SECONDS,
            check=False,
            cwd=self.home.parent,
            env=self.environment(),
        )

    def parts(self) -> dict[str, dict[str, Any]]:
        return {part["part"]: part for part in json.loads(self("status", "--json").stdout)["parts"]}

    def processes(self) -> list[psutil.Process]:
        """Everything that was started for this home: each carries its path or inherited its variable."""
        return [process for process in psutil.process_iter() if self._is_ours(process)]

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
            return process.environ().get("SIGNALBOX_HOME") == str(self.home)
        except psutil.Error:
            return False


@pytest.fixture(scope="module")
def signalbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Signalbox]:
    """A stack that is up, and gone afterwards."""
    box = Signalbox(tmp_path_factory.mktemp("up") / "home", free_port(), free_port(), free_port())
    try:
        started = box("up", "--detach")
        assert started.returncode == 0, started.stderr
        assert started.stdout.count("ready after") == 4
        assert "promote-model" in started.stdout
        yield box
    finally:
        box("down")
        for process in box.processes():
            process.kill()


def is_back(box: Signalbox, part: str, before: int) -> Callable[[], bool]:
    def back() -> bool:
        now = box.parts()[part]
        return bool(now["state"] == "running" and now["pid"] != before)

    return back


def test_status_is_well_when_stack_is_up(signalbox: Signalbox) -> None:
    """Every part runs, with its own session, and the supervisor holds no port."""
    result = signalbox("status")
    assert result.returncode == 0, result.stdout
    parts = signalbox.parts()
    assert {part["state"] for part in parts.values()} == {"running"}
    for part in parts.values():
        assert os.getsid(part["pid"]) == part["pid"]
        assert Path(part["log"]).exists()
    supervisor = json.loads(signalbox("status", "--json").stdout)["supervisor_pid"]
    connections = psutil.Process(supervisor).net_connections("inet")
    assert [found for found in connections if found.status == psutil.CONN_LISTEN] == []


def test_second_up_says_what_runs_when_stack_is_up(signalbox: Signalbox) -> None:
    """It starts nothing and succeeds; with other addresses it says what to do first."""
    before = {part["pid"] for part in signalbox.parts().values()}
    again = signalbox("up")
    assert again.returncode == 0, again.stderr
    assert "already running" in again.stdout
    assert "deploying" not in again.stdout
    assert {part["pid"] for part in signalbox.parts().values()} == before
    elsewhere = Signalbox(signalbox.home, free_port(), signalbox.prefect_port, signalbox.serving_port)
    other = elsewhere("up", "--detach")
    assert other.returncode == 1
    assert "signalbox down" in other.stderr


def test_webhook_is_registered_when_stack_is_up(signalbox: Signalbox) -> None:
    """MLflow knows where to announce alias changes."""
    with httpx.Client(trust_env=False) as client:
        url = f"http://127.0.0.1:{signalbox.mlflow_port}/api/2.0/mlflow/webhooks"
        targets = [webhook["url"] for webhook in client.get(url).json()["webhooks"]]
    assert targets == [f"http://127.0.0.1:{signalbox.serving_port}/api/v2/webhooks/mlflow"]


@pytest.mark.parametrize("part", ["mlflow", "prefect", "serving", "worker"])
def test_part_is_back_when_killed(signalbox: Signalbox, part: str) -> None:
    """A killed part is started again, what it left behind is gone, and status tells of it."""
    before = signalbox.parts()[part]
    left = psutil.Process(before["pid"]).children(recursive=True)
    os.kill(before["pid"], signal.SIGKILL)
    assert wait_until(is_back(signalbox, part, before["pid"]), BACK_SECONDS), signalbox("status").stdout
    now = signalbox.parts()[part]
    assert now["restarts"] == before["restarts"] + 1
    assert now["last_exit"].startswith("terminated by SIGKILL at ")
    assert [child for child in left if child.is_running() and child.status() != psutil.STATUS_ZOMBIE] == []


def test_other_home_attaches_to_registry_and_prefect_but_not_to_serving_when_all_run(
    signalbox: Signalbox, tmp_path: Path
) -> None:
    """Somebody else's servers are used and left alone; one that does not take our key is refused."""
    shared = (tmp_path / "home", signalbox.mlflow_port, signalbox.prefect_port)
    refused = Signalbox(*shared, signalbox.serving_port)("up", "--detach")
    assert refused.returncode == 1
    assert "refuses our credentials" in refused.stderr
    other = Signalbox(*shared, free_port())
    try:
        assert other("up", "--detach").returncode == 0
        assert {name: part["state"] for name, part in other.parts().items()} == {
            "mlflow": "attached",
            "prefect": "attached",
            "serving": "running",
            "worker": "running",
        }
    finally:
        stopped = other("down")
    assert "stopped serving, worker" in stopped.stdout
    assert other.processes() == []
    assert signalbox("status").returncode == 0


def test_up_takes_over_when_supervisor_was_killed(signalbox: Signalbox) -> None:
    """Parts without a supervisor are shown as such, ended and started anew by the next `up`."""
    before = signalbox.parts()
    supervisor = json.loads(signalbox("status", "--json").stdout)["supervisor_pid"]
    os.kill(supervisor, signal.SIGKILL)
    assert wait_until(lambda: signalbox.parts()["mlflow"]["state"] == "unsupervised", BACK_SECONDS)
    assert signalbox("up", "--detach").returncode == 0
    assert signalbox.parts()["mlflow"]["pid"] != before["mlflow"]["pid"]


def test_down_leaves_nothing_when_stack_was_up(signalbox: Signalbox) -> None:
    """Every process goes, all ports are free, and doing it again is no error."""
    assert signalbox.processes() != []
    stopped = signalbox("down")
    assert "stopped mlflow, prefect, serving, worker" in stopped.stdout
    assert signalbox.processes() == []
    for port in (signalbox.mlflow_port, signalbox.prefect_port, signalbox.serving_port):
        socket.create_server(("127.0.0.1", port)).close()
    assert signalbox("down").returncode == 0
    assert signalbox("status").returncode == 1


def test_foreground_up_stops_everything_when_interrupted(signalbox: Signalbox) -> None:
    """Ctrl-C ends what was started, and that counts as success."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "flows.cli.main", "up"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=signalbox.home.parent,
        env=signalbox.environment(),
    )
    assert process.stdout is not None
    shown = []
    for line in process.stdout:
        shown.append(line)
        if "Ctrl-C" in line:
            break
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=UP_SECONDS)
    assert process.returncode == 0, "".join(shown) + rest
    assert "stopped mlflow, prefect, serving, worker" in rest
    assert [found for found in signalbox.processes() if found.pid != os.getpid()] == []
