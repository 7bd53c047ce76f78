"""A process that hangs, crashes or eats memory ends at its limits, and says what it died of."""

import fcntl
import os
import threading
from pathlib import Path
from time import monotonic

import psutil
import pytest

from flows.catalog.confinement import run_confined, turn
from tests.waiting import until

ROOMY = 1 << 32


def module(folder: Path, body: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of the given source that a process started from here can run."""
    (folder / "confined_program.py").write_text(body)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return "confined_program"


def test_nothing_is_said_when_it_ends_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = module(tmp_path, "import sys; print(sys.argv[1])", monkeypatch)
    assert run_confined(name, ["hello"], tmp_path / "log", 60.0, ROOMY) is None
    assert (tmp_path / "log").read_text() == "hello\n"


@pytest.mark.parametrize(
    ("body", "deadline_seconds", "memory_bytes", "said", "is_late"),
    [
        pytest.param("while True: pass", 1.5, ROOMY, "there was no end within 1.5 s", True, id="hangs"),
        pytest.param(
            "held = []\nwhile True: held.append(bytearray(1 << 20))",
            60.0,
            200 << 20,
            "the process held more than the limit of 200 MB",
            False,
            id="eats memory",
        ),
        pytest.param(
            "import os; os.kill(os.getpid(), 11)",
            60.0,
            ROOMY,
            "the process died of SIGSEGV",
            False,
            id="crashes",
        ),
        pytest.param(
            "import os; os.kill(os.getpid(), 9)",
            60.0,
            ROOMY,
            "the process was killed, most likely for want of memory,",
            False,
            id="is killed",
        ),
        pytest.param(
            "raise SystemExit('no such task')",
            60.0,
            ROOMY,
            "the process ended with exit code 1 (no such task)",
            False,
            id="gives up",
        ),
        pytest.param(
            "raise SystemExit(3)",
            60.0,
            ROOMY,
            "the process ended with exit code 3 (it said nothing)",
            False,
            id="says nothing",
        ),
    ],
)
def test_end_is_told_when_it_is_a_bad_one(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    body: str,
    deadline_seconds: float,
    memory_bytes: int,
    said: str,
    is_late: bool,
) -> None:
    ending = run_confined(
        module(tmp_path, body, monkeypatch), [], tmp_path / "log", deadline_seconds, memory_bytes
    )
    assert ending is not None
    assert (ending.reason, ending.is_late) == (said, is_late)


def test_children_are_ended_too_when_the_process_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a model starts does not outlive the benchmark."""
    body = (
        "import subprocess, sys, pathlib\n"
        "child = subprocess.Popen([sys.executable, '-c', 'while True: pass'])\n"
        "pathlib.Path(sys.argv[1]).write_text(str(child.pid))\n"
        "child.wait()\n"
    )
    name = module(tmp_path, body, monkeypatch)
    ending = run_confined(name, [str(tmp_path / "pid")], tmp_path / "log", 5.0, ROOMY)
    assert ending is not None
    pid = int((tmp_path / "pid").read_text())
    until(lambda: not _lives(pid), "the child is gone")


def _lives(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_turn_is_waited_for_when_another_holds_it(tmp_path: Path) -> None:
    lock = tmp_path / "benchmark.lock"
    with lock.open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        entered = threading.Event()

        def take_turn() -> None:
            with turn(lock, patience_seconds=60.0):
                entered.set()

        waiting = threading.Thread(target=take_turn, daemon=True)
        waiting.start()
        assert not entered.wait(0.3)
    assert entered.wait(30.0)
    waiting.join()


def test_turn_comes_anyway_when_patience_ends(tmp_path: Path) -> None:
    """A promotion does not wait for a benchmark."""
    lock = tmp_path / "benchmark.lock"
    with lock.open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        began = monotonic()
        with turn(lock, patience_seconds=0.0):
            assert monotonic() - began < 30.0
    assert os.path.exists(lock)
