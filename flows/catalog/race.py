"""Calls of one or two versions in turn, block by block, until the times hold still or the time is up.

Called by `flows.catalog.load_test`. A busy machine slows the blocks of both sides alike, so the ratio
of two sides holds where their times do not.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter, process_time

import numpy as np

from flows.catalog.facts import Side
from flows.catalog.sampling import Window, is_stable, window_of
from flows.catalog.subject import told
from serving.core.datatypes import Array

_TASKS = Path("/proc/self/task")
_BLOCK_SECONDS = 0.01
_BLOCK_CALLS = 200
_SETTLED_WINDOWS = 3
# Several threads of one call may wait at once.
_MOST_WAITING = 0.95
_WARM_UP_CALLS = 20
_WARM_UP_MIN_CALLS = 3
# A block this long can spare its first call, which finds the caches full of the other side.
_SPARING_CALLS = 5


class Faltered(Exception):
    """A side raised in the middle of its calls."""

    def __init__(self, side: Side, problem: str) -> None:
        self.side = side
        self.problem = problem
        super().__init__(problem)


@contextmanager
def attributed(side: Side) -> Iterator[None]:
    """Whatever a model raises in here is `Faltered` of its side."""
    try:
        yield
    except Exception as error:  # a model is foreign code: whatever it raises is a finding
        raise Faltered(side, told(error)) from error


@dataclass(frozen=True, slots=True)
class Entrant:
    """One side's call, ready to be made."""

    side: Side
    call: Callable[[], object]


@dataclass(frozen=True, slots=True)
class Pace:
    """`seconds` to run, more until there are `min_calls` of each side, but never past `most_seconds`.

    With `stability_ratio` the race ends early once every side is stable.
    """

    seconds: float
    most_seconds: float
    window_seconds: float
    min_calls: int = 20
    stability_ratio: float | None = None


@dataclass(slots=True)
class Lane:
    """One side's course. `blocks` hold milliseconds per call, `waits` the share of each block's time that
    threads of this process stood in line for a CPU.
    """

    entrant: Entrant
    calls_per_block: int
    blocks: list[Array] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    windows: list[Window] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0

    @property
    def calls(self) -> int:
        return sum(len(block) for block in self.blocks)

    @property
    def cpu_ratio(self) -> float:
        return self.cpu_seconds / self.wall_seconds if self.wall_seconds else 0.0

    @property
    def settled_from(self) -> int:
        """Where the last three windows begin."""
        return self.starts[-_SETTLED_WINDOWS]

    def run_block(self) -> None:
        if self.calls_per_block >= _SPARING_CALLS:
            self.entrant.call()
        times = np.empty(self.calls_per_block)
        waited = waiting_seconds()
        cpu, wall = process_time(), perf_counter()
        for index in range(self.calls_per_block):
            begun = perf_counter()
            self.entrant.call()
            times[index] = perf_counter() - begun
        wall = perf_counter() - wall
        self.wall_seconds += wall
        self.cpu_seconds += process_time() - cpu
        self.waits.append(min(_MOST_WAITING, (waiting_seconds() - waited) / wall))
        self.blocks.append(times * 1000)


@dataclass(frozen=True, slots=True)
class Heat:
    """How a race went."""

    lanes: Mapping[Side, Lane]
    is_stable: bool

    def blocks(self, side: Side) -> list[Array]:
        """Those that count: of a steady race its last three windows, else all."""
        return self.lanes[side].blocks[self._start(side) :]

    def unhindered(self, side: Side) -> list[Array]:
        """The same less the share of each that was spent in line: what a free machine would need at least."""
        start, lane = self._start(side), self.lanes[side]
        pairs = zip(lane.blocks[start:], lane.waits[start:], strict=True)
        return [block * (1 - share) for block, share in pairs]

    def _start(self, side: Side) -> int:
        return self.lanes[side].settled_from if self.is_stable else 0


def race(entrants: Sequence[Entrant], pace: Pace) -> Heat:
    """Raises `Faltered`."""
    lanes = [Lane(entrant, _calls_per_block(entrant, pace.seconds / 10)) for entrant in entrants]
    started = perf_counter()
    steady = False
    while not steady and not _is_over(lanes, pace, perf_counter() - started):
        _run_window(lanes, pace, started)
        if pace.stability_ratio is not None:
            steady = all(is_stable(lane.windows, pace.stability_ratio) for lane in lanes)
    return Heat({lane.entrant.side: lane for lane in lanes}, steady)


def warm_up(call: Callable[[], object], seconds: float) -> float:
    """Call until warm or the time is up; seconds of a call then."""
    times: list[float] = []
    started = perf_counter()
    while len(times) < _WARM_UP_MIN_CALLS or (
        len(times) < _WARM_UP_CALLS and perf_counter() - started < seconds
    ):
        begun = perf_counter()
        call()
        times.append(perf_counter() - begun)
    return float(np.median(times[len(times) // 2 :]))


def waiting_seconds() -> float:
    """How long the threads of this process have stood in line for a CPU, all together; 0 off Linux.

    Source: Documentation/scheduler/sched-stats.rst, the second field of `schedstat`, in nanoseconds.
    """
    waited = 0
    for task in _TASKS.glob("*/schedstat") if _TASKS.is_dir() else ():
        with suppress(OSError):  # a thread that has just ended
            waited += int(task.read_text().split()[1])
    return waited / 1e9


def _run_window(lanes: Sequence[Lane], pace: Pace, started: float) -> None:
    for lane in lanes:
        lane.starts.append(len(lane.blocks))
    begun, is_first = perf_counter(), True
    while is_first or perf_counter() - begun < pace.window_seconds:
        # Each side goes first as often as the other.
        for lane in lanes if len(lanes[0].blocks) % 2 else reversed(lanes):
            with attributed(lane.entrant.side):
                lane.run_block()
        is_first = False
        if _is_over(lanes, pace, perf_counter() - started):
            break
    for lane in lanes:
        lane.windows.append(window_of(lane.blocks[lane.starts[-1] :]))


def _is_over(lanes: Sequence[Lane], pace: Pace, elapsed_seconds: float) -> bool:
    if elapsed_seconds >= pace.most_seconds:
        return all(lane.blocks for lane in lanes)
    return elapsed_seconds >= pace.seconds and all(lane.calls >= pace.min_calls for lane in lanes)


def _calls_per_block(entrant: Entrant, warm_up_seconds: float) -> int:
    with attributed(entrant.side):
        call_seconds = warm_up(entrant.call, warm_up_seconds)
    return max(1, min(_BLOCK_CALLS, int(_BLOCK_SECONDS / max(call_seconds, 1e-7))))
