"""What a pass over the model folders found, for people: table rows and Markdown."""

from flows.catalog.markdown import plain
from flows.catalog.outcome import Outcome, Result
from flows.catalog.scan import ScanReport

COLUMNS = ("file", "result", "model", "version", "format", "said")
_ORDER = {result: place for place, result in enumerate(Result)}


def cells(outcome: Outcome) -> list[str]:
    """One row in the columns of `COLUMNS`."""
    said = outcome.reason or "; ".join(filter(None, outcome.notes))
    known = (outcome.model, outcome.version, outcome.format)
    return [str(outcome.path), str(outcome.result), *(value or "" for value in known), said]


def rows(report: ScanReport) -> list[dict[str, str]]:
    """What was registered first, then the rest by what came of it, then one line of those left alone."""
    listed = sorted(report.outcomes, key=lambda outcome: (_ORDER[outcome.result], outcome.path))
    found = [dict(zip(COLUMNS, cells(outcome), strict=True)) for outcome in listed]
    if report.unchanged:
        found.append(dict.fromkeys(COLUMNS, "") | {"result": f"{report.unchanged} unchanged"})
    return found


def markdown(report: ScanReport) -> str:
    """The same as a page."""
    lines = ["# Registration of model files", "", plain(report.sentence), ""]
    if report.interrupted is not None:
        lines += [f"**Ended early:** {plain(report.interrupted)}", ""]
    lines += [f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
    lines += [f"| {' | '.join(map(plain, row.values()))} |" for row in rows(report)]
    return "\n".join(lines) + "\n"
