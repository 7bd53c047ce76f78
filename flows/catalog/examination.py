"""Having files examined: orders to one examining process that stays, and what their endings mean.

The libraries are imported once for many files, and each file is looked at in a child of that process.
Should it die itself, the next order starts another.
"""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from flows.catalog.examined import ENDINGS, EXAMINED, ORDERS, TASKS, Cut, Ending, Examined, Order, Task
from serving.core.errors import SignalboxError

_PROGRAM = "flows.examiner"
_MEGABYTE = 1 << 20
_TOLD_BYTES = 4096
_STOP_SECONDS = 10.0


class ExaminerLost(SignalboxError):
    """The examining process itself is gone, which says nothing about the file."""


class Examiner(Protocol):
    def examine(self, task: Task, work: Path) -> Examined:
        """What came of the file; `work` is an empty folder to use. Raises `ExaminerLost`."""
        ...


@dataclass(frozen=True, slots=True)
class Allowance:
    """What looking at one file may take."""

    deadline_seconds: float
    memory_mb: float


class ExaminingProcess:
    """Started with the first order. Not thread-safe."""

    def __init__(self, allowance: Allowance, log: Path) -> None:
        self._allowance = allowance
        self._log = log
        self._process: subprocess.Popen[str] | None = None

    def examine(self, task: Task, work: Path) -> Examined:
        task_path, result_path = work / "task.json", work / "examined.json"
        task_path.write_bytes(TASKS.dump_json(task))
        order = Order(
            task_path,
            result_path,
            task.source.suffix,
            self._allowance.deadline_seconds,
            int(self._allowance.memory_mb * _MEGABYTE),
        )
        ending = self._ask(order)
        if ending.exit_code == 0 and ending.cut is None and result_path.is_file():
            found = EXAMINED.validate_json(result_path.read_bytes())
            if not found.lacked_memory:
                return found
            ending = replace(ending, cut=Cut.MEMORY)
        return Examined(problem=self._problem(ending), next_step=_NEXT_STEPS[ending.cut])

    def close(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(OSError):
            process.stdin.close() if process.stdin else None
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout:
            process.stdout.close()

    def _ask(self, order: Order) -> Ending:
        for _attempt in range(2):
            process = self._started()
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                process.stdin.write(ORDERS.dump_json(order).decode() + "\n")
                process.stdin.flush()
                line = process.stdout.readline()
            except OSError:
                line = ""
            if line:
                return ENDINGS.validate_json(line)
            self.close()
        raise ExaminerLost(
            f"the examining process ended by itself ({_last_line(self._log)}); see {self._log}"
        )

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None:
            self._log.parent.mkdir(parents=True, exist_ok=True)
            with self._log.open("ab") as log:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", _PROGRAM],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    start_new_session=True,
                )
        return self._process

    def _problem(self, ending: Ending) -> str:
        allowed = self._allowance
        if ending.cut is Cut.TIME:
            return f"it hangs: loading and asking it had no end within {allowed.deadline_seconds:g} s"
        if ending.cut is Cut.MEMORY:
            return f"loading and asking it takes more than {allowed.memory_mb:g} MB of memory"
        if ending.exit_code == -signal.SIGKILL:
            return "looking at it was killed, most likely because the machine has no memory left"
        if ending.exit_code < 0:
            return f"it crashes the process that loads it ({signal.Signals(-ending.exit_code).name})"
        return f"looking at it failed ({_last_line(self._log)})"


_CRASHED = "export it again, and try it with the runtime's own loader; it is looked at again when it changes"
_NEXT_STEPS = {
    None: _CRASHED,
    Cut.TIME: "correct the model, or allow more time with SIGNALBOX_REGISTER_SECONDS",
    Cut.MEMORY: "make the model smaller, or allow more with SIGNALBOX_REGISTER_MEMORY_MB",
}


@contextmanager
def examining(allowance: Allowance, log: Path) -> Iterator[ExaminingProcess]:
    """A process for many files, ended with the block."""
    process = ExaminingProcess(allowance, log)
    try:
        yield process
    finally:
        process.close()


def _last_line(log: Path) -> str:
    with suppress(OSError):
        lines = log.read_bytes()[-_TOLD_BYTES:].decode(errors="replace").strip().splitlines()
        if lines:
            return lines[-1].strip()[:300]
    return "it said nothing"
