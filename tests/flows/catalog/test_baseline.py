"""Baselines in a real store: kept, declared, found again, due, and told when they got worse."""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from flows.catalog.baseline import (
    KIND,
    Baseline,
    Due,
    accuracy_on_record,
    baseline,
    is_due,
    keep,
    record,
    record_declared,
)
from flows.catalog.benchmark_report import BenchmarkReport, from_json
from flows.catalog.limits import BenchmarkPolicy
from flows.catalog.performance import Findings, Gpu, Performance
from flows.catalog.regression import regression
from flows.catalog.verdict import Verdict
from serving.store import audit, outbox, reports
from serving.store.database import open_engine
from serving.store.reports import Report
from tests.flows.catalog.figures_of import AT, DIGEST, ELSEWHERE, HERE, findings, performance, report

WEEK = timedelta(days=7)
ACTOR = "anna"


@pytest.fixture
def engine(tmp_path: Path, store_template: Path) -> Iterator[Engine]:
    shutil.copy(store_template, tmp_path / "signalbox.db")
    engine = open_engine(f"sqlite:///{tmp_path / 'signalbox.db'}")
    yield engine
    engine.dispose()


def measured(at: datetime = AT, host_id: str = HERE.id, origin: str = "measured") -> Baseline:
    return Baseline(
        id="b",
        model="digits",
        version="2",
        created_at=at,
        origin=origin,
        host_id=host_id,
        digest=DIGEST,
        latency_ms={"p50": 1.0},
        throughput_per_second=None,
        memory_mb={},
        accuracy=None,
        body={},
    )


@pytest.mark.parametrize(
    ("known", "now", "due"),
    [
        pytest.param(None, AT, Due.MISSING, id="none"),
        pytest.param(measured(), AT, Due.NO, id="just made"),
        pytest.param(measured(), AT + WEEK, Due.NO, id="seven days to the second"),
        pytest.param(measured(), AT + WEEK + timedelta(seconds=1), Due.OLD, id="a second older"),
        pytest.param(measured(), AT - timedelta(hours=1), Due.NO, id="the clock stepped back"),
        pytest.param(measured(host_id=ELSEWHERE.id), AT, Due.OTHER_HOST, id="of another host"),
        pytest.param(measured(origin="declared"), AT, Due.DECLARED, id="declared only"),
    ],
)
def test_benchmark_is_due_when_tabulated(known: Baseline | None, now: datetime, due: Due) -> None:
    assert is_due(known, HERE.id, now) is due


def test_report_comes_back_whole_when_kept(engine: Engine) -> None:
    """Every field, and the figures under the names that other readers of the store rely on."""
    full = report(findings(champion=performance("1")), accuracy=0.97, gpu=Gpu("H100", 0.5, 300.0))
    kept = record(engine, full, ACTOR)
    row = reports.latest(engine, KIND, "digits", "2")
    assert row is not None
    assert (row.id, row.verdict, from_json(row.body)) == (kept, "passed", full)
    body: Mapping[str, Any] = row.body
    assert body["latency_ms"].keys() == {"mean", "p50", "p90", "p95", "p99", "p999"}
    assert body["memory_mb"] == {"load": 10.0, "peak": 30.0, "resident": 20.0}
    plain = {"cpu_ratio": 1.0, "load_seconds": 0.5, "first_call_ms": 9.0, "accuracy": 0.97}
    assert plain.items() <= body.items()
    assert body["throughput_per_second"] == 2000.0
    assert body["host"]["id"] == HERE.id
    assert [point["rows"] for point in body["batches"]] == [1, 8]
    assert [point["threads"] for point in body["threads"]] == [1, 2]
    assert body["champion"]["version"] == "1"
    assert body["ratios"]["p95"]["value"] == 1.0
    [entry] = [found.entry for found in audit.tail(engine, action="benchmark")]
    assert (entry.actor, entry.model, entry.version, entry.details["report"]) == (ACTOR, "digits", "2", kept)


def test_baseline_of_this_host_is_preferred_when_another_measured_later(engine: Engine) -> None:
    here = record(engine, report(), ACTOR)
    there = record(engine, report(host=ELSEWHERE, created_at=AT + timedelta(hours=1)), ACTOR)
    found = baseline(engine, "digits", "2", HERE.id)
    assert found is not None
    assert (found.id, found.latency_ms["p95"], found.memory_mb["resident"]) == (here, 2.0, 20.0)
    newest = baseline(engine, "digits", "2")
    assert newest is not None
    assert newest.id == there
    assert baseline(engine, "digits", "3") is None


def test_baseline_stays_when_a_later_benchmark_measured_nothing(engine: Engine) -> None:
    kept = record(engine, report(), ACTOR)
    nothing = report(Findings(Performance("2")), created_at=AT + timedelta(hours=1))
    record(engine, nothing, ACTOR)
    found = baseline(engine, "digits", "2", HERE.id)
    assert found is not None
    assert found.id == kept


def test_report_of_another_release_is_no_report_when_its_shape_is_unknown(engine: Engine) -> None:
    """Its plain figures still count."""
    body: dict[str, Any] = {"latency_ms": {"p50": 1.0}, "host": {"id": HERE.id}, "checks": 7}
    row = Report(id="r", kind=KIND, model="digits", version="2", verdict="passed", created_at=AT, body=body)
    reports.save(engine, row)
    found = baseline(engine, "digits", "2", HERE.id)
    assert found is not None
    assert (found.latency_ms, found.report()) == ({"p50": 1.0}, None)
    assert keep(engine, report(created_at=AT + timedelta(days=1)), ACTOR) is None


