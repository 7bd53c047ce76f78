"""The picture of a benchmark: latency and throughput by batch size, versions side by side, as a PNG.

Imports matplotlib only when a picture is drawn.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

from flows.catalog.benchmark_report import BenchmarkReport
from flows.catalog.performance import BatchPoint, Performance, Statistic
from flows.catalog.rating import times

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INCHES = (11.0, 4.8)
_DOTS_PER_INCH = 110
# Beyond this one line would lie flat on the axis.
_LINEAR_SPAN = 12.0
_LINEAR_ROOM = 1.5


@dataclass(frozen=True, slots=True)
class _Line:
    """One version as it is drawn; told apart by shape and dashes as well as by colour."""

    side: Performance
    name: str
    color: str
    marker: str
    dashes: str


def latency_plot(report: BenchmarkReport) -> bytes | None:
    """A PNG; None where no batch was timed."""
    lines = _lines(report)
    if not lines:
        return None
    # Its word about building a font cache, on the first picture of a machine, is for nobody.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    # Without pyplot, which keeps figures alive and looks for a display.
    from matplotlib.figure import Figure

    figure = Figure(figsize=_INCHES, dpi=_DOTS_PER_INCH, layout="constrained")
    latency, throughput = figure.subplots(1, 2)
    _draw(latency, lines, lambda point: point.p50_ms)
    _reach(latency, lines)
    _label(latency, lines, "Latency of a call: median, with a thin line up to p95", "milliseconds")
    _draw(throughput, lines, lambda point: point.rows_per_second)
    _label(throughput, lines, "Throughput", "rows per second")
    figure.suptitle(_title(report, lines), fontsize=12)
    figure.legend(handles=latency.get_legend_handles_labels()[0], loc="outside upper right")
    host = report.host
    where = f"{host.cpu}, {host.cpus} CPUs, {host.os}; {report.created_at:%Y-%m-%d %H:%M} UTC"
    figure.supxlabel(where, fontsize=8, color="#555555")
    drawing = BytesIO()
    figure.savefig(drawing, format="png")
    return drawing.getvalue()


def _lines(report: BenchmarkReport) -> list[_Line]:
    lines = [_Line(report.candidate, f"version {report.version}", "#0b5fa5", "o", "-")]
    if report.champion is not None:
        name = f"version {report.champion.version}"
        lines.append(_Line(report.champion, name, "#c25e00", "s", "--"))
    return [line for line in lines if line.side.batches]


def _title(report: BenchmarkReport, lines: Sequence[_Line]) -> str:
    named = f"{report.model}: {' and '.join(line.name for line in lines)}"
    ratio = report.ratios.get(Statistic.P50)
    if ratio is None or len(lines) < 2:
        return named
    return (
        f"{named}\nmedian of single rows {times(ratio.value)} times as long "
        f"({times(ratio.low)} to {times(ratio.high)})"
    )


def _draw(axes: "Axes", lines: Sequence[_Line], read: Callable[[BatchPoint], float]) -> None:
    for line in lines:
        axes.plot(
            [point.rows for point in line.side.batches],
            [read(point) for point in line.side.batches],
            label=line.name,
            color=line.color,
            marker=line.marker,
            linestyle=line.dashes,
            linewidth=2,
        )
    values = [read(point) for line in lines for point in line.side.batches]
    if max(values) > _LINEAR_SPAN * min(values):
        axes.set_yscale("log")
    else:
        axes.set_ylim(0, 1.15 * max(values))


def _reach(axes: "Axes", lines: Sequence[_Line]) -> None:
    """Up to p95, beyond the frame where a disturbed one would press the medians to the floor."""
    low, high = axes.get_ylim()
    p95s_ms = [point.p95_ms for line in lines for point in line.side.batches]
    for line in lines:
        sizes = [point.rows for point in line.side.batches]
        medians = [point.p50_ms for point in line.side.batches]
        axes.vlines(
            sizes, medians, [point.p95_ms for point in line.side.batches], color=line.color, linewidth=1
        )
    room = _LINEAR_SPAN if axes.get_yscale() == "log" else _LINEAR_ROOM
    axes.set_ylim(low, min(1.1 * max(*p95s_ms, high), room * high))


def _label(axes: "Axes", lines: Sequence[_Line], title: str, unit: str) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    sizes = sorted({point.rows for line in lines for point in line.side.batches})
    plain = FuncFormatter(lambda value, _: f"{value:,.10g}")
    axes.set_title(title, fontsize=11)
    axes.set_xlabel("rows per call (logarithmic)")
    axes.set_ylabel(f"{unit} (logarithmic)" if axes.get_yscale() == "log" else unit)
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes)
    axes.xaxis.set_minor_locator(NullLocator())
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(plain)
    if axes.get_yscale() == "log":  # 0.02, 0.05, 0.1 read easier than powers of ten
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(visible=True, alpha=0.3)
