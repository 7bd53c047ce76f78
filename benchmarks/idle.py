"""P16: what the whole stack costs while nobody asks it anything, all its schedules running.

CPU time is read at both ends: of every living process, and what each has been told of its children that
ended, so no run between two looks is lost. Memory is PSS: a page that several processes share is
counted once, in equal parts.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import monotonic

import psutil

from benchmarks.memory import tree
from benchmarks.row import Row, within
from benchmarks.stack import Stack, raised

_SETTLE_SECONDS = 60.0
_LOOK_SECONDS = 10.0
_TRIES = 50
_FLOWS, _SUPERVISOR = "flow runs", "supervisor"
_GB = 1 << 30


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds and PSS bytes by part of the stack."""

    at: float
    cpu_seconds: Mapping[str, float]
    pss_bytes: Mapping[str, int]


def idle(folder: Path, *, minutes: float) -> list[Row]:
    with raised(folder / "idle") as stack:
        for _ in range(3):
            stack.champion("onnx:1", prefix="idle")
        leaders = _leaders(stack)
        pause = threading.Event()
        pause.wait(min(_SETTLE_SECONDS, minutes * 60))
        looks = [_look(leaders)]
        while looks[-1].at - looks[0].at < minutes * 60:
            pause.wait(_LOOK_SECONDS)
            looks.append(_look(leaders))
        if _leaders(stack) != leaders:
            raise RuntimeError("a part of the stack was restarted meanwhile")
    return _rows(looks, minutes)


def _leaders(stack: Stack) -> dict[str, int]:
    status = stack.status()
    parts = {str(part["part"]): int(part["pid"]) for part in status["parts"]}
    return parts | {_SUPERVISOR: int(status["supervisor_pid"])}


def _look(leaders: Mapping[str, int]) -> Usage:
    """One look at a moment when no process came or went: between two, its time would count twice or never."""
    for _ in range(_TRIES):
        try:
            before = tree(leaders[_SUPERVISOR])
            usage = _usage(before, leaders)
        except psutil.NoSuchProcess:
            continue
        if tree(leaders[_SUPERVISOR]) == before:
            return usage
    raise RuntimeError(f"processes came and went at each of {_TRIES} looks")


def _usage(processes: list[psutil.Process], leaders: Mapping[str, int]) -> Usage:
    names = {pid: name for name, pid in leaders.items()}
    cpu_seconds = dict.fromkeys((*leaders, _FLOWS), 0.0)
    pss_bytes = dict.fromkeys((*leaders, _FLOWS), 0)
    worker = leaders["worker"]
    for process in processes:
        part = _part(process, names)
        times = process.cpu_times()
        ended = times.children_user + times.children_system
        # What the worker started and saw end were runs of flows; so is what lives below it.
        flows = part == "worker"
        of_self = _FLOWS if flows and process.pid != worker else part
        cpu_seconds[of_self] += times.user + times.system
        cpu_seconds[_FLOWS if flows else part] += ended
        pss_bytes[of_self] += process.memory_full_info().pss
    return Usage(monotonic(), cpu_seconds, pss_bytes)


def _part(process: psutil.Process, names: Mapping[int, str]) -> str:
    """Whose part a process belongs to: its own, or that of the nearest leader above it."""
    at: psutil.Process | None = process
    while at is not None and at.pid not in names:
        at = at.parent()
    return names[at.pid] if at is not None else _SUPERVISOR


def _rows(looks: list[Usage], minutes: float) -> list[Row]:
    first, last = looks[0], looks[-1]
    seconds = last.at - first.at
    percents = {
        name: 100 * (last.cpu_seconds[name] - first.cpu_seconds[name]) / seconds for name in last.cpu_seconds
    }
    totals_gb = [sum(look.pss_bytes.values()) / _GB for look in looks]
    middle_mb = {name: median(look.pss_bytes[name] for look in looks) / (1 << 20) for name in last.pss_bytes}
    what = f"idle for {minutes:g} minutes, three models, all schedules"
    told = f"peak {max(totals_gb):.2f} GB; "
    return [
        within("P16", f"{what}: CPU, of one core", sum(percents.values()), 35.0, "%", _split(percents, "%")),
        within("P16", f"{what}: PSS, median", median(totals_gb), 1.6, "GB", told + _split(middle_mb, "MB")),
    ]


def _split(amounts: Mapping[str, float], unit: str) -> str:
    costly = sorted(amounts.items(), key=lambda entry: -entry[1])
    return ", ".join(f"{name} {amount:.3g} {unit}" for name, amount in costly)
