"""The examining process: `python -m flows.examiner`, one JSON order per line in, one JSON ending out.

Each file is examined in a child forked from here, where the libraries are imported already: the child
has its own memory and time limit, and dies alone. The one place that joins examination and translation.
"""

import faulthandler
import os
import resource
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from time import monotonic, sleep
from typing import IO

import psutil

from flows.catalog.examine import examine
from flows.catalog.examined import ENDINGS, EXAMINED, ORDERS, TASKS, Cut, Ending, Order
from serving.core.errors import ArtifactRefused

# Below the serving process on the same machine, so that looking at a file slows no caller.
_NICENESS = 5
_WATCH_SECONDS = 0.01
# Private memory beyond the limit that the kernel refuses itself, should it grow faster than is watched.
_SLACK_BYTES = 256 << 20
_CORE_ML = ("flows.translation.program", "flows.translation.network", "serving.formats.onnx_runtime")
_LIBRARIES = {
    ".onnx": ("serving.formats.onnx_runtime",),
    ".pt2": ("serving.formats.torch_export", "serving.formats.torch_script"),
    ".mlmodel": _CORE_ML,
    ".mlpackage": _CORE_ML,
}
_OTHERS = ("serving.formats.torch_script",)


def main() -> None:
    answers = _own_answers()
    faulthandler.enable()
    for line in sys.stdin:
        order = ORDERS.validate_json(line)
        for library in _LIBRARIES.get(order.suffix, _OTHERS):
            with suppress(ImportError):  # the child says which library is missing, for which file
                import_module(library)
        answers.write(ENDINGS.dump_json(_attend(order)).decode() + "\n")
        answers.flush()


def translated(source: Path, target: Path) -> Sequence[str]:
    """A Core ML file written as ONNX; sentences for a report."""
    from flows.translation.core_ml import translate
    from flows.translation.refusal import TranslationRefused

    try:
        translation = translate(source, target)
    except TranslationRefused as refused:
        problem = f"it cannot be translated to ONNX: {refused.reason}"
        raise ArtifactRefused(problem, next_step=refused.next_step) from refused
    return translation.notes


def _own_answers() -> IO[str]:
    """The pipe to whoever asks; what a library prints goes to the log instead."""
    pipe = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return pipe


def _attend(order: Order) -> Ending:
    child = os.fork()
    if not child:
        try:
            _carry_out(order)
        finally:
            os._exit(1)
    return _watched(child, order)


def _carry_out(order: Order) -> None:
    """In the child. Ends the process, past the interpreter: a runtime torn down badly changes nothing."""
    os.setsid()
    os.nice(_NICENESS)
    _limit(order.memory_bytes)
    # Should the parent have died, a model that hangs must not stay for ever.
    signal.alarm(int(order.deadline_seconds) + 10)
    task = TASKS.validate_json(order.task.read_bytes())
    found = examine(task, translated)
    temporary = order.result.with_suffix(".tmp")
    temporary.write_bytes(EXAMINED.dump_json(found))
    temporary.replace(order.result)
    os._exit(0)


def _limit(memory_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    held = getattr(psutil.Process().memory_info(), "data", 0)
    most = held + memory_bytes + _SLACK_BYTES
    with suppress(ValueError, OSError):  # a stricter limit of the machine's own stands
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def _watched(child: int, order: Order) -> Ending:
    """Wait for the child's end; bring it about where a limit is passed."""
    started, cut, peak_bytes = monotonic(), None, 0
    process = psutil.Process(child)
    at_start = _resident_bytes(process)
    while True:
        done, status, _ = os.wait4(child, os.WNOHANG)
        if done:
            _end_group(child)
            return Ending(os.waitstatus_to_exitcode(status), cut, peak_bytes)
        peak_bytes = max(peak_bytes, _resident_bytes(process) - at_start)
        if cut is None and peak_bytes > order.memory_bytes:
            cut = Cut.MEMORY
        elif cut is None and monotonic() - started > order.deadline_seconds:
            cut = Cut.TIME
        if cut is not None:
            _end_group(child)
        sleep(_WATCH_SECONDS)


def _end_group(child: int) -> None:
    """The child with whatever it started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)
    with suppress(ProcessLookupError, PermissionError):
        os.kill(child, signal.SIGKILL)


def _resident_bytes(process: psutil.Process) -> int:
    try:
        size_bytes: int = process.memory_info().rss
    except psutil.Error:
        return 0
    return size_bytes


if __name__ == "__main__":
    with suppress(BrokenPipeError, KeyboardInterrupt):
        main()
