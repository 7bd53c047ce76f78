"""What was asked and answered, kept for drift checks: a bounded buffer, emptied by a thread of its own.

Inference calls `record` after each answer. It never blocks, awaits or raises for a full disk: what
does not fit or cannot be written is dropped and counted, and logging resumes by itself.
"""

import errno
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from random import Random
from typing import Protocol

from serving.core.clock import Clock
from serving.core.datatypes import Array
from serving.core.model import TensorSpec, VersionRef
from serving.telemetry.columns import Record
from serving.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

_TRIM_SECONDS = 300.0
_RECORD_BYTES = 600
_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class Dropped(StrEnum):
    """Why rows are missing from the log; label of the metric."""

    BUFFER_FULL = "buffer_full"
    DISK_FULL = "disk_full"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the buffer may hold, and when it is emptied."""

    rows: int = 50_000
    size_bytes: int = 64 << 20
    flush_rows: int = 5_000
    flush_seconds: float = 8.0


class Parts(Protocol):
    """Where records go: `serving.telemetry.parts` on disk."""

    def write(self, records: Sequence[Record]) -> None: ...

    def trim(self, now: datetime) -> None: ...

    def prepare(self) -> None:
        """What writing takes that is better done before the first rows wait for it."""
        ...


def first_axis_is_batch(inputs: tuple[TensorSpec, ...]) -> bool:
    """Whether every input's first axis varies in length: then each of its entries is a row of the log."""
    return bool(inputs) and all(spec.dims and spec.dims[0] == -1 for spec in inputs)


