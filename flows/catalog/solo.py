"""What one version costs by itself: its first call, and the memory it grows a clean process by.

Called by `flows.catalog.load_test` before anything else is in the process.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from time import perf_counter

from flows.catalog.logbook import Logbook
from flows.catalog.performance import MemoryMb
from flows.catalog.race import attributed, warm_up
from flows.catalog.subject import Subject, resident_bytes
from flows.catalog.sweep import batch_of, batch_sizes, fits
from serving.core.datatypes import Array

_MEGABYTE = 1 << 20
# A batch is measured several times on both sides, and the next one is twice as large.
_CALLS_TO_COME = 16


def cost(
    subject: Subject,
    inputs: Mapping[str, Array],
    largest_batch: int,
    warm_up_seconds: float,
    logbook: Logbook,
) -> list[int]:
    """Note first call and memory; the batch sizes the version takes. Raises `Faltered`."""
    logbook.begin(subject.side, "answering its first calls")
    floor_bytes = resident_bytes() - subject.loaded.grown_bytes
    single = batch_of(subject, inputs, 1)
    with attributed(subject.side):
        begun = perf_counter()
        subject.model.predict(single)
        first_call_ms = (perf_counter() - begun) * 1000
        warm_up(lambda: subject.model.predict(single), warm_up_seconds)
    sizes = _sizes(subject, inputs, largest_batch, logbook)
    warm_bytes = resident_bytes() - floor_bytes
    memory = MemoryMb(
        load=_megabytes(subject.loaded.grown_bytes),
        peak=_megabytes(max(_peak_bytes() - floor_bytes, warm_bytes)),
        resident=_megabytes(warm_bytes),
    )
    known = logbook.of(subject.side)
    logbook.note(subject.side, replace(known, first_call_ms=first_call_ms, memory_mb=memory))
    return sizes


def _sizes(subject: Subject, inputs: Mapping[str, Array], largest_batch: int, logbook: Logbook) -> list[int]:
    """The batches it answers in a time that leaves room for the rest; each is answered once."""
    if not subject.is_batched:
        return [1]
    taken = []
    for rows in batch_sizes(largest_batch):
        batch, begun = batch_of(subject, inputs, rows), perf_counter()
        if not fits(batch):
            break
        logbook.begin(subject.side, f"answering {rows} rows at once")
        if subject.ask(batch).answer.error is not None:
            break
        taken.append(rows)
        if (perf_counter() - begun) * _CALLS_TO_COME > logbook.left_seconds:
            break
    return taken or [1]


def _peak_bytes() -> int:
    """Largest resident size of this program; rusage's may be that of the process that started it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resident_bytes()


def _megabytes(size_bytes: int) -> float:
    return round(max(0, size_bytes) / _MEGABYTE, 2)
