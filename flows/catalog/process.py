"""The measuring process from outside: started clean, watched, and ended at its limits with all it started.

Called by `flows.catalog.validate`. Memory is what the process holds, read every few milliseconds: a
limit on address space (RLIMIT_AS) would refuse good models, because PyTorch and ONNX Runtime reserve
far more of it than they ever touch, and would turn a hungry model into one that merely raises.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from flows.catalog.facts import Facts, Side, Stage
from flows.catalog.task import FACTS, TASKS, Kin, Task

_TOLD_BYTES = 4096
_LOOK_SECONDS = 0.02
# Of the time, for an attempt without what ended the first.
_LEAST_SHARE = 0.5

Pause = Callable[[float], object]


def measured(task: Task, work: Path, pause: Pause = time.sleep) -> Facts:
    """The facts as a process of its own found them; without the champion, or the siblings, where those
    are what it died of. A further attempt has the time that is left, at least half of what the first had.
    """
    least_seconds = task.deadline_seconds * _LEAST_SHARE
    ends_at = time.monotonic() + task.deadline_seconds
    facts = _in_process(task, work, pause)
    while (lighter := _without_culprit(task, facts)) is not None:
        left_seconds = max(ends_at - time.monotonic(), least_seconds)
        task = replace(lighter, deadline_seconds=left_seconds)
        facts = _in_process(task, work, pause)
    return _settled(facts)


def _without_culprit(task: Task, facts: Facts) -> Task | None:
    """The task once more without what ended the process, if that was not the candidate."""
    if facts.interrupted is None or facts.step is None or facts.step.stage is Stage.ODD:
        return None
    problem = f"{facts.interrupted} while it was {facts.step.doing}"
    if facts.step.side is Side.CHAMPION and task.champion_root is not None:
        return replace(task, champion_root=None, champion_problem=problem)
    if facts.step.side is Side.SIBLING and any(kin.root is not None for kin in task.kin):
        return replace(task, kin=tuple(_set_aside(kin, facts.step.doing, problem) for kin in task.kin))
    return None


def _set_aside(kin: Kin, doing: str, problem: str) -> Kin:
    said = problem if kin.name in doing else "another sibling ended the process"
    return replace(kin, root=None, problem=kin.problem or said)


def _settled(facts: Facts) -> Facts:
    """An end among odd inputs is a finding about those; all else was measured before."""
    if facts.interrupted is None or facts.step is None or facts.step.stage is not Stage.ODD:
        return facts
    return replace(facts, interrupted=None, odd_interrupted=facts.interrupted)


def _in_process(task: Task, work: Path, pause: Pause) -> Facts:
    task_path, facts_path, log_path = work / "task.json", work / "facts.json", work / "log"
    task_path.write_bytes(TASKS.dump_json(task))
    facts_path.unlink(missing_ok=True)
    command = [sys.executable, "-P", "-m", "flows.catalog.measure", str(task_path), str(facts_path)]
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            exceeded = _watched(process.pid, task, facts_path, pause)
        finally:
            code = ended(process)
    facts = FACTS.validate_json(facts_path.read_bytes()) if facts_path.exists() else Facts()
    return replace(facts, interrupted=exceeded or _crash(code, log_path))


def _watched(pid: int, task: Task, facts_path: Path, pause: Pause) -> str | None:
    """Which limit the process went beyond, None where it ended by itself: a phrase 'while ...' can follow."""
    process, pulse, started = psutil.Process(pid), _Pulse(facts_path), time.monotonic()
    limit_bytes = int(task.memory_mb * (1 << 20))
    while True:
        held_bytes = _held_bytes(process)
        if held_bytes is None:
            return None
        if held_bytes > limit_bytes:
            return f"memory-hungry: it held more than the limit of {task.memory_mb:g} MB"
        if time.monotonic() - started > task.deadline_seconds:
            return f"hanging: there was no end within {task.deadline_seconds:.3g} s"
        if pulse.silent_seconds() > task.silence_seconds and not _is_loading(facts_path):
            return f"hanging: there was no answer within {task.silence_seconds:.3g} s"
        pause(_LOOK_SECONDS)


def _held_bytes(process: psutil.Process) -> int | None:
    """Resident size; None once the process has ended, which is not reaped here."""
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        held_bytes: int = process.memory_info().rss
    except psutil.NoSuchProcess:
        return None
    return held_bytes


class _Pulse:
    """When the process was last heard of, by the age of its notebook on our own clock."""

    def __init__(self, facts_path: Path) -> None:
        self._facts_path = facts_path
        self._touched_ns = 0
        self._heard_at = time.monotonic()

    def silent_seconds(self) -> float:
        """Since a step or a batch began; nothing before the first did, which is Python's own start."""
        try:
            touched_ns = self._facts_path.stat().st_mtime_ns
        except FileNotFoundError:
            return 0.0
        if touched_ns != self._touched_ns:
            self._touched_ns, self._heard_at = touched_ns, time.monotonic()
        return time.monotonic() - self._heard_at


def _is_loading(facts_path: Path) -> bool:
    """A large file may take its time to load; only the deadline ends that."""
    step = FACTS.validate_json(facts_path.read_bytes()).step
    return step is not None and step.doing.startswith("loading")


def ended(process: "subprocess.Popen[Any]") -> int:
    """End whatever is left of the process and its group, and give its exit code.

    Not reaped before: until then nobody else can have its number.
    """
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    return process.wait()


def _crash(code: int, log_path: Path) -> str | None:
    if code == 0:
        return None
    if code == -signal.SIGKILL:
        return "crashed: the process was killed, most likely for want of memory,"
    if code < 0:
        return f"crashed: the process died of {signal.Signals(-code).name}"
    return f"crashed: the process ended with exit code {code} ({_last_line(log_path)})"


def _last_line(log_path: Path) -> str:
    lines = log_path.read_bytes()[-_TOLD_BYTES:].decode(errors="replace").strip().splitlines()
    return lines[-1].strip()[:300] if lines else "it said nothing"
