"""A validation report for people: one sentence, table rows, and Markdown for a Prefect artifact."""

from flows.catalog.markdown import plain as _plain
from flows.catalog.report import ValidationReport, headline
from flows.catalog.verdict import Check, Verdict

__all__ = ["COLUMNS", "cells", "headline", "markdown", "rows"]

COLUMNS = ("check", "verdict", "found")

_SAID = {
    Verdict.PASSED: "passed",
    Verdict.WARNING: "warning",
    Verdict.FAILED: "failed",
    Verdict.NOT_MEASURED: "not measured",
}


def cells(report: ValidationReport) -> list[list[str]]:
    """One row per check, in the columns of `COLUMNS`."""
    return [[_title(check), _SAID[check.verdict], check.message] for check in report.checks]


def rows(report: ValidationReport) -> list[dict[str, str]]:
    """The same as a Prefect table artifact takes it."""
    return [dict(zip(COLUMNS, row, strict=True)) for row in cells(report)]


def markdown(report: ValidationReport) -> str:
    """The whole report; nothing a model or a person wrote can break out of its cell."""
    lines = [f"# {_plain(headline(report))}", ""]
    lines += [f"- {_plain(reason)}" for reason in (*report.reasons, *report.warnings)]
    lines += ["", f"| {' | '.join(COLUMNS)} |", "|---|---|---|"]
    lines += [f"| {' | '.join(_plain(cell) for cell in row)} |" for row in cells(report)]
    declared = f"`{_plain(report.evaluation_set)}`" if report.evaluation_set else "none declared"
    lines += ["", f"Evaluation set: {declared}. Format: {report.format or 'unknown'}. "]
    lines[-1] += f"Digest: {report.digest or 'unknown'}."
    lines += [f"Checked at {report.created_at.isoformat(timespec='seconds')} in {report.seconds:.1f} s."]
    return "\n".join(lines) + "\n"


def _title(check: Check) -> str:
    return check.name.replace("_", " ")
