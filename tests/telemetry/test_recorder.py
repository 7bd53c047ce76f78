"""Every answer as one record: counted by second, version and variant, at the cost of an append."""

from datetime import UTC, datetime, timedelta

import pytest

from serving.batcher import Timing
from serving.core.clock import ManualClock
from serving.core.model import Variant, VersionRef
from serving.store.failures import Cause
from serving.store.telemetry import Window
from serving.telemetry import recorder as recording
from serving.telemetry.metrics import Metrics
from serving.telemetry.recorder import Recorder
from tests.logged import counted

REF = VersionRef("digits", "3")


def timing(queue_ms: float = 1.0, compute_ms: float = 2.0, rows: int = 1, *, leads: bool = True) -> Timing:
    begun = int(queue_ms * 1e6)
    done = begun + int(compute_ms * 1e6)
    return Timing(0, begun, done, rows, executed_rows=rows, leads=leads)


class Desk:
    """A recorder, and what it knows."""

    def __init__(self, *, is_on: bool = True) -> None:
        self.clock, self.metrics = ManualClock(), Metrics()
        self.recorder = Recorder(self.metrics, self.clock, worker="w1", is_on=is_on)

    def answer(
        self,
        status: str = "ok",
        *,
        ref: VersionRef = REF,
        variant: str = Variant.CHAMPION,
        seconds: float = 0.01,
        rows: int = 1,
        spent: Timing | None = None,
    ) -> None:
        self.recorder.answered(ref, variant, status, seconds, rows, spent)

    def over(self) -> list[Window]:
        """All seconds so far."""
        self.recorder.settle()
        return self.recorder.take(self.clock.now() + timedelta(seconds=1))

    def counted(self, name: str, **labels: str) -> float:
        return counted(self.metrics, f"signalbox_{name}", **labels)


def cause(fingerprint: str = "abc", at: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> Cause:
    return Cause(
        fingerprint=fingerprint,
        ref=REF,
        error="ValueError",
        place="model.py:forward",
        message="odd",
        inputs="{}",
        request_id="r-1",
        traceback="",
        times=1,
        first_seen_at=at,
        last_seen_at=at,
    )


def test_second_holds_what_happened_in_it() -> None:
    """Counts by status, latency of what was answered, rows, and times of executions."""
    desk = Desk()
    desk.answer(seconds=0.01, rows=2, spent=timing(1, 2, rows=5))
    desk.answer(seconds=0.03, rows=3, spent=timing(3, 2, rows=5, leads=False))
    desk.answer("timeout", seconds=9.0)
    [window] = desk.over()
    stats = window.stats
    assert (window.ref, window.variant, window.worker, window.step_seconds) == (REF, "champion", "w1", 1)
    assert window.start == int(desk.clock.now().timestamp())
    assert (dict(stats.statuses), stats.rows) == ({"ok": 2, "timeout": 1}, 5)
    assert stats.latency_ms(1.0) == pytest.approx(30, rel=0.01)
    assert stats.queue.mean == pytest.approx(0.002)
    assert (stats.compute.count, stats.batches.mean) == (1, 5.0)


def test_seconds_versions_and_variants_are_apart() -> None:
    """Each has a window of its own."""
    desk = Desk()
    desk.answer()
    desk.answer(variant=Variant.CHALLENGER)
    desk.answer(ref=VersionRef("digits", "4"))
    desk.clock.advance(1)
    desk.answer()
    windows = desk.over()
    assert len(windows) == 4
    assert {window.start for window in windows} == {windows[0].start, windows[0].start + 1}


def test_second_is_handed_out_once_and_only_when_it_is_over() -> None:
    """Of the present one more may come; what comes late is handed out by itself."""
    desk = Desk()
    desk.answer()
    desk.recorder.settle()
    assert desk.recorder.take(desk.clock.now()) == []
    desk.answer()
    desk.recorder.settle()
    [window] = desk.recorder.take(desk.clock.now() + timedelta(seconds=1))
    assert window.stats.answered == 2
    assert desk.over() == []


def test_fault_counts_against_its_version_when_another_answered() -> None:
    """The champion's failure and the fallback's answer are two windows."""
    desk = Desk()
    desk.answer(ref=VersionRef("digits", "2"), variant=Variant.FALLBACK)
    desk.recorder.judged(REF, Variant.CHAMPION, failed=True)
    desk.recorder.judged(REF, Variant.CHAMPION, failed=False)
    windows = {window.variant: window.stats for window in desk.over()}
    assert (windows["champion"].faults, windows["champion"].error_ratio) == (1, 1.0)
    assert (windows["fallback"].answered, windows["fallback"].faults) == (1, 0)
    assert desk.metrics.tally(REF).error_ratio == 0.5
    assert desk.counted("inference_faults_total", model="digits", version="3", variant="champion") == 1


def test_cause_is_counted_by_class_and_fingerprint() -> None:
    """In its second, and as one row with its example."""
    desk = Desk()
    for fingerprint in ("abc", "abc", "def"):
        desk.recorder.failed(cause(fingerprint, desk.clock.now()), Variant.CHAMPION)
    [window] = desk.over()
    assert dict(window.stats.errors) == {"ValueError/abc": 2, "ValueError/def": 1}
    assert {each.fingerprint: each.times for each in desk.recorder.take_causes()} == {"abc": 2, "def": 1}
    assert desk.recorder.take_causes() == []


def test_scrape_sees_every_answer_at_once() -> None:
    """It adds up what waits, and counts stay when windows are taken."""
    desk = Desk()
    desk.answer(seconds=0.02, spent=timing(rows=4))
    marks = {"model": "digits", "version": "3", "variant": "champion"}
    assert desk.counted("inference_requests_total", status="ok", **marks) == 1
    desk.over()
    desk.answer("failed")
    assert desk.counted("inference_requests_total", status="ok", **marks) == 1
    assert desk.counted("inference_requests_total", status="failed", **marks) == 1
    assert desk.counted("inference_duration_seconds_bucket", le="0.01", **marks) == 0
    assert desk.counted("inference_duration_seconds_bucket", le="0.025", **marks) == 1
    assert desk.counted("inference_duration_seconds_sum", **marks) == pytest.approx(0.02)
    assert desk.counted("inference_batch_rows_bucket", le="4", **marks) == 1
    assert desk.counted("inference_batch_rows_bucket", le="2", **marks) == 0


def test_record_is_dropped_and_counted_when_nobody_adds_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded; the request path never waits."""
    monkeypatch.setattr(recording, "_MAX_WAITING", 10)
    desk = Desk()
    for _ in range(15):
        desk.answer()
    assert desk.recorder.dropped == 5
    [window] = desk.over()
    assert window.stats.answered == 10


def test_series_are_bounded_when_versions_come_and_go() -> None:
    """The quietest goes; labels never grow without end."""
    desk = Desk()
    for number in range(600):
        desk.answer(ref=VersionRef("digits", str(number)))
    [family] = [f for f in desk.recorder.collect() if f.name == "signalbox_inference_requests"]
    versions = {sample.labels["version"] for sample in family.samples}
    assert len(versions) == 512
    assert "599" in versions


def test_nothing_is_kept_when_switched_off() -> None:
    """Neither windows nor causes; the tally that model-info shows goes on."""
    desk = Desk(is_on=False)
    desk.answer()
    desk.recorder.judged(REF, Variant.CHAMPION, failed=True)
    desk.recorder.failed(cause(), Variant.CHAMPION)
    assert (desk.over(), desk.recorder.take_causes(), desk.recorder.dropped) == ([], [], 0)
    assert desk.metrics.tally(REF).failures == 1
