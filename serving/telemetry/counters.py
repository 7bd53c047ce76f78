"""Counts and times of every version, as Triton's statistics extension reports them.

Plain integers, written on the event loop's thread for every answer; reading them costs the reader.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from serving.core.clock import Clock
from serving.core.model import VersionRef

_MAX_VERSIONS = 1024
_MAX_BATCH_SIZES = 64


@dataclass(slots=True)
class BatchTimes:
    """The executions of one batch size, and the answers sent from them."""

    answered: int = 0
    input_ns: int = 0
    infer_ns: int = 0
    rendered: int = 0
    output_ns: int = 0


@dataclass(slots=True)
class VersionStatistics:
    """Requests by outcome, `rows` in the answered ones, and where their time went.

    `total_ns` holds the other times of answered requests. `last_at` is on the monotonic clock.
    """

    answered: int = 0
    failed: int = 0
    rows: int = 0
    executions: int = 0
    total_ns: int = 0
    failed_ns: int = 0
    queue_ns: int = 0
    input_ns: int = 0
    infer_ns: int = 0
    rendered: int = 0
    output_ns: int = 0
    last_at: float | None = None
    batches: dict[int, BatchTimes] = field(default_factory=dict)

    def count(
        self, at: float, rows: int, *, input_ns: int, queue_ns: int, infer_ns: int, total_ns: int
    ) -> None:
        """Account one answered request of `rows` rows."""
        self.last_at = at
        self.answered += 1
        self.rows += rows
        self.total_ns += total_ns
        self.queue_ns += queue_ns
        self.input_ns += input_ns
        self.infer_ns += infer_ns

    def count_execution(self, rows: int, input_ns: int, infer_ns: int) -> None:
        """Account one run of the model over `rows` rows, of however many requests."""
        self.executions += 1
        batch = self.batches.get(rows)
        if batch is None:
            if len(self.batches) >= _MAX_BATCH_SIZES:  # callers choose batch sizes; memory is ours
                return
            batch = self.batches[rows] = BatchTimes()
        batch.answered += 1
        batch.input_ns += input_ns
        batch.infer_ns += infer_ns

    def count_whole(
        self,
        at: float,
        rows: int,
        *,
        input_ns: int,
        queue_ns: int,
        infer_ns: int,
        output_ns: int,
        total_ns: int,
    ) -> None:
        """Account an answered request with an execution of its own, its answer written: all in one.

        `total_ns` is without `output_ns`.
        """
        self.last_at = at
        self.answered += 1
        self.rows += rows
        self.executions += 1
        self.rendered += 1
        self.total_ns += total_ns + output_ns
        self.queue_ns += queue_ns
        self.input_ns += input_ns
        self.infer_ns += infer_ns
        self.output_ns += output_ns
        batch = self.batches.get(rows)
        if batch is None:
            if len(self.batches) >= _MAX_BATCH_SIZES:
                return
            batch = self.batches[rows] = BatchTimes()
        batch.answered += 1
        batch.input_ns += input_ns
        batch.infer_ns += infer_ns
        batch.rendered += 1
        batch.output_ns += output_ns

    def count_failed(self, ns: int) -> None:
        self.failed += 1
        self.failed_ns += ns

    def count_rendered(self, rows: int, ns: int) -> None:
        """Account the encoding of an answer, which happens after it was counted as one."""
        self.rendered += 1
        self.output_ns += ns
        self.total_ns += ns
        if (batch := self.batches.get(rows)) is not None:
            batch.rendered += 1
            batch.output_ns += ns

    def add(self, told: Mapping[str, Any]) -> None:
        """Account what another process of this machine counted, as `Statistics.as_json` has it."""
        _add(self, told, but=("batches", "last_at"))
        moments = [at for at in (self.last_at, told["last_at"]) if at is not None]
        self.last_at = max(moments, default=None)
        for rows, times in told["batches"].items():
            _add(self.batches.setdefault(int(rows), BatchTimes()), times, but=())


def _add(counted: VersionStatistics | BatchTimes, told: Mapping[str, Any], but: Iterable[str]) -> None:
    for name in (each.name for each in fields(counted) if each.name not in but):
        setattr(counted, name, getattr(counted, name) + told[name])


class Statistics:
    """By version; a version keeps its numbers while it is out of memory."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._versions: dict[VersionRef, VersionStatistics] = {}
        # By the identity of a version's reference, which is quicker to look up than its name.
        self._latest: dict[int, tuple[VersionRef, VersionStatistics]] = {}

    def of(self, ref: VersionRef) -> VersionStatistics:
        latest = self._latest.get(id(ref))
        if latest is not None and latest[0] is ref:
            return latest[1]
        found = self._versions.get(ref)
        if found is None:
            if len(self._versions) >= _MAX_VERSIONS:
                del self._versions[next(iter(self._versions))]
                self._latest.clear()
            found = self._versions[ref] = VersionStatistics()
        if len(self._latest) >= _MAX_VERSIONS:
            self._latest.clear()
        self._latest[id(ref)] = (ref, found)
        return found

    def as_json(self) -> list[dict[str, Any]]:
        return [
            {"model": ref.model, "version": ref.version, "counted": asdict(counted)}
            for ref, counted in self._versions.items()
        ]

    def with_others(self, told: Iterable[list[dict[str, Any]]]) -> "Statistics":
        """The sums of these and of what other processes told."""
        together = Statistics(self._clock)
        for entry in [*self.as_json(), *(entry for entries in told for entry in entries)]:
            together.of(VersionRef(entry["model"], entry["version"])).add(entry["counted"])
        return together

    def last_inference_ms(self, ref: VersionRef) -> int:
        """When the version last answered, in milliseconds since 1970; 0 for never."""
        last_at = self.of(ref).last_at
        if last_at is None:
            return 0
        ago_seconds = self._clock.monotonic() - last_at
        return int((self._clock.now().timestamp() - ago_seconds) * 1000)
