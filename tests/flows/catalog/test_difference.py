"""The readers of version reports understand what benchmark, validation and description really write."""

import json
from datetime import UTC, datetime
from typing import Any

from flows.catalog.difference import cells
from flows.catalog.facts import Estimate, Facts, Loaded, Metric, Score
from flows.catalog.merit import accuracy
from flows.catalog.policy import ValidationPolicy
from flows.catalog.report import ValidationReport
from flows.catalog.verdict import overall
from serving.core.difference import Area, Row, Value, VersionFacts, difference
from serving.store.text import json_text
from serving.store.version_reports import SCORES, VersionReports, latency_ms, measured, scores
from tests.flows.catalog import figures_of


def stored(body: dict[str, Any]) -> Any:
    """As it comes back from the store."""
    return json.loads(json_text(body))


def test_numbers_of_a_benchmark_are_found_where_it_writes_them() -> None:
    found = VersionReports(benchmark=stored(figures_of.report().as_json()))
    assert latency_ms(found) == {"mean": 1.0, "p50": 1.0, "p90": 1.0, "p95": 2.0, "p99": 2.0, "p999": 2.0}
    names = ("throughput_per_second", "memory_mb", "cpu_ratio", "load_seconds", "first_call_ms")
    assert [measured(found, name) for name in names] == [2000.0, 20.0, 1.0, 0.5, 9.0]


def test_scores_of_a_validation_are_found_where_it_writes_them() -> None:
    """Each of them, and none of the champion's."""
    told = tuple(Estimate(name, 0.9, 0.8, 1.0) for name in SCORES)
    theirs = tuple(Estimate(name, 0.5, 0.4, 0.6) for name in SCORES)
    score = Score(Metric.ACCURACY, 100, 100, told, theirs)
    check = accuracy(Facts(champion=Loaded("1"), score=score), ValidationPolicy())
    report = ValidationReport(
        model="digits",
        version="2",
        champion="1",
        verdict=overall([check]),
        checks=(check,),
        evaluation_set=None,
        format="onnx",
        digest=None,
        policy=ValidationPolicy(),
        created_at=datetime(2026, 1, 2, tzinfo=UTC),
        seconds=1.0,
    )
    assert scores(VersionReports(validation=stored(report.as_json()))) == dict.fromkeys(SCORES, 0.9)


def test_cells_say_what_became_of_each_value() -> None:
    """In the words of the area; long values are cut."""
    before: dict[Area, dict[str, Value]] = {
        Area.OPERATORS: {"Conv": 2, "Relu": 1},
        Area.LATENCY: {"p50_ms": 2.0, "p95_ms": 10.0, "p99_ms": 11.0},
        Area.TAGS: {"note": "x" * 100, "gone": "1"},
    }
    after: dict[Area, dict[str, Value]] = {
        Area.OPERATORS: {"Conv": 3, "Gelu": 1},
        Area.LATENCY: {"p50_ms": 2.1, "p95_ms": 5.0},
        Area.TAGS: {"note": "y", "new": "1"},
    }
    found = difference(VersionFacts("1", before), VersionFacts("2", after))
    told = {row[1]: row[2:] for row in cells(found, everything=True)}
    assert told == {
        "Conv": ["2", "3", "+50.0 %"],
        "Relu": ["1", "0", "gone"],
        "Gelu": ["0", "1", "new"],
        "p50_ms": ["2", "2.1", "within noise"],
        "p95_ms": ["10", "5", "-50.0 %"],
        "p99_ms": ["11", "-", "not measured"],
        "note": ["x" * 59 + "…", "y", "changed"],
        "gone": ["1", "-", "gone"],
        "new": ["-", "1", "new"],
    }
    changed = {row[1] for row in cells(found, everything=False)}
    assert changed == told.keys() - {"p50_ms", "p99_ms"}
    assert Row(Area.TAGS, "new", None, "1") in found.changed
