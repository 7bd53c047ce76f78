"""What the demonstration ends with: the table, what went wrong in detail, the addresses."""

from collections.abc import Iterator, Sequence

from flows.cli.console import print_table, say, text
from flows.cli.demo.acts import spread
from flows.cli.demo.live import RATE_PER_SECOND
from flows.cli.demo.progress import one_line
from flows.cli.demo.records import Record
from flows.cli.demo.runs import FlowRuns
from flows.cli.demo.settings import MODEL
from flows.cli.demo.stage import Concluded, Measured, Promoted
from flows.cli.demo.verdict import Tally
from flows.settings import FlowSettings

_SHOWN = 5
_REASON_CHARACTERS = 80


def show_table(tally: Tally, measured: Measured) -> None:
    say("")
    print_table(("what", "measured"), rows(tally, measured), empty="nothing was measured")


def rows(tally: Tally, measured: Measured) -> list[tuple[str, str]]:
    """The lines of the table; a dash where an act did not come to its measurement."""
    swaps = measured.swap_seconds
    return [
        ("requests sent", f"{tally.sent}, {RATE_PER_SECOND} per second"),
        ("failed", str(len(tally.failed))),
        ("failed while the only server was dead", str(len(tally.failed_while_dead))),
        ("answered by a wrong version", str(len(tally.wrong))),
        ("answered by the version before, in place of a failing one", str(tally.by_fallback)),
        ("swaps, alias write to first new answer", f"{len(swaps)}, {spread(swaps)}" if swaps else "-"),
        ("version 4 rolled back after", _seconds(measured.rolled_back_seconds)),
        ("its alias put back after", _seconds(measured.alias_back_seconds)),
        ("version 2 promoted by Prefect, from alias challenger", _promotion(measured.promoted)),
        ("callers saw of it", measured.promoted.shares if measured.promoted else "-"),
        (
            "columns drifted under inverted digits",
            f"{measured.drifted.drifted} of {measured.drifted.columns}" if measured.drifted else "-",
        ),
        ("Slack messages received", text(measured.slack_messages)),
        ("MLflow back after kill -9", _seconds(measured.mlflow_back_seconds)),
        ("serving back after kill -9", _seconds(measured.serving_back_seconds)),
        ("audit rows verified", text(measured.audit_rows)),
    ]


def show_rollouts(settings: FlowSettings, concluded: Sequence[Concluded]) -> None:
    say("")
    columns = ("version", "ended", "after", "rollout", "why")
    print_table(columns, rollout_rows(concluded), empty="no version was tried out")
    # Not in the table, where a terminal would break them in two.
    for each in concluded:
        say(f"  version {each.version}   {settings.mlflow_url}/#/models/{MODEL}/versions/{each.version}")


def rollout_rows(concluded: Sequence[Concluded]) -> list[tuple[str, ...]]:
    """One line for each version that alias `challenger` was set on, in that order."""
    return [
        (
            each.version,
            each.verdict,
            f"{each.seconds:.0f} s",
            each.rollout[:12],
            _first_clause(each.reason),
        )
        for each in concluded
    ]


def show_faults(tally: Tally, began: float) -> None:
    """The first few requests of each kind that should not be there, in seconds from the first one."""
    for kind, records in (("failed", tally.failed), ("wrong version", tally.wrong)):
        for record in records[:_SHOWN]:
            say(f"{kind}: at {record.started - began:.2f} s {_fault(record)}")
        if len(records) > _SHOWN:
            say(f"{kind}: and {len(records) - _SHOWN} more")


def show_addresses(settings: FlowSettings, runs: Sequence[tuple[str, str]], *, kept: bool) -> None:
    say("\nwhere it answers:" if kept else "\nwhere it answered (--keep leaves it running):")
    say(f"  MLflow      {settings.mlflow_url}/#/models/{MODEL}")
    say(f"  serving     {settings.serving_url}/docs")
    say(f"  model-info  {settings.serving_url}/api/v2/model-info")
    for name, path in runs:
        say(f"  {name:<11} {settings.prefect_api_url.removesuffix('/api')}{path}")
    say(f"  logs        {settings.home / 'logs'}")


def prefect_pages(measured: Measured, runs: FlowRuns) -> list[tuple[str, str]]:
    """What to look at in Prefect's UI: name and path of each run of the story, and of its artifacts."""
    found = list(_runs(measured))
    keys = sorted({key for _, run in found for key in runs.artifact_keys(run)})
    pages = [(name, f"/runs/flow-run/{run}") for name, run in found]
    return [("Prefect", "/"), *pages, *(("artifact", f"/artifacts/key/{key}") for key in keys)]


def _runs(measured: Measured) -> Iterator[tuple[str, str]]:
    for each in measured.concluded:
        yield f"version {each.version}", each.run
    if measured.drifted is not None:
        yield "drift", measured.drifted.run


def _promotion(promoted: Promoted | None) -> str:
    if promoted is None:
        return "-"
    return (
        f"{promoted.ended_seconds:.1f} s (run began {promoted.run_started_seconds:.1f} s, "
        f"first answer {promoted.answered_seconds:.1f} s)"
    )


def _first_clause(reason: str) -> str:
    return one_line(reason.partition(";")[0], _REASON_CHARACTERS)


def _fault(record: Record) -> str:
    if not record.is_answered:
        return f"status {text(record.status)}, {text(record.error)}"
    whose = "its own outputs" if record.matches else "outputs that are not its own"
    return f"answered as {record.variant} by version {record.version} with {whose}"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s"


def first_moment(records: Sequence[Record]) -> float:
    return min((record.started for record in records), default=0.0)
