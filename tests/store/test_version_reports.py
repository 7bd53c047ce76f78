"""What the newest reports say of versions, believed only of the version they were made of."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Engine

from serving.core.difference import Area
from serving.core.model import VersionRef
from serving.store import reports, version_reports
from serving.store.registry import ModelVersion, Run
from serving.store.reports import Report
from serving.store.version_reports import VersionReports, facts_of, latency_ms, measured, scores

BORN = datetime(2026, 3, 1, 12, tzinfo=UTC)
BENCHMARK = {
    "latency_ms": {"mean": 2.0, "p50": 1.5, "p95": 4.0},
    "throughput_per_second": 800.0,
    "memory_mb": {"load": 20.0, "peak": 44.0, "resident": 31.5},
    "cpu_ratio": 0.8,
}
VALIDATION = {
    "checks": [
        {"name": "loads", "verdict": "passed"},
        {"name": "accuracy", "evidence": {"accuracy": 0.97, "f1": 0.96, "accuracy_low": 0.9, "rows": 100}},
    ]
}
DESCRIPTION = {
    "format": "onnx",
    "size_bytes": 3508,
    "parameter_count": 690,
    "operators": {"Conv": 1},
    "opsets": {"ai.onnx": 17},
    "runtimes": {"onnxruntime": ">=1.15"},
    "inputs": [{"name": "x", "datatype": "FP32", "shape": ["batch", 3]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": None}],
}


def version(number: str = "1", **tags: str) -> ModelVersion:
    born_ms = int(BORN.timestamp() * 1000)
    ref = VersionRef("digits", number)
    return ModelVersion(ref, born_ms, born_ms, "models:/m-1", "r", "READY", "", "ann", tags)


def keep(
    engine: Engine,
    kind: str,
    body: Mapping[str, Any],
    minutes: float = 1,
    *,
    number: str = "1",
    verdict: str = "passed",
) -> None:
    at = BORN + timedelta(minutes=minutes)
    reports.save(
        engine,
        Report(
            id=f"{kind}-{number}-{minutes}",
            kind=kind,
            model="digits",
            version=number,
            verdict=verdict,
            created_at=at,
            body=body,
        ),
    )


def known(engine: Engine, *numbers: str) -> dict[str, VersionReports]:
    return version_reports.read(engine, "digits", [version(number) for number in numbers or ("1",)])


def test_newest_report_of_each_kind_is_read_when_there_are_many(engine: Engine) -> None:
    """Of each version its own; one without reports knows nothing."""
    keep(engine, "description", {"old": True})
    keep(engine, "description", DESCRIPTION, 2)
    keep(engine, "benchmark", BENCHMARK, 3)
    keep(engine, "validation", VALIDATION, 4, number="2")
    found = known(engine, "1", "2", "3")
    assert found["1"].description == DESCRIPTION
    assert found["1"].benchmarked_at == BORN + timedelta(minutes=3)
    assert (found["1"].validation, found["2"].validation) == ({}, VALIDATION)
    assert found["3"] == VersionReports()


def test_report_is_passed_over_when_it_is_older_than_the_version(engine: Engine) -> None:
    """It tells of a namesake in a deleted model; five minutes are the clocks' own affair."""
    keep(engine, "description", {"old": True}, -6)
    assert known(engine)["1"].description == {}
    keep(engine, "description", DESCRIPTION, -4)
    assert known(engine)["1"].description == DESCRIPTION


def test_measured_benchmark_wins_when_a_newer_one_was_declared_or_empty(engine: Engine) -> None:
    """A declared one stands in where nothing was measured, and was made at no time."""
    keep(engine, "benchmark", {"latency_ms": {"p50": 9.0}, "accuracy": 0.5}, 5, verdict="declared")
    declared = known(engine)["1"]
    assert (latency_ms(declared), declared.benchmarked_at) == ({"p50": 9.0}, None)
    assert scores(declared) == {"accuracy": 0.5}
    keep(engine, "benchmark", BENCHMARK, 4, verdict="failed")
    keep(engine, "benchmark", {}, 6, verdict="not_measured")
    found = known(engine)["1"]
    assert latency_ms(found) == {"mean": 2.0, "p50": 1.5, "p95": 4.0}
    assert found.benchmarked_at == BORN + timedelta(minutes=4)


def test_numbers_are_told_when_reports_hold_them() -> None:
    """What a report lacks, or holds in another form, is missing and no error."""
    found = VersionReports(benchmark=BENCHMARK, validation=VALIDATION)
    assert scores(found) == {"accuracy": 0.97, "f1": 0.96}
    assert measured(found, "memory_mb") == 31.5
    assert measured(found, "cpu_ratio") == 0.8
    assert measured(found, "first_call_ms") is None
    odd = VersionReports(benchmark={"latency_ms": None, "memory_mb": "much"}, validation={"checks": None})
    assert (scores(odd), latency_ms(odd), measured(odd, "memory_mb")) == ({}, {}, None)


def test_accuracy_is_read_when_an_earlier_release_wrote_the_report() -> None:
    """It named one metric and its value."""
    evidence = {"metric": "accuracy", "candidate": 0.91, "champion": 0.9}
    told = VersionReports(validation={"checks": [{"name": "accuracy", "evidence": evidence}]})
    assert scores(told) == {"accuracy": 0.91}


def test_facts_have_an_area_when_something_is_known_of_it() -> None:
    """Free axes go without names; bookkeeping tags are no facts."""
    run = Run(metrics={"loss": 0.1}, params={"epochs": "3"}, datasets=())
    tags = {"team": "ml", "signalbox.digest": "abc", "signalbox.author": "Ann"}
    facts = facts_of(
        version(**tags), run, VersionReports(DESCRIPTION, BENCHMARK, VALIDATION, benchmarked_at=BORN)
    )
    assert facts.areas[Area.SIGNATURE] == {
        "input x": "FP32 [-1, 3]",
        "output y": "FP32 of unknown shape",
    }
    assert facts.areas[Area.FILE] == {
        "format": "onnx",
        "opset ai.onnx": 17,
        "requires onnxruntime": ">=1.15",
    }
    assert facts.areas[Area.SIZE] == {"size_bytes": 3508, "parameter_count": 690, "memory_mb": 31.5}
    assert facts.areas[Area.OPERATORS] == {"Conv": 1}
    assert facts.areas[Area.METRICS] == {"accuracy": 0.97, "f1": 0.96, "training loss": 0.1}
    assert facts.areas[Area.LATENCY] == {
        "mean_ms": 2.0,
        "p50_ms": 1.5,
        "p95_ms": 4.0,
        "throughput_per_second": 800.0,
    }
    assert facts.areas[Area.PARAMETERS] == {"epochs": "3"}
    assert facts.areas[Area.TAGS] == {"team": "ml", "signalbox.author": "Ann"}


def test_facts_lack_an_area_when_nothing_was_measured_or_described() -> None:
    """Tags are always known."""
    facts = facts_of(version(), None, VersionReports())
    assert set(facts.areas) == {Area.TAGS}


def test_scalar_shape_is_told_when_a_tensor_has_no_axes() -> None:
    """An empty shape is known; only None is not."""
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": []}]}
    facts = facts_of(version(), None, VersionReports(description=body))
    assert facts.areas[Area.SIGNATURE] == {"input x": "FP32 []"}
