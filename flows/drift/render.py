"""A drift report for people: markdown and table rows, for Prefect's artifacts and the command line."""

from flows.drift.verdict import ColumnDrift, ColumnState, DriftReport, Window

COLUMNS = ("column", "state", "method", "score", "threshold", "p_value", "distance", "shift", "note")
_NAMED = 20
_ORDER = {ColumnState.DRIFTED: 0, ColumnState.NOT_MEASURED: 1, ColumnState.STABLE: 2}


def rows(report: DriftReport) -> list[dict[str, str]]:
    """One row per column: the drifted ones first, the furthest on top."""
    ordered = sorted(report.columns, key=lambda column: (_ORDER[column.state], -(column.distance or 0.0)))
    return [{name: _cell(column, name) for name in COLUMNS} for column in ordered]


def markdown(report: DriftReport) -> str:
    scope = f" version {report.version}" if report.version else ""
    lines = [
        f"# Drift of {report.model}{scope}: {str(report.verdict).replace('_', ' ')}",
        "",
        report.message[:1].upper() + report.message[1:] + ".",
        "",
        f"- current: {_window(report.current)}",
        f"- reference: {_window(report.reference)}",
    ]
    if report.not_compared:
        lines.append(f"- without a reference, not compared: {len(report.not_compared)} columns")
    if report.drifted:
        lines += ["", "| drifted column | distance | median shift | test |", "|---|---|---|---|"]
        lines += [
            f"| {_escaped(column.column)} | {_cell(column, 'distance')} | {_cell(column, 'shift')} "
            f"| {column.method} {_cell(column, 'score')}, threshold {_cell(column, 'threshold')} |"
            for column in report.drifted[:_NAMED]
        ]
    if len(report.drifted) > _NAMED:
        lines += ["", f"and {len(report.drifted) - _NAMED} more, in the table of columns."]
    return "\n".join(lines)


def _cell(column: ColumnDrift, name: str) -> str:
    value = getattr(column, name)
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:+.4g}" if name == "shift" else f"{value:.4g}"
    return str(value)


def _window(window: Window | None) -> str:
    if window is None:
        return "none"
    span = (
        f", {window.since.isoformat()} to {window.until.isoformat()}" if window.since and window.until else ""
    )
    return f"{window.rows} rows, {window.source}{span}"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")
