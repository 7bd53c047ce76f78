"""Copies of answered requests for another version, and how its answers differ.

A copy begins after its answer was sent, never waits for anything, and is dropped and counted where it
could get into the way of requests: too many under way, a version that is busy or asleep.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from random import Random
from typing import Protocol

from serving.batcher import Timing
from serving.core.batch import Tensors
from serving.core.clock import Clock
from serving.core.comparison import Outputs, Pair
from serving.core.errors import ModelFailed, Overloaded, SignalboxError
from serving.formats.loader import LoadedModel
from serving.formats.selftest import output_problem
from serving.pool import LoadedVersion
from serving.routes import CopyTarget
from serving.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

_COPY_SECONDS = 10.0
_MAX_COPY_BYTES = 8 << 20
_SECONDS_PER_NS = 1e-9


class Dropped(StrEnum):
    """Why a sampled request was not copied; label of the metric."""

    FULL = "full"
    BUSY = "busy"
    ASLEEP = "asleep"
    GONE = "gone"
    TOO_LARGE = "too_large"


@dataclass(frozen=True, slots=True)
class CopyLimits:
    """The share of answers copied where no traffic tag names one, and how many copies run at once."""

    ratio: float
    in_flight: int


@dataclass(frozen=True, slots=True)
class Given:
    """An answer as it was given, to inputs that `read` can make fit another model.

    `seconds` are of its execution alone: some versions are asked on the event loop, copies always wait for
    a thread.
    """

    version: LoadedVersion
    inputs: Tensors
    outputs: Outputs
    seconds: float
    read: Callable[[LoadedModel], Tensors]
    request_id: str

    @property
    def size_bytes(self) -> int:
        return sum(array.nbytes for array in (*self.inputs.values(), *self.outputs.values()))


@dataclass(frozen=True, slots=True)
class Copy:
    """One copy to be made."""

    target: CopyTarget
    given: Given


@dataclass(frozen=True, slots=True)
class Copied:
    """What came of a copy: outputs, or None and the `problem`."""

    pair: Pair
    given: Given
    outputs: Outputs | None
    seconds: float
    problem: str
    at: datetime


class Comparing(Protocol):
    """Takes what came of copies: `serving.comparisons`."""

    async def add(self, copied: Copied) -> None:
        """Returns once the answers were compared, on a thread of its own."""
        ...


class Noting(Protocol):
    """Accounts a copy to the version that got it: `serving.accounts`."""

    def copied(self, version: LoadedVersion, copied: Copied, inputs: Tensors, timing: Timing) -> None: ...


class Shadow:
    """Confined to the event loop's thread."""

    def __init__(
        self,
        comparing: Comparing,
        noting: Noting,
        metrics: Metrics,
        clock: Clock,
        limits: CopyLimits,
        chance: Random,
    ) -> None:
        self._comparing = comparing
        self._noting = noting
        self._metrics = metrics
        self._clock = clock
        self._limits = limits
        self._chance = chance
        self._tasks: set[asyncio.Task[None]] = set()

    def sample(self, targets: tuple[CopyTarget, ...], given: Given) -> tuple[Copy, ...]:
        """The copies to make of an answer; a draw for each version that may get one."""
        return tuple(Copy(target, given) for target in targets if self._is_drawn(target))

    def start(self, copies: tuple[Copy, ...]) -> None:
        """Begin copies of an answer that was sent."""
        for copy in copies:
            if (why := self._obstacle(copy)) is not None:
                self._drop(copy, why)
                continue
            task = asyncio.create_task(self._run(copy))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Give up what is under way."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _is_drawn(self, target: CopyTarget) -> bool:
        ratio = self._limits.ratio if target.percent is None else target.percent / 100
        return ratio > 0 and (ratio >= 1 or self._chance.random() < ratio)

    def _obstacle(self, copy: Copy) -> Dropped | None:
        target = copy.target.version
        if len(self._tasks) >= self._limits.in_flight:
            return Dropped.FULL
        if target.is_retired:
            return Dropped.GONE
        if not target.is_awake:  # a copy costs nobody the place in memory
            return Dropped.ASLEEP
        if target.waiting:
            return Dropped.BUSY
        return Dropped.TOO_LARGE if copy.given.size_bytes > _MAX_COPY_BYTES else None

    def _drop(self, copy: Copy, why: Dropped) -> None:
        self._metrics.shadow_dropped.labels(copy.target.version.ref.model, why).inc()

    async def _run(self, copy: Copy) -> None:
        try:
            await self._copy(copy)
        except Exception:  # a task edge: whatever becomes of a copy harms no request
            log.exception("copy_failed version=%s", copy.target.version.ref)

    async def _copy(self, copy: Copy) -> None:
        timing, outputs, problem = Timing(), None, ""
        target, inputs = copy.target.version, copy.given.inputs
        try:
            with target.held():
                inputs = await _inputs(copy.given, target.model)
                outputs = await self._answer(target, inputs, timing)
        except Overloaded:
            self._drop(copy, Dropped.BUSY)
            return
        except (SignalboxError, TimeoutError) as error:
            problem = str(error) or f"no answer within {_COPY_SECONDS:g} s"
        seconds = max(0, timing.done_ns - timing.begun_ns) * _SECONDS_PER_NS
        pair = _pair(copy.target, copy.given.version)
        copied = Copied(pair, copy.given, outputs, seconds, problem, self._clock.now())
        self._noting.copied(target, copied, inputs, timing)
        await self._comparing.add(copied)

    async def _answer(self, target: LoadedVersion, inputs: Tensors, timing: Timing) -> Outputs:
        timing.asked_ns = time.perf_counter_ns()
        async with asyncio.timeout(_COPY_SECONDS):
            outputs = await target.run(inputs, self._clock.monotonic() + _COPY_SECONDS, timing)
        if (problem := output_problem(target.model.outputs, outputs)) is not None:
            raise ModelFailed(problem, model=target.ref.model, version=target.ref.version)
        return outputs


async def _inputs(given: Given, model: LoadedModel) -> Tensors:
    """The inputs as they were, unless this model takes others. Raises `InvalidRequest`."""
    if given.version.model.inputs == model.inputs:
        return given.inputs
    return await asyncio.to_thread(given.read, model)


def share_seconds(timing: Timing) -> float:
    """A request's part of the time of the execution that answered it, by rows."""
    return (timing.done_ns - timing.begun_ns) * _SECONDS_PER_NS * min(1.0, timing.rows / timing.executed_rows)


def _pair(target: CopyTarget, answered: LoadedVersion) -> Pair:
    copied = target.version.ref
    champion, other = (copied, answered.ref) if target.is_control else (answered.ref, copied)
    return Pair(copied.model, champion.version, other.version, target.role, target.is_control)
