"""A benchmark as people see it: side by side, as Markdown, and as a picture."""

from dataclasses import replace

import pytest

from flows.catalog.comparison import (
    cells,
    check_cells,
    check_rows,
    columns,
    headline,
    markdown,
    notes,
    rows,
)
from flows.catalog.limits import BenchmarkPolicy
from flows.catalog.performance import Findings, Gpu, Performance
from flows.catalog.plot import latency_plot
from tests.flows.catalog.figures_of import findings, performance, point, report

BOTH = report(findings(performance(p95_ms=3.0), performance("1", 2.0)))
PNG = b"\x89PNG\r\n\x1a\n"


def size_of(png: bytes) -> tuple[int, int]:
    return int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")


def test_versions_stand_side_by_side_when_both_were_measured() -> None:
    """With the ratio of each figure, and its interval where there is one."""
    assert columns(BOTH) == ("figure", "version 2", "version 1", "ratio")
    told = {row[0].strip(): row[1:] for row in cells(BOTH)}
    assert told["latency p95, ms"] == ["3.000", "2.000", "1.50 (1.48 to 1.52)"]
    assert told["latency p99.9, ms"] == ["3.000", "2.000", "1.50"]
    assert told["rows/s, best batch"] == ["2,000", "2,000", "1.00"]
    assert told["rows/s, 8 at once"] == ["2,000", "2,000", "1.00"]
    assert told["rows/s, 1 thread"] == ["2,000", "2,000", "1.00"]
    assert told["memory resident, MB"] == ["20.0", "20.0", "1.00"]
    assert told["first call, ms"] == ["9.00", "9.00", "1.00"]


def test_one_version_stands_alone_when_there_is_no_other() -> None:
    alone = report()
    assert columns(alone) == ("figure", "version 2")
    assert {len(row) for row in cells(alone)} == {2}
    assert rows(alone)[0] == {"figure": "latency mean, ms", "version 2": "1.000"}


def test_gaps_are_dashes_when_something_was_not_measured() -> None:
    gaps = report(findings(performance(latency_ms=None, memory_mb=None), performance("1", latency_ms=None)))
    told = {row[0].strip(): row[1:] for row in cells(gaps)}
    assert told["latency p95, ms"] == ["-", "-", "-"]
    assert told["memory peak, MB"] == ["-", "30.0", "-"]


@pytest.mark.parametrize(
    ("policy", "found", "said"),
    [
        (BenchmarkPolicy(), findings(), "digits version 2 passed its benchmark, measured alone"),
        (
            BenchmarkPolicy(max_memory_mb=1.0),
            findings(champion=performance("1")),
            "digits version 2 failed its benchmark against version 1",
        ),
        (BenchmarkPolicy(), Findings(), "digits version 2 could not be benchmarked, measured alone"),
        (
            BenchmarkPolicy(),
            findings(is_stable=False),
            "digits version 2 passed its benchmark with warnings, measured alone",
        ),
    ],
)
def test_headline_says_how_it_went_when_judged(policy: BenchmarkPolicy, found: Findings, said: str) -> None:
    assert headline(report(found, policy)) == said


def test_checks_are_listed_when_rendered() -> None:
    told = check_cells(BOTH)
    assert [row[0] for row in told][:2] == ["measured", "steady"]
    assert check_rows(BOTH)[0]["verdict"] == "passed"


def test_markdown_holds_everything_when_rendered() -> None:
    """Reasons first; a name that carries markup stays a name."""
    failed = report(findings(champion=performance("1")), BenchmarkPolicy(max_memory_mb=1.0), model="a|b")
    text = markdown(failed, "http://mlflow/picture")
    assert text.startswith("# a\\|b version 2 failed its benchmark against version 1\n")
    assert "- memory: 20.0 MB once warm" in text
    assert "| latency p95, ms | 2.000 | 2.000 | 1.00 (0.99 to 1.01) |" in text
    assert "(http://mlflow/picture)" in text
    assert "picture" not in markdown(failed)


def test_notes_tell_the_basis_when_rendered() -> None:
    told = notes(report(gpu=Gpu("H100", 0.25, 300.0)))
    assert told[0] == "Asked with the input example, 1000 single calls."
    assert "2 CPUs, 8 GB" in told[1]
    assert "H100: 25% busy, 300 MB" in told[1]
    assert "GPU: not measured" in notes(report())[1]


def test_picture_is_a_png_when_batches_were_timed() -> None:
    """Of two versions, of one, and of versions too far apart for one linear scale."""
    far = findings(performance(), performance("1", batches=(point(1, 500.0), point(8, 900.0))))
    for drawn in (BOTH, report(), report(far)):
        png = latency_plot(drawn)
        assert png is not None
        assert png.startswith(PNG)
        width, height = size_of(png)
        assert width > 1000
        assert height > 400


def test_picture_is_drawn_without_the_champion_when_it_was_not_timed() -> None:
    silent = replace(performance("1"), batches=(), latency_ms=None)
    assert latency_plot(report(findings(champion=silent))) is not None


def test_there_is_no_picture_when_nothing_was_timed() -> None:
    assert latency_plot(report(Findings(Performance("2")))) is None
