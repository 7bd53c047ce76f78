"""Counts and times of every version, as Triton's statistics extension reports them.

Plain integers, written on the event loop's thread for every answer; reading them costs the reader.
"""

from dataclasses import dataclass, field

from serving.core.model import VersionRef

_MAX_VERSIONS = 1024
_MAX_BATCH_SIZES = 64


@dataclass(slots=True)
class Sum:
    """How often, and nanoseconds in total."""

    count: int = 0
    ns: int = 0

    def add(self, ns: int) -> None:
        self.count += 1
        self.ns += ns if ns > 0 else 0


@dataclass(slots=True)
class BatchTimes:
    """The executions of one batch size."""

    compute_input: Sum = field(default_factory=Sum)
    compute_infer: Sum = field(default_factory=Sum)
    compute_output: Sum = field(default_factory=Sum)


@dataclass(slots=True)
class Spent:
    """Where one answered request's time went, in nanoseconds.

    `rows` are its own; `executed_rows` all of the execution that answered it, which one request `leads`.
    """

    rows: int
    executed_rows: int
    leads: bool
    input_ns: int
    queue_ns: int
    infer_ns: int
    total_ns: int


@dataclass(slots=True)
class VersionStatistics:
    """`inferences` counts rows, `executions` runs of the model."""

    last_inference_ms: int = 0
    inferences: int = 0
    executions: int = 0
    success: Sum = field(default_factory=Sum)
    fail: Sum = field(default_factory=Sum)
    queue: Sum = field(default_factory=Sum)
    compute_input: Sum = field(default_factory=Sum)
    compute_infer: Sum = field(default_factory=Sum)
    compute_output: Sum = field(default_factory=Sum)
    batches: dict[int, BatchTimes] = field(default_factory=dict)

    def succeeded(self, spent: Spent, at_ms: int) -> None:
        self.last_inference_ms = at_ms
        self.inferences += spent.rows
        self.executions += spent.leads
        self.success.add(spent.total_ns)
        self.queue.add(spent.queue_ns)
        self.compute_input.add(spent.input_ns)
        self.compute_infer.add(spent.infer_ns)
        if not spent.leads:
            return
        batch = self.batches.get(spent.executed_rows)
        if batch is None:
            if len(self.batches) >= _MAX_BATCH_SIZES:  # callers choose batch sizes; memory is ours
                return
            batch = self.batches[spent.executed_rows] = BatchTimes()
        batch.compute_input.add(spent.input_ns)
        batch.compute_infer.add(spent.infer_ns)

    def rendered(self, rows: int, ns: int) -> None:
        """Account the encoding of an answer, which happens after it was counted as one."""
        self.compute_output.add(ns)
        self.success.ns += ns
        if (batch := self.batches.get(rows)) is not None:
            batch.compute_output.add(ns)


class Statistics:
    """By version; a version keeps its numbers while it is out of memory."""

    def __init__(self) -> None:
        self._versions: dict[VersionRef, VersionStatistics] = {}

    def of(self, ref: VersionRef) -> VersionStatistics:
        found = self._versions.get(ref)
        if found is None:
            if len(self._versions) >= _MAX_VERSIONS:
                del self._versions[next(iter(self._versions))]
            found = self._versions[ref] = VersionStatistics()
        return found
