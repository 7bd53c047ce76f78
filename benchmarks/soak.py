"""The soak: every kind of traffic, aliases that move, too little memory, and what came of it (P17).

    python -m benchmarks.soak --minutes 20

Three models in two formats on two workers, JSON and binary, one malformed request in a hundred, a swap or
an instant rollback every five seconds, evictions forced by a limit on how many versions may be in memory.
Each model adds a number that is its version's, so every answer is checked. When the time is up one of
the workers is killed, and traffic goes on until the other has long been joined by its successor.
"""

import argparse
import asyncio
import os
import random
import signal
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic

import httpx
import psutil

from benchmarks.ground import Ground, ground
from benchmarks.memory import growth_percent, resident_mb
from benchmarks.row import Row, none_of, show, within
from benchmarks.soak_traffic import Sample, ask
from tests.mlflow_registry import RegisteredModel
from tests.serving_process import ServingProcess

_WORKERS = 2
_MOVE_SECONDS = 5.0
_LOOK_SECONDS = 5.0
# Every third move of a model is the way back by a rollback.
_ROLLBACK_EVERY = 3
_ANSWERED_PERCENT = 99.9
_AFTERWARDS_RATIO, _LEAST_AFTERWARDS_SECONDS = 0.1, 30.0


@dataclass
class Seen:
    """What happened. Moments are seconds since the start; `killed_at` is infinite until it is done."""

    began: float = field(default_factory=monotonic)
    samples: list[Sample] = field(default_factory=list)
    resident_mb: list[float] = field(default_factory=list)
    moves: Counter[str] = field(default_factory=Counter)
    killed_at: float = float("inf")

    @property
    def now(self) -> float:
        return monotonic() - self.began


@dataclass
class Course:
    """Which of its two versions a model is at, as far as we moved it."""

    model: RegisteredModel
    version: str = "1"
    moves: int = 0

    @property
    def other(self) -> str:
        return "2" if self.version == "1" else "1"


def soak(place: Ground, *, minutes: float, rate: float) -> list[Row]:
    models = [
        place.registry.model("onnx:1", "onnx:2", prefix="soak"),
        place.registry.model("torch:1", "torch:2", prefix="soak"),
        place.registry.model("onnx:1", "torch:2", prefix="soak"),
    ]
    for model in models:
        model.point("1")
    # What a watch keeps for the way back cannot be evicted: a watch shorter than the pause leaves room.
    settings = {"max_models": 5, "min_residency_seconds": 1.0, "watch_seconds": 3.0, "workers": _WORKERS}
    with place.serving("soak", "soak-*", **settings) as serving:
        seen = asyncio.run(_run(serving, models, minutes * 60, rate))
        serving.assert_nothing_lost()
        evictions = sum(len(serving.audited("evict", model.name)) for model in models)
    return _rows(seen, minutes * 60, evictions)


async def _run(serving: ServingProcess, models: list[RegisteredModel], seconds: float, rate: float) -> Seen:
    seen, chance = Seen(), random.Random(7)
    until = seconds + max(_LEAST_AFTERWARDS_SECONDS, seconds * _AFTERWARDS_RATIO)
    limits = httpx.Limits(max_connections=64)
    async with (
        httpx.AsyncClient(base_url=serving.url, trust_env=False, timeout=30, limits=limits) as client,
        asyncio.TaskGroup() as tasks,
    ):
        tasks.create_task(_move(serving, [Course(model) for model in models], until, seen))
        tasks.create_task(_watch(serving.pid, seconds, seen))
        tasks.create_task(_kill(serving.pid, seconds, seen))
        asked = 0
        while seen.now < until:
            tasks.create_task(_ask(client, chance.choice(models), chance, seen))
            asked += 1
            await asyncio.sleep(max(0.0, asked / rate - seen.now))
    return seen


async def _ask(client: httpx.AsyncClient, model: RegisteredModel, chance: random.Random, seen: Seen) -> None:
    seen.samples.append(await ask(client, model, chance, seen.began))


async def _move(serving: ServingProcess, courses: list[Course], until: float, seen: Seen) -> None:
    turn = 0
    while seen.now < until:
        course = courses[turn % len(courses)]
        await asyncio.to_thread(_move_one, serving, course, seen)
        turn += 1
        await asyncio.sleep(_MOVE_SECONDS)


