"""The picture of a staged rollout: what each stage saw of both versions, as a PNG.

Imports matplotlib only when a picture is drawn.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

from flows.rollout.policy import MetricName, shown
from flows.rollout.render import judged_stages
from serving.store.rollouts import Rollout

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INCHES = (11.0, 4.2)
_DOTS_PER_INCH = 110
_WIDTH = 0.36
_LEGEND = "traffic that goes to the challenger; at 100 % the champion is seen before it, or by copies"
_CHAMPION, _CHALLENGER = "#c25e00", "#0b5fa5"
_SHADES = {_CHAMPION: "//", _CHALLENGER: ""}


@dataclass(frozen=True, slots=True)
class _Panel:
    """One drawing: bars of both versions by stage, from the evidence of one metric."""

    title: str
    unit: str
    champion: Sequence[float]
    challenger: Sequence[float]


def stages_plot(rollout: Rollout) -> bytes | None:
    """A PNG; None where no stage was judged."""
    stages = judged_stages(rollout)
    if not stages:
        return None
    # Its word about building a font cache, on the first picture of a machine, is for nobody.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    # Without pyplot, which keeps figures alive and looks for a display.
    from matplotlib.figure import Figure

    figure = Figure(figsize=_INCHES, dpi=_DOTS_PER_INCH, layout="constrained")
    percents = [shown(percent) for percent, _ in stages]
    panels = _panels([metrics for _, metrics in stages], rollout)
    for axes, panel in zip(figure.subplots(1, len(panels)), panels, strict=True):
        _draw(axes, panel, percents)
    figure.suptitle(f"{rollout.model}: version {rollout.version} by stages", fontsize=12)
    labels = [f"champion {_champion(rollout)}", f"challenger {rollout.version}"]
    handles = figure.axes[0].get_legend_handles_labels()[0]
    figure.legend(handles=handles, labels=labels, loc="outside upper right", fontsize=9)
    figure.supxlabel(_LEGEND, fontsize=9, color="#555555")
    drawing = BytesIO()
    figure.savefig(drawing, format="png")
    return drawing.getvalue()


def _panels(stages: Sequence[Sequence[Mapping[str, Any]]], rollout: Rollout) -> list[_Panel]:
    quantile = (rollout.spec or {})["policy"]["latency_quantile"]
    errors, latency = _evidence(stages, MetricName.ERROR_RATE), _evidence(stages, MetricName.LATENCY)
    return [
        _Panel(
            "Answers judged",
            "requests",
            [found.get("champion_requests", 0) for found in errors],
            [found.get("challenger_requests", 0) for found in errors],
        ),
        _Panel("Error rate", "% of requests", *(_percents(errors, side) for side in _SIDES)),
        _Panel(
            f"Latency, p{quantile * 100:g}",
            "milliseconds",
            *([found.get(f"{side}_ms", 0.0) for found in latency] for side in _SIDES),
        ),
    ]


_SIDES = ("champion", "challenger")


def _evidence(stages: Sequence[Sequence[Mapping[str, Any]]], metric: MetricName) -> list[Mapping[str, Any]]:
    found = ([each["evidence"] for each in metrics if each["name"] == metric] for metrics in stages)
    return [evidence[0] if evidence else {} for evidence in found]


def _percents(errors: Sequence[Mapping[str, Any]], side: str) -> list[float]:
    counts = ((found.get(f"{side}_faults", 0), found.get(f"{side}_requests", 0)) for found in errors)
    return [100 * faults / max(1, requests) for faults, requests in counts]


def _draw(axes: "Axes", panel: _Panel, percents: Sequence[str]) -> None:
    places = range(len(percents))
    for offset, values, color in (
        (-_WIDTH / 2, panel.champion, _CHAMPION),
        (_WIDTH / 2, panel.challenger, _CHALLENGER),
    ):
        bars = axes.bar(
            [place + offset for place in places],
            values,
            _WIDTH,
            color=color,
            hatch=_SHADES[color],
            edgecolor="white",
            label=color,
        )
        axes.bar_label(bars, fmt="{:.3g}", fontsize=8, padding=2)
    axes.set_xticks(list(places), percents)
    axes.set_ylim(0, 1.15 * max(*panel.champion, *panel.challenger) or 1.0)
    axes.set_title(panel.title, fontsize=11)
    axes.set_ylabel(panel.unit)
    axes.grid(visible=True, axis="y", alpha=0.3)
    axes.set_axisbelow(True)


def _champion(rollout: Rollout) -> str:
    return str((rollout.restore_point or {}).get("champion"))