class InferenceLog:
    """`record` belongs to one thread, the event loop's; everything else happens on the log's own."""

    def __init__(
        self,
        parts: Parts,
        metrics: Metrics,
        clock: Clock,
        *,
        sampling_ratio: float,
        chance: Random,
        on_trouble: Callable[[str, str], None],
        bounds: Bounds | None = None,
    ) -> None:
        self._parts = parts
        self._clock = clock
        self._sampling_ratio = sampling_ratio
        self._chance = chance
        self._on_trouble = on_trouble
        self._bounds = bounds or Bounds()
        self._written = metrics.log_rows
        self._dropped = {reason: metrics.log_dropped.labels(str(reason)) for reason in Dropped}
        self._waiting: deque[tuple[Record, int]] = deque()
        # Each counter has one writing thread, so that neither side ever waits for a lock.
        self._taken_rows = self._taken_bytes = 0
        self._settled_rows = self._settled_bytes = 0
        self._picked_rows = 0
        self._wake = threading.Event()
        self._closing = False
        self._troubles: set[tuple[str, str]] = set()
        self._trim_at = float("-inf")
        self._thread = threading.Thread(target=self._run, name="inference-log", daemon=True)

    def start(self) -> None:
        """Begin to write; with a sampling ratio of 0 there is nothing to do."""
        if self._sampling_ratio > 0:
            self._thread.start()

    def close(self, timeout_seconds: float = 10.0) -> None:
        """Write what was accepted; gives up on a disk that hangs."""
        self._closing = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout_seconds)

    def record(
        self,
        ref: VersionRef,
        request_id: str,
        variant: str,
        status: str,
        latency_seconds: float,
        inputs: Mapping[str, Array],
        outputs: Mapping[str, Array],
        first_axis_is_batch: bool,
    ) -> None:
        """Note one answered request. The arrays are kept, not copied: nobody may write to them any more."""
        if self._sampling_ratio < 1.0 and self._chance.random() >= self._sampling_ratio:
            return
        rows = _batch_rows(inputs) if first_axis_is_batch else None
        count = 1 if rows is None else rows
        size_bytes = _RECORD_BYTES
        for arrays in (inputs, outputs):
            for array in arrays.values():
                size_bytes += array.nbytes if not array.dtype.hasobject else _text_bytes(array)
        waiting_rows = self._taken_rows - self._settled_rows + count
        waiting_bytes = self._taken_bytes - self._settled_bytes + size_bytes
        if waiting_rows > self._bounds.rows or waiting_bytes > self._bounds.size_bytes:
            self._dropped[Dropped.BUFFER_FULL].inc(count)
            return
        self._taken_rows += count
        self._taken_bytes += size_bytes
        at = self._clock.now()
        record = Record(at, ref, request_id, variant, status, latency_seconds, inputs, outputs, rows)
        self._waiting.append((record, size_bytes))
        # Rows being written count no more, or each record meanwhile would ask for a part of its own.
        is_due = self._taken_rows - self._picked_rows >= self._bounds.flush_rows
        if is_due and not self._wake.is_set():
            self._wake.set()

    def _run(self) -> None:
        self._parts.prepare()
        while not self._closing:
            self._wake.wait(self._bounds.flush_seconds)
            self._wake.clear()
            self._flush()
            self._trim()
        self._flush()

    def _flush(self) -> None:
        for batch in self._batches():
            by_ref: dict[VersionRef, list[Record]] = {}
            for record, _ in batch:
                by_ref.setdefault(record.ref, []).append(record)
            for ref, records in by_ref.items():
                self._write(ref, records)
            self._settled_rows += sum(_count(record) for record, _ in batch)
            self._settled_bytes += sum(size_bytes for _, size_bytes in batch)

    def _batches(self) -> Iterator[list[tuple[Record, int]]]:
        """What waits now, in pieces of bounded size."""
        for _ in range(len(self._waiting) + 1):
            batch, rows = [], 0
            while self._waiting and rows < self._bounds.flush_rows:
                batch.append(self._waiting.popleft())
                rows += _count(batch[-1][0])
            if not batch:
                return
            self._picked_rows += rows
            yield batch
            if self._taken_rows - self._picked_rows < self._bounds.flush_rows and not self._closing:
                return  # what came while this was written waits for its own turn, to make a part worth it

    def _write(self, ref: VersionRef, records: Sequence[Record]) -> None:
        rows = sum(map(_count, records))
        try:
            if rows:
                self._parts.write(records)
        except OSError as error:
            full = error.errno in _DISK_FULL
            self._lost(ref, rows, Dropped.DISK_FULL if full else Dropped.FAILED, error)
        except Exception as error:  # one model's odd tensor must not end the log of the others
            self._lost(ref, rows, Dropped.FAILED, error)
        else:
            self._written.inc(rows)
            self._recovered(ref)

    def _lost(self, ref: VersionRef, rows: int, reason: Dropped, error: Exception) -> None:
        """Count it, and say it once until rows of that model are written again."""
        self._dropped[reason].inc(rows)
        trouble = (ref.model, f"{reason}:{type(error).__name__}")
        if trouble in self._troubles:
            return
        self._troubles.add(trouble)
        log.error("log_rows_dropped model=%s reason=%s error=%r", ref.model, reason, error)
        self._on_trouble(ref.model, f"{reason}: {error}")

    def _recovered(self, ref: VersionRef) -> None:
        over = {trouble for trouble in self._troubles if trouble[0] == ref.model}
        if over:
            self._troubles -= over
            log.info("log_resumed model=%s", ref.model)

    def _trim(self) -> None:
        now = self._clock.monotonic()
        if now < self._trim_at:
            return
        self._trim_at = now + _TRIM_SECONDS
        try:
            self._parts.trim(self._clock.now())
        except OSError as error:
            log.warning("log_not_trimmed error=%s", error)


def _count(record: Record) -> int:
    return 1 if record.rows is None else record.rows


def _batch_rows(inputs: Mapping[str, Array]) -> int | None:
    """Length of the axis all inputs share; None where they share none."""
    if len(inputs) == 1:
        [array] = inputs.values()
        return array.shape[0] if array.ndim else None
    lengths = {array.shape[0] if array.ndim else None for array in inputs.values()}
    return lengths.pop() if len(lengths) == 1 else None


def _text_bytes(array: Array) -> int:
    return array.nbytes + sum(map(len, array.flat))
