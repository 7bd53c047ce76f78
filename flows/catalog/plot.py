"""The picture of a benchmark: latency and throughput by batch size, versions side by side, as a PNG.

The only module that imports matplotlib, and only when a picture is drawn.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

from flows.catalog.benchmark_report import BenchmarkReport
from flows.catalog.performance import BatchPoint, Performance

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, slots=True)
class _Style:
    color: str
    marker: str
    line: str


# Told apart by shape and shade as well as by colour.
_STYLES = (_Style("#0b5fa5", "o", "-"), _Style("#c25e00", "s", "--"))
_INCHES = (11.0, 4.6)
_DOTS_PER_INCH = 110


def latency_plot(report: BenchmarkReport) -> bytes | None:
    """A PNG; None where no batch was timed."""
    sides = [(report.candidate, f"version {report.version}")]
    if report.champion is not None:
        sides.append((report.champion, f"version {report.champion.version}"))
    drawn = [(side, name) for side, name in sides if side.batches]
    if not drawn:
        return None
    # Without pyplot, which keeps figures alive and looks for a display.
    from matplotlib.figure import Figure

    figure = Figure(figsize=_INCHES, dpi=_DOTS_PER_INCH, layout="constrained")
    latency, throughput = figure.subplots(1, 2)
    _draw(latency, drawn, lambda point: point.p50_ms)
    for (side, _), style in zip(drawn, _STYLES, strict=False):
        sizes = [point.rows for point in side.batches]
        low, high = ([point.p50_ms for point in side.batches], [point.p95_ms for point in side.batches])
        latency.fill_between(sizes, low, high, color=style.color, alpha=0.15, linewidth=0)
    _label(latency, "Latency of a call (line: p50, shade: up to p95)", "milliseconds")
    _draw(throughput, drawn, lambda point: point.rows_per_second)
    _label(throughput, "Throughput", "rows per second")
    figure.suptitle(f"{report.model}: {' and '.join(name for _, name in drawn)}", fontsize=13)
    figure.supxlabel(
        f"{report.host.cpu}, {report.host.cpus} CPUs, {report.created_at:%Y-%m-%d %H:%M} UTC", fontsize=8
    )
    drawing = BytesIO()
    figure.savefig(drawing, format="png")
    return drawing.getvalue()


def _draw(
    axes: "Axes", sides: Sequence[tuple[Performance, str]], read: Callable[[BatchPoint], float]
) -> None:
    for (side, name), style in zip(sides, _STYLES, strict=False):
        sizes = [point.rows for point in side.batches]
        values = [read(point) for point in side.batches]
        axes.plot(
            sizes,
            values,
            label=name,
            linewidth=2,
            color=style.color,
            marker=style.marker,
            linestyle=style.line,
        )


def _label(axes: "Axes", title: str, unit: str) -> None:
    axes.set_title(title, fontsize=11)
    axes.set_xlabel("rows per call")
    axes.set_ylabel(unit)
    axes.set_xscale("log", base=2)
    axes.set_ylim(bottom=0)
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
