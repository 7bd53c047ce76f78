"""Sessions of real processes: led, left behind, ended; and strangers left alone."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from flows.cli.sessions import (
    Leader,
    end_session,
    is_alive,
    left_of,
    read_leader,
    started_seconds,
    write_leader,
)
from flows.cli.waiting import wait_until

# A leader with a child; each says its number when it is ready.
PARENT = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""
WAIT_SECONDS = 20.0


def spawn(*command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def finish(process: subprocess.Popen[str]) -> None:
    """Kill it alone; its output is closed unread, as a child may hold the other end."""
    process.kill()
    process.wait(WAIT_SECONDS)
    if process.stdout is not None:
        process.stdout.close()


@pytest.fixture
def orphaned() -> Iterator[Leader]:
    """A recorded leader that was killed and left a child in its session."""
    process = spawn(sys.executable, "-c", PARENT)
    child = psutil.Process(int(said(process)))
    leader = Leader(process.pid, started_seconds(psutil.Process(process.pid)), 1)
    finish(process)
    yield leader
    if child.is_running():
        child.kill()


def test_end_session_ends_child_when_leader_was_killed(orphaned: Leader) -> None:
    """What a killed server left behind goes, so that its port is free."""
    assert not is_alive(orphaned)
    assert len(left_of(orphaned)) == 1
    end_session(orphaned)
    assert left_of(orphaned) == []


def test_end_session_insists_when_asking_does_not_help() -> None:
    """A process that ignores the request to stop is stopped."""
    ignores = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True)"
    process = spawn(sys.executable, "-c", f"{ignores}; time.sleep(600)")
    said(process)
    leader = Leader(process.pid, started_seconds(psutil.Process(process.pid)), 1)
    end_session(leader, patience_seconds=0.2)
    assert process.wait(WAIT_SECONDS) == -signal.SIGKILL
    finish(process)


def test_end_session_spares_stranger_when_number_was_given_away() -> None:
    """A process that merely has the recorded number now is not touched."""
    process = spawn(sys.executable, "-c", PARENT)
    said(process)
    long_ago = started_seconds(psutil.Process(process.pid)) - 3600
    try:
        assert left_of(Leader(process.pid, long_ago, 1)) == []
        end_session(Leader(process.pid, long_ago, 1))
        assert process.poll() is None
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        finish(process)


def test_leader_survives_the_pid_file_when_written_and_read(tmp_path: Path) -> None:
    """The file's first line is the number, as other tools expect; a torn file is no leader."""
    leader = Leader(123, 45.67, 3)
    write_leader(tmp_path / "x.pid", leader)
    assert read_leader(tmp_path / "x.pid") == leader
    assert (tmp_path / "x.pid").read_text().splitlines()[0] == "123"
    (tmp_path / "x.pid").write_text("123\n")
    assert read_leader(tmp_path / "x.pid") is None
    assert read_leader(tmp_path / "none.pid") is None


def test_part_leads_session_and_ends_predecessor_when_started_again(tmp_path: Path, orphaned: Leader) -> None:
    """The launcher ends the recorded session, opens its own and becomes the command, counting starts."""
    pid_file = tmp_path / "part.pid"
    write_leader(pid_file, orphaned)
    says = "import os, sys; print(os.getsid(0) == os.getpid() == os.getpgrp(), flush=True); sys.stdin.read()"
    # As the supervisor does: the launcher is put at the head of a group, not of a session.
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.cli.part", "--pid-file", pid_file, "--", sys.executable, "-c", says],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        process_group=0,
        cwd=Path(__file__).parents[3],
    )
    try:
        assert said(process) == "True"
        recorded = read_leader(pid_file)
        assert recorded is not None
        assert (recorded.pid, recorded.starts) == (process.pid, 2)
        assert is_alive(recorded)
        assert wait_until(lambda: left_of(orphaned) == [], WAIT_SECONDS)
    finally:
        process.communicate(timeout=WAIT_SECONDS)
    assert not is_alive(recorded)


def test_part_explains_usage_when_called_wrongly() -> None:
    """Without a command there is nothing to become."""
    run = subprocess.run(
        [sys.executable, "-m", "flows.cli.part"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[3],
        check=False,
    )
    assert run.returncode == 1
    assert run.stderr.startswith("usage:")
