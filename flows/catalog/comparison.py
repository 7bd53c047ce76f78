"""A benchmark for people: candidate and champion side by side with their ratio, and the judgement.

Table rows for the command line and Prefect, Markdown for a Prefect artifact.
"""

from collections.abc import Callable, Iterator
from functools import partial

from flows.catalog.benchmark_report import BenchmarkReport
from flows.catalog.performance import Estimate, Performance, Statistic
from flows.catalog.rating import times
from flows.catalog.verdict import Verdict

CHECK_COLUMNS = ("check", "verdict", "found")
_NONE = "-"

_Read = Callable[[Performance], float | None]


def headline(report: BenchmarkReport) -> str:
    """`digits version 5 passed its benchmark against version 2`."""
    rival = f" against version {report.champion.version}" if report.champion else ", measured alone"
    said = {
        Verdict.PASSED: "passed its benchmark",
        Verdict.WARNING: "passed its benchmark with warnings",
        Verdict.FAILED: "failed its benchmark",
        Verdict.NOT_MEASURED: "could not be benchmarked",
    }[report.verdict]
    return f"{report.model} version {report.version} {said}{rival}"


def columns(report: BenchmarkReport) -> tuple[str, ...]:
    own = f"version {report.version}"
    if report.champion is None:
        return ("figure", own)
    return ("figure", own, f"version {report.champion.version}", "ratio")


def cells(report: BenchmarkReport) -> list[list[str]]:
    """One row per figure, in the columns of `columns`."""
    return [row[: len(columns(report))] for row in _figures(report)]


def rows(report: BenchmarkReport) -> list[dict[str, str]]:
    """The same as a Prefect table artifact takes it."""
    return [dict(zip(columns(report), row, strict=True)) for row in cells(report)]


def check_cells(report: BenchmarkReport) -> list[list[str]]:
    """One row per rating, in the columns of `CHECK_COLUMNS`."""
    return [[_words(each.name), _words(each.verdict), each.message] for each in report.checks]


def check_rows(report: BenchmarkReport) -> list[dict[str, str]]:
    """The same as a Prefect table artifact takes it."""
    return [dict(zip(CHECK_COLUMNS, row, strict=True)) for row in check_cells(report)]


def markdown(report: BenchmarkReport, plot_url: str | None = None) -> str:
    """The whole report; nothing a model or a person wrote can break out of its cell."""
    lines = [f"# {_plain(headline(report))}", ""]
    lines += [f"- {_plain(reason)}" for reason in (*report.reasons, *report.warnings)]
    lines += ["", *_table(columns(report), cells(report))]
    lines += ["", *_table(CHECK_COLUMNS, check_cells(report)), ""]
    if plot_url is not None:
        lines += [f"[Latency and throughput by batch size]({plot_url})", ""]
    lines += [_plain(sentence) for sentence in notes(report)]
    return "\n".join(lines) + "\n"


def notes(report: BenchmarkReport) -> list[str]:
    """What the figures rest on."""
    gpu = report.gpu
    used = f"{gpu.name}: {gpu.busy_ratio:.0%} busy, {gpu.memory_mb:.0f} MB" if gpu else "not measured"
    basis = str(report.source) if report.source else "nothing"
    return [
        f"Asked with the {basis}, {report.candidate.calls} single calls.",
        f"Host {report.host.id}: {report.host.sentence()}. GPU: {used}.",
        f"Measured at {report.created_at.isoformat(timespec='seconds')} in {report.seconds:.1f} s.",
    ]


def _figures(report: BenchmarkReport) -> Iterator[list[str]]:
    both = _Both(report)
    for name, quantile in _QUANTILES:
        estimate = report.ratios.get(_STATISTICS[name]) if name in _STATISTICS else None
        yield both.row(f"latency {name}, ms", partial(_latency, quantile=quantile), "{:.3f}", estimate)
    yield both.row("rows/s, best batch", lambda side: side.throughput_per_second, "{:,.0f}")
    for size in [point.rows for point in report.candidate.batches]:
        yield both.row(f"rows/s, {size} at once", partial(_rate, size=size), "{:,.0f}")
    for count in [point.threads for point in report.candidate.threads]:
        yield both.row(f"rows/s, {_threads(count)}", partial(_threaded, count=count), "{:,.0f}")
    for name in ("load", "resident", "peak"):
        yield both.row(f"memory {name}, MB", partial(_memory, name=name), "{:.1f}")
    yield both.row("CPU, cores kept busy", lambda side: side.cpu_ratio, "{:.2f}")
    yield both.row("loading, s", lambda side: side.load_seconds, "{:.3f}")
    yield both.row("first call, ms", lambda side: side.first_call_ms, "{:.2f}")


class _Both:
    """Writes rows of two sides and their ratio."""

    def __init__(self, report: BenchmarkReport) -> None:
        self._ours, self._theirs = report.candidate, report.champion

    def row(self, figure: str, read: _Read, shape: str, estimate: Estimate | None = None) -> list[str]:
        ours, theirs = read(self._ours), read(self._theirs) if self._theirs else None
        told = [shape.format(value) if value is not None else _NONE for value in (ours, theirs)]
        return [figure, *told, _ratio(ours, theirs, estimate)]


_QUANTILES = (
    ("mean", "mean"),
    ("p50", "p50"),
    ("p90", "p90"),
    ("p95", "p95"),
    ("p99", "p99"),
    ("p99.9", "p999"),
)
_STATISTICS = {str(statistic): statistic for statistic in Statistic}


def _ratio(ours: float | None, theirs: float | None, estimate: Estimate | None) -> str:
    if estimate is not None:
        return f"{times(estimate.value)} ({times(estimate.low)} to {times(estimate.high)})"
    return times(ours / theirs) if ours is not None and theirs else _NONE


def _latency(side: Performance, quantile: str) -> float | None:
    return getattr(side.latency_ms, quantile) if side.latency_ms else None


def _memory(side: Performance, name: str) -> float | None:
    return getattr(side.memory_mb, name) if side.memory_mb else None


def _rate(side: Performance, size: int) -> float | None:
    return next((point.rows_per_second for point in side.batches if point.rows == size), None)


def _threaded(side: Performance, count: int) -> float | None:
    return next((point.rows_per_second for point in side.threads if point.threads == count), None)


def _threads(count: int) -> str:
    return f"{count} thread" if count == 1 else f"{count} threads"


def _words(name: str) -> str:
    return name.replace("_", " ")


def _table(heads: tuple[str, ...], body: list[list[str]]) -> list[str]:
    lines = [f"| {' | '.join(_plain(head) for head in heads)} |", f"|{'---|' * len(heads)}"]
    return lines + [f"| {' | '.join(_plain(cell) for cell in row)} |" for row in body]


def _plain(text: str) -> str:
    """Text that Markdown shows as it stands."""
    flat = " ".join(text.split())
    return flat.replace("\\", "\\\\").replace("|", "\\|").replace("`", "'").replace("<", "&lt;")
