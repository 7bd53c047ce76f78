"""What was asked and answered, kept for drift checks: bounded sheaves, emptied by a thread of its own.

Inference calls `record` after each answer. It never blocks, awaits or raises for a full disk: what
does not fit or cannot be written is dropped and counted, and logging resumes by itself.
"""

import errno
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from random import Random
from typing import Protocol

from serving.core.clock import Clock
from serving.core.datatypes import Array
from serving.core.model import TensorSpec, VersionRef
from serving.telemetry.metrics import Metrics
from serving.telemetry.sheaf import Bundle, Sheaf, batch_rows, held_bytes

log = logging.getLogger(__name__)

_TRIM_SECONDS = 300.0
_REQUEST_BYTES = 200
_SHEAF_BYTES = 2000
# So much of large tensors is not kept for long: it is memory that the next requests would find warm.
_CONDENSE_BYTES = 4 << 20
# Callers choose shapes, and each makes a sheaf of its own.
_MAX_SHEAVES = 64
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
    """Where rows go: `serving.telemetry.parts` on disk."""

    def condensed(self, bundle: Bundle) -> Bundle:
        """The bundle without its large tensors: their memory is worth more to the next requests."""
        ...

    def write(self, bundles: Sequence[Bundle]) -> None: ...

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
        self._sheaves: dict[object, Sheaf] = {}
        # By the identity of a version's reference, which is quicker to look up than its name.
        self._latest: dict[int, Sheaf] = {}
        # Each counter has one writing thread, so that neither side ever waits for a lock.
        self._taken_rows = self._taken_bytes = 0
        self._settled_rows = self._settled_bytes = 0
        self._picked_rows = self._picked_bytes = 0
        self._pending: dict[VersionRef, list[Bundle]] = {}
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

    @property
    def waiting_rows(self) -> int:
        """Rows that were accepted and are neither written nor lost."""
        return self._taken_rows - self._settled_rows

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
        at: float | None = None,
    ) -> None:
        """Note one answered request, of now where `at` is not given in seconds since 1970.

        Large arrays are kept, not copied: nobody may write to them any more.
        """
        if self._sampling_ratio < 1.0 and self._chance.random() >= self._sampling_ratio:
            return
        sheaf = self._latest.get(id(ref))
        # Of a request like the last one all is known but its numbers.
        if sheaf is not None and sheaf.repeats(ref, variant, status, first_axis_is_batch, inputs, outputs):
            count, size_bytes = sheaf.rows or 1, _REQUEST_BYTES + sheaf.tensor_bytes
        else:
            rows = batch_rows(inputs) if first_axis_is_batch else None
            if rows == 0:
                return
            count = 1 if rows is None else rows
            size_bytes = _REQUEST_BYTES + held_bytes(inputs) + held_bytes(outputs)
            if sheaf is None or not sheaf.takes(ref, variant, status, rows, inputs, outputs):
                sheaf = self._sheaf(ref, variant, status, rows, inputs, outputs)
                size_bytes += _SHEAF_BYTES if sheaf.is_empty else 0
        bounds = self._bounds
        taken_rows, taken_bytes = self._taken_rows + count, self._taken_bytes + size_bytes
        waiting_rows, waiting_bytes = taken_rows - self._settled_rows, taken_bytes - self._settled_bytes
        if waiting_rows > bounds.rows or waiting_bytes > bounds.size_bytes:
            self._dropped[Dropped.BUFFER_FULL].inc(count)
            return
        self._taken_rows, self._taken_bytes = taken_rows, taken_bytes
        at = self._clock.now().timestamp() if at is None else at
        sheaf.add(at, request_id, latency_seconds, inputs, outputs, size_bytes)
        # Rows being written count no more, or each request meanwhile would ask for a part of its own.
        is_due = taken_rows - self._picked_rows >= bounds.flush_rows
        is_heavy = taken_bytes - self._picked_bytes >= _CONDENSE_BYTES
        if (is_due or is_heavy) and not self._wake.is_set():
            self._wake.set()

    def _sheaf(
        self,
        ref: VersionRef,
        variant: str,
        status: str,
        rows: int | None,
        inputs: Mapping[str, Array],
        outputs: Mapping[str, Array],
    ) -> Sheaf:
        """Where such a request goes; the next one most likely is alike."""
        forms = [(name, each.dtype, each.shape) for name, each in (*inputs.items(), *outputs.items())]
        key = (ref, variant, status, rows, len(inputs), *forms)
        sheaf = self._sheaves.get(key)
        if sheaf is None:
            if len(self._sheaves) >= _MAX_SHEAVES:
                # Whoever adds is here, so what is empty stays so; nothing may be added to it afterwards.
                self._sheaves = {known: each for known, each in self._sheaves.items() if not each.is_empty}
                self._latest.clear()
            sheaf = self._sheaves[key] = Sheaf(ref, variant, status, rows, inputs, outputs)
        if len(self._latest) >= _MAX_SHEAVES:
            self._latest.clear()
        self._latest[id(ref)] = sheaf
        return sheaf

    def _run(self) -> None:
        self._parts.prepare()
        while not self._closing:
            write_at = time.monotonic() + self._bounds.flush_seconds
            while (left_seconds := write_at - time.monotonic()) > 0 and not self._closing:
                self._wake.wait(left_seconds)
                self._wake.clear()
                self._pick()
                if self._pending_rows >= self._bounds.flush_rows:
                    break
            self._flush()
            self._trim()
        self._pick()
        self._flush()

    @property
    def _pending_rows(self) -> int:
        return self._picked_rows - self._settled_rows

    def _pick(self) -> None:
        """Take what is there now; what comes meanwhile waits for its own turn, to make a part worth it."""
        for sheaf in list(self._sheaves.values()):
            while (bundle := sheaf.take(self._bounds.flush_rows)) is not None:
                self._picked_rows += len(bundle)
                self._picked_bytes += bundle.size_bytes
                self._condense(bundle)

    def _condense(self, bundle: Bundle) -> None:
        try:
            small = self._parts.condensed(bundle)
        except Exception as error:  # one model's odd tensor must not end the log of the others
            self._lost(bundle.ref, len(bundle), Dropped.FAILED, error)
            self._settle([bundle])
            return
        self._settled_bytes += bundle.size_bytes - small.size_bytes
        self._pending.setdefault(bundle.ref, []).append(small)

    def _flush(self) -> None:
        """Write what was picked."""
        waiting, self._pending = self._pending, {}
        for ref, bundles in waiting.items():
            for piece in _pieces(bundles, self._bounds.flush_rows):
                self._write(ref, piece)
                self._settle(piece)

    def _settle(self, bundles: Sequence[Bundle]) -> None:
        self._settled_rows += sum(map(len, bundles))
        self._settled_bytes += sum(bundle.size_bytes for bundle in bundles)

    def _write(self, ref: VersionRef, bundles: Sequence[Bundle]) -> None:
        rows = sum(map(len, bundles))
        try:
            self._parts.write(bundles)
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


def _pieces(bundles: Sequence[Bundle], rows: int) -> Iterator[list[Bundle]]:
    """Bundles for one part each, of about so many rows."""
    piece: list[Bundle] = []
    for bundle in bundles:
        if piece and sum(map(len, piece)) + len(bundle) > rows:
            yield piece
            piece = []
        piece.append(bundle)
    yield piece
