"""The report: what it says, that it survives the store, and that its Markdown cannot be broken."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine

from flows.catalog.policy import ValidationPolicy
from flows.catalog.render import COLUMNS, cells, headline, markdown, rows
from flows.catalog.report import KIND, ValidationReport, from_json, record
from flows.catalog.verdict import Check, CheckName, Verdict, overall
from serving.store import audit, reports
from serving.store.database import open_engine, upgrade

CHECKS = (
    Check(CheckName.LOADS, Verdict.PASSED, "loaded in 0.01 s (onnx)", {"seconds": 0.01, "format": "onnx"}),
    Check(CheckName.FINITE, Verdict.WARNING, "output 'y' is not finite on the zeros"),
    Check(CheckName.ACCURACY, Verdict.FAILED, "accuracy 0.62 | `x`\n<b>", {"rows": 450, "champion": None}),
    Check(CheckName.LATENCY, Verdict.NOT_MEASURED, "nothing timed"),
)


def report(*checks: Check, champion: str | None = "1") -> ValidationReport:
    return ValidationReport(
        model="digits",
        version="2",
        champion=champion,
        verdict=overall(checks),
        checks=checks,
        evaluation_set="runs:/1/evaluation.npz",
        format="onnx",
        digest="d" * 64,
        policy=ValidationPolicy(min_accuracy=0.5),
        created_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        seconds=1.5,
    )


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    url = f"sqlite:///{tmp_path / 'signalbox.db'}"
    upgrade(url)
    engine = open_engine(url)
    yield engine
    engine.dispose()


def test_report_reads_back_the_same_when_stored(engine: Engine) -> None:
    """Every value survives the store, types included; the audit trail says who asked."""
    made = report(*CHECKS)
    kept = record(engine, made, "tester")
    stored = reports.latest(engine, KIND, "digits", "2")
    assert stored is not None
    assert (stored.id, stored.verdict) == (kept, "failed")
    assert from_json(stored.body) == made
    [row] = audit.tail(engine, action="validate")
    assert (row.entry.actor, row.entry.version, row.entry.details["report"]) == ("tester", "2", kept)
    assert row.entry.details["verdict"] == "failed"


def test_report_gives_reasons_when_it_failed() -> None:
    """Each failed check is a reason, each warning a warning; the sentence for a notice joins the reasons."""
    made = report(*CHECKS)
    assert not made.passed
    assert [reason.split(":")[0] for reason in made.reasons] == ["accuracy"]
    assert made.reason == made.reasons[0]
    assert made.warnings == ("finite: output 'y' is not finite on the zeros",)
    assert made.check(CheckName.LATENCY).verdict is Verdict.NOT_MEASURED


@pytest.mark.parametrize(
    ("checks", "passed", "said"),
    [
        (CHECKS, False, "digits version 2 failed validation against champion 1"),
        (CHECKS[:2], True, "digits version 2 passed validation with warnings against champion 1"),
        (CHECKS[:1], True, "digits version 2 passed validation against champion 1"),
        (CHECKS[3:], False, "digits version 2 could not be validated against champion 1"),
    ],
)
def test_headline_follows_the_verdict_when_shown(checks: tuple[Check, ...], passed: bool, said: str) -> None:
    """A warning lets a version pass; a report that measured nothing does not."""
    assert report(*checks).passed is passed
    assert headline(report(*checks)) == said


def test_headline_says_so_when_there_was_no_champion() -> None:
    """The first version of a model is compared with nothing."""
    assert headline(report(*CHECKS[:1], champion=None)).endswith("without a champion to compare with")


def test_tables_have_one_row_per_check_when_rendered() -> None:
    """The command's cells and Prefect's rows hold the same words."""
    made = report(*CHECKS)
    assert [row[0] for row in cells(made)] == ["loads", "finite", "accuracy", "latency"]
    assert cells(made)[3][1] == "not measured"
    assert [list(row) for row in rows(made)] == [list(COLUMNS)] * len(CHECKS)


def test_markdown_keeps_its_form_when_a_message_holds_markup() -> None:
    """A bar, a line break or a tag in a model's own words stays inside its cell."""
    text = markdown(report(*CHECKS))
    [line] = [line for line in text.splitlines() if line.startswith("| accuracy")]
    assert line == "| accuracy | failed | accuracy 0.62 \\| 'x' &lt;b> |"
    assert "Evaluation set: `runs:/1/evaluation.npz`" in text
    assert "2026-01-02T03:04:05+00:00" in text
