"""Process sessions of started parts: who leads one, and how to end what is left of it.

A killed server can leave children that keep its port. Invariant: a process is ended only when it
belongs to the recorded session and is no older than the leader that was recorded.
"""

import contextlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path

import psutil

from flows.cli.waiting import wait_until

# The boot time the kernel reports moves by a second when the wall clock is corrected.
_SAME_START_SECONDS = 2.0
_END_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Leader:
    """The process a part became, and how often the part was started. Kept as lines of its pid file."""

    pid: int
    started_seconds: float
    starts: int


def read_leader(path: Path) -> Leader | None:
    """The leader a pid file records, or None where there is none or the file is torn."""
    try:
        pid, started, starts = path.read_text().split()
        return Leader(int(pid), float(started), int(starts))
    except (OSError, ValueError):
        return None


def write_leader(path: Path, leader: Leader) -> None:
    draft = path.with_name(f"{path.name}.new")
    draft.write_text(f"{leader.pid}\n{leader.started_seconds:.2f}\n{leader.starts}\n")
    draft.replace(path)


def started_seconds(process: psutil.Process) -> float:
    """When a process was started, in seconds after boot: unlike its wall time, a clock step leaves it."""
    return process.create_time() - psutil.boot_time()


def is_alive(leader: Leader) -> bool:
    """Whether the very process that was recorded still runs."""
    try:
        process = psutil.Process(leader.pid)
        return _same_start(process, leader) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def left_of(leader: Leader) -> list[psutil.Process]:
    """Live processes of the leader's session, the leader included; none if its number was given away."""
    try:
        if not _same_start(psutil.Process(leader.pid), leader):
            return []
    except psutil.Error:
        pass
    found = []
    for pid in psutil.pids():
        with contextlib.suppress(OSError, psutil.Error):
            process = psutil.Process(pid)
            if pid != os.getpid() and _belongs(process, leader):
                found.append(process)
    return found


def end_session(leader: Leader, patience_seconds: float = _END_SECONDS) -> None:
    """Ask everything left of a session to stop, then stop it."""
    for sent in (signal.SIGTERM, signal.SIGKILL):
        for process in left_of(leader):
            with contextlib.suppress(psutil.Error):
                process.send_signal(sent)
        if wait_until(lambda: not left_of(leader), patience_seconds):
            return


def lead_session() -> None:
    """Make this process the leader of a session of its own.

    A supervised process already leads a group, and the kernel lets no group leader open a session:
    it first joins its parent's group. Where the parent is gone, the group alone must do.
    """
    if os.getsid(0) == os.getpid():
        return
    with contextlib.suppress(OSError):
        if os.getpgrp() == os.getpid():
            os.setpgid(0, os.getpgid(os.getppid()))
        os.setsid()


def _same_start(process: psutil.Process, leader: Leader) -> bool:
    return abs(started_seconds(process) - leader.started_seconds) <= _SAME_START_SECONDS


def _belongs(process: psutil.Process, leader: Leader) -> bool:
    if leader.pid not in (os.getsid(process.pid), os.getpgid(process.pid)):
        return False
    younger = started_seconds(process) >= leader.started_seconds - _SAME_START_SECONDS
    return younger and process.status() != psutil.STATUS_ZOMBIE