def test_declared_baseline_is_kept_when_its_numbers_are_right(engine: Engine) -> None:
    """Single numbers are the median and the resident size; a measurement is due all the same."""
    numbers = {"latency_ms": 3, "memory_mb": {"load": 5.5}, "throughput_per_second": 100, "accuracy": 0.9}
    record_declared(engine, "digits", "2", numbers, ACTOR, AT)
    found = baseline(engine, "digits", "2", HERE.id)
    assert found is not None
    assert (found.latency_ms, found.memory_mb) == ({"p50": 3.0}, {"load": 5.5})
    assert (found.throughput_per_second, found.accuracy, found.host_id) == (100.0, 0.9, None)
    assert is_due(found, HERE.id, AT) is Due.DECLARED
    assert found.report() is None
    assert [row.entry.details["verdict"] for row in audit.tail(engine, action="benchmark")] == ["declared"]


@pytest.mark.parametrize(
    ("numbers", "why"),
    [
        ({"speed": 3}, "has no 'speed'; it may hold latency_ms, memory_mb"),
        ({"latency_ms": "fast"}, "latency_ms.p50 must be a number of at least 0, not 'fast'"),
        ({"latency_ms": {"p42": 1}}, "latency_ms has no 'p42'"),
        ({"accuracy": True}, "accuracy must be a number"),
        ({"memory_mb": -1}, "memory_mb.resident must be a number of at least 0"),
    ],
)
def test_declared_baseline_is_refused_in_a_sentence_when_wrong(
    engine: Engine, numbers: dict[str, Any], why: str
) -> None:
    """And nothing is kept."""
    with pytest.raises(ValueError, match=why):
        record_declared(engine, "digits", "2", numbers, ACTOR, AT)
    assert baseline(engine, "digits", "2") is None


def beside(ours_ms: float, theirs_ms: float, **different: Any) -> BenchmarkReport:
    """Measured beside version 1."""
    return report(findings(performance(p95_ms=ours_ms), performance("1", theirs_ms)), **different)


def alone(ours_ms: float, *, stable: bool = True, **different: Any) -> BenchmarkReport:
    return report(findings(performance(p95_ms=ours_ms), is_stable=stable), **different)


@pytest.mark.parametrize(
    ("former", "present", "is_worse"),
    [
        pytest.param(alone(20.0), alone(20.0), False, id="as before"),
        pytest.param(alone(20.0), alone(25.0), False, id="a quarter slower, not more"),
        pytest.param(alone(20.0), alone(30.0), True, id="half as slow again"),
        pytest.param(alone(2.0), alone(6.0), False, id="three times, but less than 5 ms more"),
        pytest.param(alone(20.0), alone(30.0, stable=False), False, id="slower in times that did not settle"),
        pytest.param(alone(20.0), alone(40.0, host=ELSEWHERE), False, id="another host alone says nothing"),
        pytest.param(beside(20.0, 10.0), beside(40.0, 20.0), False, id="the machine halved, both did"),
        pytest.param(beside(20.0, 10.0), beside(30.0, 10.0), True, id="slower beside the same version"),
        pytest.param(
            beside(20.0, 10.0),
            beside(60.0, 20.0, host=ELSEWHERE),
            True,
            id="slower beside it on another host",
        ),
        pytest.param(
            beside(20.0, 10.0), beside(40.0, 20.0, host=ELSEWHERE), False, id="another host, the same ratio"
        ),
    ],
)
def test_regression_is_seen_when_tabulated(
    former: BenchmarkReport, present: BenchmarkReport, is_worse: bool
) -> None:
    assert (regression(former, present) is not None) is is_worse


def test_regression_is_none_when_the_calls_only_waited_for_a_cpu() -> None:
    waiting = report(findings(performance(p95_ms=60.0, unhindered_p95_ms=21.0)))
    assert regression(alone(20.0), waiting) is None


def test_regression_is_told_once_when_a_version_got_slower(engine: Engine) -> None:
    """The next benchmark is compared with the slow one, and says nothing more."""
    keep(engine, alone(20.0), ACTOR)
    found = keep(engine, alone(40.0, created_at=AT + timedelta(hours=1)), ACTOR)
    assert found is not None
    assert found.reason == "p95 is 40.0 ms, 2.00 times the 20.0 ms to be expected on the same host"
    keep(engine, alone(41.0, created_at=AT + timedelta(hours=2)), ACTOR)
    [queued] = outbox.recent(engine)
    assert (queued.notice.kind, queued.notice.version) == ("benchmark_regression", "2")
    assert queued.notice.facts["p95_before_ms"] == 20.0
    assert audit.verify(engine).verdict is audit.Verdict.INTACT


def test_accuracy_comes_from_the_validation_when_it_saw_the_same_files(engine: Engine) -> None:
    check = {"name": "accuracy", "evidence": {"metric": "accuracy", "candidate": 0.97}}
    body: dict[str, Any] = {"digest": DIGEST, "checks": [{"name": "loads", "evidence": {}}, check]}
    row = Report(
        id="v", kind="validation", model="digits", version="2", verdict="passed", created_at=AT, body=body
    )
    reports.save(engine, row)
    assert accuracy_on_record(engine, "digits", "2", DIGEST) == 0.97
    assert accuracy_on_record(engine, "digits", "2", "another") is None
    assert accuracy_on_record(engine, "digits", "3", DIGEST) is None


def test_report_is_judged_anew_when_the_limits_are_others() -> None:
    """The measurement is the same; a fresh one serves a promotion under limits of its own."""
    found = report()
    assert found.verdict is Verdict.PASSED
    stricter = found.judged_by(BenchmarkPolicy(max_memory_mb=1.0))
    assert (stricter.verdict, stricter.passed) == (Verdict.FAILED, False)
    assert "at most 1 MB are allowed" in stricter.reason
    assert replace(stricter, policy=found.policy, checks=found.checks, verdict=found.verdict) == found
