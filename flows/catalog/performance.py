"""What a benchmark measured of a version, and of the one beside it; no judgement.

Filled step by step by `flows.catalog.load_test` in a process of its own, read by `flows.catalog.rating`.
Throughput is in rows per second. None stands for what was not looked at or not reached.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from flows.catalog.facts import Source, Step


class Statistic(StrEnum):
    """Of single-row latency; what candidate and champion are compared by."""

    MEAN = "mean"
    P50 = "p50"
    P95 = "p95"


@dataclass(frozen=True, slots=True)
class Estimate:
    """A measured value and its 95 % bootstrap interval over blocks of calls."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class LatencyMs:
    """Milliseconds of single calls with one row."""

    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    p999: float


@dataclass(frozen=True, slots=True)
class MemoryMb:
    """Growth of a clean process: by loading alone; after single rows and the largest batch; at most."""

    load: float
    peak: float
    resident: float


@dataclass(frozen=True, slots=True)
class BatchPoint:
    """Calls with `rows` rows each. `best_rows_per_second` is that of the quickest block of calls."""

    rows: int
    p50_ms: float
    p95_ms: float
    rows_per_second: float
    best_rows_per_second: float


@dataclass(frozen=True, slots=True)
class ThreadPoint:
    """Calls with `rows` rows each, in a session of its own with `threads` threads."""

    threads: int
    rows: int
    p50_ms: float
    rows_per_second: float


@dataclass(frozen=True, slots=True)
class Gpu:
    """Use of the first GPU while the calls ran; `memory_mb` is this process's."""

    name: str
    busy_ratio: float
    memory_mb: float


@dataclass(frozen=True, slots=True)
class Performance:
    """One version's figures; `problem` says why there are none, or no more.

    `cpu_ratio` is CPU seconds per second of calling: above 1 where a call keeps several cores busy.
    `unhindered_p95_ms` leaves out what the calls waited for a CPU that others had.
    """

    version: str
    problem: str | None = None
    format: str | None = None
    digest: str | None = None
    load_seconds: float | None = None
    first_call_ms: float | None = None
    memory_mb: MemoryMb | None = None
    latency_ms: LatencyMs | None = None
    p95: Estimate | None = None
    unhindered_p95_ms: float | None = None
    calls: int = 0
    cpu_ratio: float | None = None
    batches: tuple[BatchPoint, ...] = ()
    threads: tuple[ThreadPoint, ...] = ()

    @property
    def best_batch(self) -> BatchPoint | None:
        """The batch with the highest throughput."""
        return max(self.batches, key=lambda point: point.rows_per_second, default=None)

    @property
    def throughput_per_second(self) -> float | None:
        best = self.best_batch
        return best.rows_per_second if best else None


@dataclass(frozen=True, slots=True)
class Findings:
    """Both sides. `ratios` are candidate to champion, from calls taken in turn.

    `is_stable` is None before anything was timed. `interrupted` says how the measuring process ended
    if it did not finish, `is_late` that it ran out of time; `step` is then what it was doing.
    """

    candidate: Performance | None = None
    champion: Performance | None = None
    ratios: Mapping[Statistic, Estimate] = field(default_factory=dict)
    source: Source | None = None
    is_stable: bool | None = None
    gpu: Gpu | None = None
    step: Step | None = None
    interrupted: str | None = None
    is_late: bool = False
