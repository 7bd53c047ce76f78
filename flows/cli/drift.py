"""`signalbox drift`: check now whether what a model is asked has changed, and print the columns."""

from typing import Annotated

import typer

from flows.cli.console import AsJson, print_json, print_table, say, text
from flows.drift.render import COLUMNS
from flows.drift.render import rows as rows_of
from flows.drift.verdict import Verdict
from flows.drift_check import DriftDone, asked, check_drift
from flows.wiring import wired

_EXIT_CODES = {Verdict.NO_DRIFT: 0, Verdict.DRIFT: 1, Verdict.INSUFFICIENT_DATA: 2, Verdict.NOT_MEASURED: 2}

Model = Annotated[str, typer.Argument(help="The registered model.")]
Version = Annotated[str | None, typer.Option(help="Only rows that this version answered.")]
Rows = Annotated[int | None, typer.Option(min=1, help="How many of the newest rows to look at.")]


def drift(model: Model, version: Version = None, rows: Rows = None, as_json: AsJson = False) -> None:
    """Compare the newest logged rows with the model's reference; 0 no drift, 1 drift, 2 not measurable."""
    with wired() as wiring:
        done = check_drift(wiring, asked(wiring.settings, model, version, rows))
    if as_json:
        print_json(done.report.as_json() | {"page": str(done.page) if done.page else None})
    else:
        _print(done)
    raise typer.Exit(_EXIT_CODES[done.report.verdict])


def _print(done: DriftDone) -> None:
    report = done.report
    if report.columns:
        cells = [[text(row[column]) for column in COLUMNS] for row in rows_of(report)]
        print_table(COLUMNS, cells, empty="no column was compared")
    say(f"{str(report.verdict).replace('_', ' ')}: {report.message}")
    for name, window in (("current", report.current), ("reference", report.reference)):
        if window is not None:
            say(f"{name}: {window.rows} rows, {window.source}")
    if done.page is not None:
        say(f"Evidently's pages: {done.page}")
