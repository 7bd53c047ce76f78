"""One drift check of one model, from the log to a report; called by the flow and by the command line.

Never raises for odd data: what cannot be compared is a verdict with the numbers in it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from flows.drift.verdict import DriftReport, Verdict, decide, insufficient, judge, sentence
from flows.drift.windows import Side, Span, current_side, declared_side, first_and_current
from serving.core.datatypes import Array

SaveHtml = Callable[[Path], None]


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes of a check: rows of the current window, fewest rows on a side, most rows compared."""

    rows: int = 1000
    minimum_rows: int = 100
    sample_rows: int = 20_000


@dataclass(frozen=True, slots=True)
class Checked:
    """A report, and how to write Evidently's pages to it; None where it was not asked."""

    report: DriftReport
    save_html: SaveHtml | None


def check(
    folder: Path,
    model: str,
    *,
    version: str | None,
    reference: Mapping[str, Array] | None,
    limits: Limits,
) -> Checked:
    """Compare the newest logged rows of a model with its reference.

    `reference` holds an evaluation set's inputs by name, rows first; without it the log's first rows
    stand in. `version` narrows the log to one version.
    """
    span = Span(folder, model, version, limits.rows, limits.sample_rows)
    if reference is not None:
        before, now = declared_side(reference, limits.sample_rows), current_side(span)
    else:
        before, now = first_and_current(span)
    problem = insufficient(before.window.rows, now.window.rows, limits.minimum_rows)
    if problem is not None:
        verdict = Verdict.INSUFFICIENT_DATA
        return Checked(DriftReport(model, version, verdict, problem, before.window, now.window), None)
    return _compared(span, before, now, limits)


def _compared(span: Span, before: Side, now: Side, limits: Limits) -> Checked:
    # Loaded only here: Evidently takes seconds and hundreds of megabytes.
    from flows.drift.screen import screen

    screened = screen(before.frame, now.frame, limits.minimum_rows)
    judged, save_html = list(screened.settled), None
    if screened.pairs:
        from flows.drift.detect import Comparison

        comparison = Comparison(screened.pairs)
        notes = {pair.column: pair.note for pair in screened.pairs}
        judged += [replace(column, note=notes[column.column]) for column in judge(comparison.scores)]
        save_html = comparison.save_html
    order = {name: place for place, name in enumerate(before.frame.columns)}
    columns = tuple(sorted(judged, key=lambda column: order[column.column]))
    report = DriftReport(
        span.model,
        span.version,
        decide(columns),
        sentence(columns),
        before.window,
        now.window,
        columns,
        not_compared=tuple(name for name in now.frame.columns if name not in order),
    )
    return Checked(report, save_html)
