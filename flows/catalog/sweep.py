"""Throughput at growing batches, and in sessions of one thread and more: candidate and champion in turn.

Called by `flows.catalog.load_test`. What there is no time for is left out, never guessed.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from flows.catalog.facts import Side
from flows.catalog.performance import BatchPoint, ThreadPoint
from flows.catalog.race import Entrant, Lane, Pace, race
from flows.catalog.subject import Subject
from serving.core.datatypes import Array
from serving.formats.loader import load

_BATCH_BYTES = 256 << 20
_EVERY_COUNT_UP_TO = 4
_WINDOWS = 3
_MIN_CALLS = 3


def batch_sizes(largest: int) -> list[int]:
    """1, 2, 4, ... up to and with `largest`."""
    sizes = [1 << power for power in range(largest.bit_length()) if 1 << power <= largest]
    return sizes if sizes[-1] == largest else [*sizes, largest]


def thread_counts(cpus: int) -> list[int]:
    """Every count on a small machine; on a large one doublings and all CPUs."""
    counts = set(range(1, min(cpus, _EVERY_COUNT_UP_TO) + 1)) | set(batch_sizes(cpus))
    return sorted(counts)


def batch_of(subject: Subject, inputs: Mapping[str, Array], rows: int) -> dict[str, Array]:
    """`rows` rows in the order recorded, over and over; the inputs as they are where rows cannot be told."""
    own = subject.own(inputs)
    if not subject.is_batched:
        return own
    return {name: array[np.arange(rows) % len(array)] for name, array in own.items()}


def fits(batch: Mapping[str, Array]) -> bool:
    return sum(array.nbytes for array in batch.values()) <= _BATCH_BYTES


def entrant(subject: Subject, batch: Mapping[str, Array]) -> Entrant:
    return Entrant(subject.side, lambda: subject.model.predict(batch))


def batch_points(
    subjects: Sequence[Subject], inputs: Mapping[str, Array], rows: int, seconds: float, most_seconds: float
) -> dict[Side, BatchPoint]:
    """Each side's figures at one size. Raises `Faltered`."""
    heat = race([entrant(s, batch_of(s, inputs, rows)) for s in subjects], _pace(seconds, most_seconds))
    return {side: batch_point(rows, lane) for side, lane in heat.lanes.items()}


def thread_points(
    subjects: Sequence[Subject],
    inputs: Mapping[str, Array],
    rows: int,
    threads: int,
    seconds: float,
    most_seconds: float,
) -> dict[Side, ThreadPoint]:
    """Each side's figures in sessions of `threads` threads made for this. Raises `Faltered`."""
    with contextlib.ExitStack() as stack:
        sessions = [stack.enter_context(_session(subject, threads)) for subject in subjects]
        return points_as_loaded(sessions, inputs, rows, threads, seconds, most_seconds)


def points_as_loaded(
    subjects: Sequence[Subject],
    inputs: Mapping[str, Array],
    rows: int,
    threads: int,
    seconds: float,
    most_seconds: float,
) -> dict[Side, ThreadPoint]:
    """The same for sessions that have that number of threads already."""
    found = batch_points(subjects, inputs, rows, seconds, most_seconds)
    return {
        side: ThreadPoint(threads, rows, point.p50_ms, point.rows_per_second) for side, point in found.items()
    }


@contextmanager
def _session(subject: Subject, threads: int) -> Iterator[Subject]:
    model = load(subject.artifact, threads)
    try:
        yield replace(subject, model=model)
    finally:
        model.close()


def _pace(seconds: float, most_seconds: float) -> Pace:
    return Pace(
        seconds=seconds,
        most_seconds=most_seconds,
        window_seconds=seconds / _WINDOWS,
        min_calls=_MIN_CALLS,
    )


def batch_point(rows: int, lane: Lane) -> BatchPoint:
    """A course of calls with `rows` rows each. The rate is that of the half of its blocks that had to wait
    least for a CPU: the others tell how busy the machine was.
    """
    times_ms = np.concatenate(lane.blocks)
    quieter = sorted(zip(lane.waits, lane.blocks, strict=True), key=lambda pair: pair[0])
    quieter = quieter[: -(-len(quieter) // 2)]
    rates = [1000 * rows * len(block) / float(block.sum()) for _, block in quieter]
    return BatchPoint(
        rows=rows,
        p50_ms=float(np.median(times_ms)),
        p95_ms=float(np.quantile(times_ms, 0.95)),
        rows_per_second=float(np.median(rates)),
        best_rows_per_second=max(rates),
    )
