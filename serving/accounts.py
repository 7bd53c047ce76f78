"""What is noted of every inference request once it has ended: telemetry, statistics, the inference log.

Called on the request path, after the answer is known and before it is sent, so nothing here waits.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from serving.batcher import Timing
from serving.core.clock import Clock
from serving.core.model import Variant, VersionRef
from serving.pool import LoadedVersion
from serving.shadow import Copied, Copy
from serving.telemetry.counters import Statistics
from serving.telemetry.inference_log import InferenceLog, first_axis_is_batch
from serving.telemetry.recorder import Recorder


@dataclass(slots=True, eq=False)
class Answer:
    """Outputs, and who gave them. `alias` is the one the request was routed by, if any.

    `timing` is of the execution that gave them; its `rows` are the batch size. `copies` are for other
    versions, once this was sent.
    """

    outputs: dict[str, np.ndarray]
    version: LoadedVersion
    variant: Variant
    alias: str | None
    timing: Timing | None = None
    copies: tuple[Copy, ...] = ()

    @property
    def rows(self) -> int:
        return self.timing.rows if self.timing is not None else 1


@dataclass(slots=True)
class Times:
    """Of one request, in nanoseconds of the performance counter: its arrival, and what reading it took."""

    arrived_ns: int
    read_ns: int


class Accounts:
    """Confined to the event loop's thread."""

    def __init__(
        self, recorder: Recorder, inference_log: InferenceLog, statistics: Statistics, clock: Clock
    ) -> None:
        self._recorder = recorder
        self._log = inference_log
        self._statistics = statistics
        self._clock = clock

    def settle(
        self,
        answer: Answer,
        status: str,
        inputs: Mapping[str, np.ndarray],
        request_id: str,
        times: Times,
        *,
        is_batched: bool,
    ) -> None:
        """Account one request that ended with `status`, to the version that answered or failed to."""
        ref, total_ns = answer.version.ref, time.perf_counter_ns() - times.arrived_ns
        seconds = (total_ns - times.read_ns) * 1e-9
        self._recorder.answered(ref, answer.variant, status, seconds, answer.rows, answer.timing)
        self._count(answer, status, times.read_ns, total_ns)
        if answer.variant is not Variant.PROBE:
            variant, outputs = answer.variant, answer.outputs
            self._log.record(ref, request_id, variant, status, seconds, inputs, outputs, is_batched)

    def settle_whole(
        self,
        ref: VersionRef,
        variant: Variant,
        inputs: Mapping[str, np.ndarray],
        outputs: Mapping[str, np.ndarray],
        timing: Timing,
        arrived_ns: int,
        rendered_ns: int,
        request_id: str,
        *,
        is_batched: bool,
    ) -> None:
        """Account one answered request whose answer is written already: `settle` and `rendered` in one.

        It was read from `arrived_ns` until its execution was asked for.
        """
        read_ns = timing.asked_ns - arrived_ns
        total_ns = time.perf_counter_ns() - arrived_ns - rendered_ns
        seconds = (total_ns - read_ns) * 1e-9
        at = self._clock.now().timestamp()
        self._recorder.answered(ref, variant, "ok", seconds, timing.rows, timing, at)
        self._statistics.of(ref).count_whole(
            self._clock.monotonic(),
            timing.rows,
            input_ns=read_ns,
            queue_ns=timing.begun_ns - timing.asked_ns,
            infer_ns=timing.done_ns - timing.begun_ns,
            output_ns=rendered_ns,
            total_ns=total_ns,
        )
        self._log.record(ref, request_id, variant, "ok", seconds, inputs, outputs, is_batched, at)

    def copied(
        self, version: LoadedVersion, copied: Copied, inputs: Mapping[str, np.ndarray], timing: Timing
    ) -> None:
        """Account a copy to the version that got it: in telemetry, and in the log beside its original."""
        is_batched = first_axis_is_batch(version.model.inputs)
        outputs = copied.outputs if copied.outputs is not None else {}
        status, request_id = "failed" if copied.outputs is None else "ok", copied.given.request_id
        seconds, variant = max(0.0, copied.seconds), Variant.SHADOW
        rows = len(next(iter(inputs.values()))) if is_batched else 1
        self._recorder.answered(version.ref, variant, status, seconds, rows, timing)
        self._log.record(version.ref, request_id, variant, status, seconds, inputs, outputs, is_batched)

    def rendered(self, answer: Answer, began_ns: int) -> None:
        """Account the time since `began_ns`, spent on encoding the answer."""
        ns = time.perf_counter_ns() - began_ns
        executed_rows = answer.timing.executed_rows if answer.timing is not None else answer.rows
        self._statistics.of(answer.version.ref).count_rendered(executed_rows, ns)

    def _count(self, answer: Answer, status: str, read_ns: int, total_ns: int) -> None:
        statistics = self._statistics.of(answer.version.ref)
        timing = answer.timing
        if status == "ok" and timing is not None:
            infer_ns = timing.done_ns - timing.begun_ns
            statistics.count(
                self._clock.monotonic(),
                answer.rows,
                input_ns=read_ns,
                queue_ns=timing.begun_ns - timing.asked_ns,
                infer_ns=infer_ns,
                total_ns=total_ns,
            )
            if timing.leads:
                statistics.count_execution(timing.executed_rows, read_ns, infer_ns)
        elif status != "cancelled":
            statistics.count_failed(total_ns)
