"""Counts and times by version: what is added comes out, and callers cannot make them grow."""

from serving.core.clock import ManualClock
from serving.core.model import VersionRef
from serving.telemetry.counters import Statistics

REF = VersionRef("digits", "2")


def test_answered_and_failed_requests_are_counted_apart() -> None:
    """Rows beside requests beside executions; the encoding of an answer is added when it is known."""
    counted = Statistics(ManualClock()).of(REF)
    counted.count(1.0, 4, input_ns=1, queue_ns=2, infer_ns=3, total_ns=10)
    counted.count(2.0, 4, input_ns=1, queue_ns=2, infer_ns=3, total_ns=10)
    counted.count_execution(8, 2, 6)
    counted.count_rendered(8, 5)
    counted.count_failed(7)
    assert (counted.answered, counted.rows, counted.executions, counted.total_ns) == (2, 8, 1, 25)
    assert (counted.input_ns, counted.queue_ns, counted.infer_ns) == (2, 4, 6)
    assert (counted.rendered, counted.output_ns) == (1, 5)
    assert (counted.failed, counted.failed_ns) == (1, 7)
    batch = counted.batches[8]
    assert (batch.answered, batch.infer_ns, batch.rendered, batch.output_ns) == (1, 6, 1, 5)


def test_batch_sizes_are_bounded_when_callers_invent_them() -> None:
    """What is beyond is counted in the whole only."""
    counted = Statistics(ManualClock()).of(REF)
    for rows in range(1, 200):
        counted.count_execution(rows, 0, 0)
        counted.count_rendered(rows, 1)
    assert len(counted.batches) == 64
    assert (counted.executions, counted.rendered) == (199, 199)


def test_versions_are_bounded_when_there_are_very_many() -> None:
    """The one that came first goes first."""
    statistics = Statistics(ManualClock())
    first = statistics.of(REF)
    assert statistics.of(REF) is first
    for number in range(1024):
        statistics.of(VersionRef("other", str(number)))
    assert statistics.of(REF) is not first


def test_last_inference_is_told_in_wall_time() -> None:
    """Although it was noted on the monotonic clock; 0 for never."""
    clock = ManualClock()
    statistics = Statistics(clock)
    assert statistics.last_inference_ms(REF) == 0
    moment = clock.now()
    statistics.of(REF).count(clock.monotonic(), 1, input_ns=0, queue_ns=0, infer_ns=0, total_ns=0)
    clock.advance(90)
    assert statistics.last_inference_ms(REF) == round(moment.timestamp() * 1000)
