"""What is known of a model's versions from live traffic: labels, the last minutes, causes of failures.

Read by model-info and by the functional health check; one call, few queries.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Engine

from serving.core.model import Variant
from serving.core.scored import Scored
from serving.core.window import NOTHING, WindowStats, combined
from serving.store import failures, telemetry
from serving.store.failures import Cause
from serving.store.telemetry import NOT_LIVE, Live

ENOUGH_LABELS = 50
"""Labels from which on live results say more than those of an evaluation set."""

_LABELS_OVER = timedelta(days=7)
_LABEL_SPANS = (timedelta(hours=1), timedelta(days=1), _LABELS_OVER)
_LATELY = timedelta(minutes=5)
_CAUSES = 20


@dataclass(frozen=True, slots=True)
class Observed:
    """Of one version: `live` of the last week's answers, `lately` all that happened in five minutes."""

    live: Live = NOT_LIVE
    lately: WindowStats = NOTHING
    causes: Sequence[Cause] = ()

    @property
    def scored(self) -> Scored:
        return self.live.stats.scored

    @property
    def has_enough_labels(self) -> bool:
        return self.scored.labelled >= ENOUGH_LABELS


NOT_OBSERVED = Observed()


def observed(engine: Engine, model: str, now: datetime, born: datetime | None = None) -> dict[str, Observed]:
    """By version. `born` is when the model was registered: what is older is about a namesake."""
    start = now - _LABELS_OVER
    live = telemetry.live(engine, model, max(start, born) if born is not None else start, now)
    lately: dict[str, list[WindowStats]] = {}
    for (version, variant), stats in telemetry.by_variant(engine, model, now - _LATELY, now).items():
        if variant != Variant.SHADOW:
            lately.setdefault(version, []).append(stats)
    causes: dict[str, list[Cause]] = {}
    for cause in failures.recent(engine, model, limit=failures.MAX_PER_MODEL):
        if born is None or cause.first_seen_at >= born:
            causes.setdefault(cause.ref.version, []).append(cause)
    return {
        version: Observed(
            live.get(version, NOT_LIVE),
            combined(lately.get(version, ())),
            tuple(causes.get(version, ())[:_CAUSES]),
        )
        for version in live.keys() | lately.keys() | causes.keys()
    }


def labelled_lately(
    engine: Engine, model: str, version: str, now: datetime, born: datetime | None = None
) -> Live | None:
    """The shortest of the last hour, day and week that has enough labels; None where none has."""
    for span in _LABEL_SPANS:
        since = now - span if born is None else max(now - span, born)
        live = telemetry.live(engine, model, since, now).get(version, NOT_LIVE)
        if live.stats.scored.labelled >= ENOUGH_LABELS:
            return live
    return None


def scores(scored: Scored) -> dict[str, float]:
    """Results on labels by the names that evaluation results have; without those not known."""
    found = {"accuracy": scored.accuracy, **scored.averages(), "mae": scored.mae, "rmse": scored.rmse}
    return {name: value for name, value in found.items() if value is not None}


def as_json(seen: Observed) -> Mapping[str, Any]:
    """The `live` block of a version in model-info; null for what nothing is known of."""
    known, scored, lately = scores(seen.scored), seen.scored, seen.lately
    return {
        **{name: known.get(name) for name in ("accuracy", "precision", "recall", "f1", "mae", "rmse")},
        "labelled": scored.labelled,
        "answered": seen.live.answered_rows,
        "coverage": seen.live.coverage,
        "label_delay_seconds": {
            name: scored.delays.quantile(ratio) for name, ratio in (("p50", 0.5), ("p95", 0.95))
        },
        "lately": {
            "seconds": int(_LATELY.total_seconds()),
            "requests": lately.requests,
            "requests_per_second": lately.requests / _LATELY.total_seconds(),
            "error_rate": lately.error_ratio,
            "latency_ms": {
                name: lately.latency_ms(ratio) for name, ratio in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
            },
        },
    }