def _move_one(serving: ServingProcess, course: Course, seen: Seen) -> None:
    course.moves += 1
    if course.moves % _ROLLBACK_EVERY:
        course.model.point(course.other)
        seen.moves["swaps"] += 1
    else:
        told = serving.roll_back(
            course.model.name, strategy="instant", reason="soak", allow_signature_change=True
        )
        if str(told["to"]) != course.other:
            raise RuntimeError(f"a rollback went to {told}, not to version {course.other}")
        seen.moves["rollbacks"] += 1
    course.version = course.other


async def _watch(pid: int, until: float, seen: Seen) -> None:
    """Until the kill: a worker that has just begun holds less."""
    while seen.now < until:
        seen.resident_mb.append(resident_mb(pid))
        await asyncio.sleep(_LOOK_SECONDS)


async def _kill(pid: int, at: float, seen: Seen) -> None:
    await asyncio.sleep(at - seen.now)
    victim = psutil.Process(pid).children()[0]
    seen.killed_at = seen.now
    os.kill(victim.pid, signal.SIGKILL)


def _rows(seen: Seen, seconds: float, evictions: int) -> list[Row]:
    valid = [sample for sample in seen.samples if sample.is_valid]
    malformed = [sample for sample in seen.samples if not sample.is_valid]
    # What was under way at the kill belongs to what it cost.
    before = [sample for sample in valid if sample.ended < seen.killed_at]
    # As long as the soak itself, the kill in it.
    from_second = max(sample.started for sample in valid) - seconds
    last = [sample for sample in valid if sample.started >= from_second]
    moves = f"{seen.moves['swaps']} swaps, {seen.moves['rollbacks']} rollbacks, {evictions} evictions"
    lost = _failed(last)
    answered_percent = 100 * (1 - len(lost) / len(last))
    return [
        none_of("P17", f"valid requests failed without a kill; {moves}", len(_failed(before)), len(before)),
        Row(
            "P17",
            "valid requests answered in as long a time with kill -9 of one worker of two",
            f"{answered_percent:.4f} %",
            "",
            "",
            "≥ 99.9 %",
            answered_percent >= _ANSWERED_PERCENT,
            f"{len(lost)} of {len(last)} lost: {_troubles(lost)}" if lost else f"none of {len(last)} lost",
        ),
        none_of("P17", "answers of a wrong value", sum(sample.is_wrong for sample in valid), len(valid)),
        none_of("P17", "malformed requests not refused with 4xx", len(_failed(malformed)), len(malformed)),
        within(
            "P17",
            "growth of resident memory, all workers summed",
            growth_percent(seen.resident_mb),
            10.0,
            "%",
            f"{seen.resident_mb[0]:.0f} MB at the start, {seen.resident_mb[-1]:.0f} MB at the end",
        ),
        Row("P17", "p99 by minute, ms", _p99_by_minute(valid), "", "", "", None, _troubles(_failed(before))),
    ]


def _failed(samples: Sequence[Sample]) -> list[Sample]:
    return [sample for sample in samples if sample.trouble is not None]


def _troubles(failed: Sequence[Sample]) -> str:
    common = Counter(sample.trouble for sample in failed).most_common(3)
    return ", ".join(f"{count} × {trouble}" for trouble, count in common)


def _p99_by_minute(samples: Sequence[Sample]) -> str:
    times_ms: dict[int, list[float]] = defaultdict(list)
    for sample in samples:
        times_ms[int(sample.started // 60)].append(sample.ms)
    ordered = (sorted(times_ms[minute]) for minute in sorted(times_ms))
    return ", ".join(f"{times[round(0.99 * (len(times) - 1))]:.1f}" for times in ordered)


def main() -> int:
    parser = argparse.ArgumentParser(description="Soak a server with everything at once.")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--rate", type=float, default=100, help="requests a second")
    arguments = parser.parse_args()
    with TemporaryDirectory(prefix="signalbox-soak-") as folder, ground(Path(folder)) as place:
        rows = soak(place, minutes=arguments.minutes, rate=arguments.rate)
    show(rows)
    return 0 if all(row.is_met is not False for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
