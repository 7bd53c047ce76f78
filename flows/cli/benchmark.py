"""`signalbox benchmark`: what a version costs beside the champion; exit code 0 only if nothing failed."""

import getpass
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from sqlalchemy import Engine

from flows.catalog.baseline import keep
from flows.catalog.benchmark import Benchmark, run
from flows.catalog.benchmark_report import BenchmarkReport
from flows.catalog.comparison import CHECK_COLUMNS, cells, check_cells, columns, headline, notes
from flows.catalog.limits import BenchmarkPolicy
from flows.catalog.plot import latency_plot
from flows.catalog.run_log import leave
from flows.cli.console import AsJson, print_json, print_table, say, warn
from flows.settings import FlowSettings
from serving.core.errors import SignalboxError, StoreUnavailable
from serving.core.model import VersionRef
from serving.store.database import check, open_engine
from serving.store.registry import Registry, connect

_TICK_SECONDS = 0.25

Version = Annotated[str, typer.Argument(help="The version's number.")]
Against = Annotated[str, typer.Option(help="An alias or a version to measure beside it, or 'none'.")]
MaxP95 = Annotated[float | None, typer.Option("--max-p95-ms", help="Refuse a slower 95th percentile.")]
MinThroughput = Annotated[float | None, typer.Option(help="Refuse fewer rows per second at the best batch.")]
MaxMemory = Annotated[float | None, typer.Option("--max-memory-mb", help="Refuse more memory once warm.")]
Seconds = Annotated[float, typer.Option(min=0.1, help="How long to call; a slow model takes longer.")]
Plot = Annotated[Path | None, typer.Option(help="Write latency and throughput by batch size as a PNG.")]


def benchmark(
    model: Annotated[str, typer.Argument(help="The registered model.")],
    version: Version,
    against: Against = "champion",
    max_p95_ms: MaxP95 = None,
    min_throughput: MinThroughput = None,
    max_memory_mb: MaxMemory = None,
    seconds: Seconds = 20.0,
    plot: Plot = None,
    as_json: AsJson = False,
) -> None:
    """Measure a version in a process of its own, in turn with the champion where there is one."""
    settings = FlowSettings()
    try:
        policy = BenchmarkPolicy(
            max_p95_ms=max_p95_ms,
            min_throughput=min_throughput,
            max_memory_mb=max_memory_mb,
            seconds=seconds,
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    request = Benchmark(VersionRef(model, version), policy, against)
    with _store(settings) as engine:
        with _progress(f"benchmarking {model} {version}", seconds) as progress:
            report = run(request, settings, engine=engine, progress=progress)
        if as_json:
            print_json(report.as_json())
        else:
            _show(report)
        if engine is not None:
            _keep(engine, report)
    png = latency_plot(report)
    if plot is not None:
        _write(plot, png)
    _leave(settings, report, png)
    if not report.is_approved:
        raise typer.Exit(1)


def _show(report: BenchmarkReport) -> None:
    say(headline(report))
    print_table(columns(report), cells(report), empty="nothing was measured")
    say("")
    print_table(CHECK_COLUMNS, check_cells(report), empty="nothing was judged")
    for note in notes(report):
        say(note)


@contextmanager
def _progress(doing: str, seconds: float) -> Iterator[Callable[[str], None]]:
    """A bar over the time that is planned; nothing where nobody watches."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda step: None
        return
    shape = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    over = threading.Event()
    with Progress(*shape, console=console, transient=True) as progress:
        task = progress.add_task(doing, total=seconds)

        def tick() -> None:
            while not over.wait(_TICK_SECONDS):
                progress.advance(task, _TICK_SECONDS)

        ticking = threading.Thread(target=tick, name="progress", daemon=True)
        ticking.start()
        try:
            yield lambda step: progress.update(task, description=f"{doing}: {step}")
        finally:
            over.set()
            ticking.join()


@contextmanager
def _store(settings: FlowSettings) -> Iterator[Engine | None]:
    """The state store; None, said aloud, where it cannot be used: the benchmark stands without it."""
    engine = open_engine(settings.database_url)
    try:
        check(engine)
    except StoreUnavailable as error:
        warn(f"the benchmark is not recorded, and knows no earlier one: {error}")
        engine.dispose()
        yield None
        return
    try:
        yield engine
    finally:
        engine.dispose()


def _keep(engine: Engine, report: BenchmarkReport) -> None:
    try:
        found = keep(engine, report, f"unverified:{getpass.getuser()}")
    except StoreUnavailable as error:
        warn(f"the benchmark was not recorded: {error}")
        return
    if found is not None:
        warn(f"slower than its baseline: {found.reason}")


def _write(path: Path, png: bytes | None) -> None:
    if png is None:
        warn(f"nothing was measured that could be drawn, {path} was not written")
        return
    try:
        path.write_bytes(png)
    except OSError as error:
        warn(f"the plot was not written to {path}: {error.strerror}")


def _leave(settings: FlowSettings, report: BenchmarkReport, png: bytes | None) -> None:
    """Tags, metrics and plot go to MLflow; the verdict stands without them."""
    try:
        with closing(connect(settings)) as client:
            leave(client, Registry(client, settings.serves, settings.env), report, png)
    except SignalboxError as error:
        warn(f"the benchmark was not left in MLflow: {error}")
