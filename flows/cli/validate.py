"""`signalbox validate`: whether a version is fit to replace the champion; exit code 1 when it is not."""

import getpass
from contextlib import closing, nullcontext
from typing import Annotated

import typer
from rich.console import Console

from flows.catalog.policy import Doubt, ValidationPolicy, policy_of, within_budget
from flows.catalog.render import COLUMNS, cells, headline
from flows.catalog.report import ValidationReport, mark, record
from flows.catalog.validate import Validation, run
from flows.cli.console import AsJson, print_json, print_table, say, warn
from flows.cli.errors import CommandFailed
from flows.settings import FlowSettings
from serving.core.errors import SignalboxError, StoreUnavailable
from serving.core.model import VersionRef
from serving.store.database import check, open_engine
from serving.store.registry import Registry, connect

Version = Annotated[str, typer.Argument(help="The version's number.")]
MinAccuracy = Annotated[float | None, typer.Option(help="Refuse a lower accuracy, champion or not.")]
MaxP95 = Annotated[float | None, typer.Option("--max-p95-ms", help="Refuse a slower 95th percentile.")]
MaxMemory = Annotated[float | None, typer.Option("--max-memory-mb", help="Refuse a larger load.")]
MaxDrop = Annotated[float | None, typer.Option(help="Allowed drop of accuracy against the champion (0.01).")]
MaxRatio = Annotated[float | None, typer.Option(help="Allowed error in times the champion's (1.05).")]
Uncertain = Annotated[
    Doubt | None, typer.Option(help="What a comparison that proves neither side amounts to (estimate).")
]
AllowChange = Annotated[
    bool, typer.Option("--allow-signature-change", help="Let names, types, ranks change.")
]
ReplayRows = Annotated[
    int, typer.Option("--replay", min=0, help="Ask this many recent inputs of the log again.")
]


def validate(
    model: Annotated[str, typer.Argument(help="The registered model.")],
    version: Version,
    champion: Annotated[str | None, typer.Option(help="Compare with this version instead.")] = None,
    max_accuracy_drop: MaxDrop = None,
    max_error_ratio: MaxRatio = None,
    when_uncertain: Uncertain = None,
    min_accuracy: MinAccuracy = None,
    max_p95_ms: MaxP95 = None,
    max_memory_mb: MaxMemory = None,
    allow_signature_change: AllowChange = False,
    replay: ReplayRows = 0,
    as_json: AsJson = False,
) -> None:
    """Check a version in a process of its own, against the champion where there is one."""
    settings = FlowSettings()
    policy = _policy(
        max_accuracy_drop=max_accuracy_drop,
        max_error_ratio=max_error_ratio,
        when_uncertain=when_uncertain,
        min_accuracy=min_accuracy,
        max_p95_ms=max_p95_ms,
        max_memory_mb=max_memory_mb,
        allow_signature_change=allow_signature_change,
        replay_rows=replay,
    )
    request = Validation(
        VersionRef(model, version),
        within_budget(policy, settings.memory_mb),
        champion,
        settings.validation_seconds,
        settings.validation_memory_mb,
    )
    console = Console(stderr=True)
    with console.status(f"validating {model} {version}") if console.is_terminal else nullcontext():
        report = run(request, settings)
    if as_json:
        print_json(report.as_json())
    else:
        say(headline(report))
        print_table(COLUMNS, cells(report), empty="nothing was checked")
    _keep(settings, report)
    _mark(settings, report)
    if not report.passed:
        raise typer.Exit(1)


def _policy(**given: object) -> ValidationPolicy:
    try:
        return policy_of(given)
    except ValueError as error:
        raise CommandFailed(f"a limit cannot be used: {error}") from error


def _mark(settings: FlowSettings, report: ValidationReport) -> None:
    """The verdict goes onto the version in MLflow; it stands without that too."""
    try:
        with closing(connect(settings)) as client:
            mark(Registry(client, settings.serves, settings.env), report)
    except SignalboxError as error:
        warn(f"the verdict was not left in MLflow: {error}")


def _keep(settings: FlowSettings, report: ValidationReport) -> None:
    """Report and audit row go to the store; the verdict stands without it."""
    engine = open_engine(settings.database_url)
    try:
        check(engine)
        record(engine, report, actor=f"unverified:{getpass.getuser()}")
    except StoreUnavailable as error:
        warn(f"the report was not recorded: {error}")
    finally:
        engine.dispose()
