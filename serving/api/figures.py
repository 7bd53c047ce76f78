"""Model-info's numbers: a version's statistics, what its description says, and what changed before it.

Pure; null stands for what nobody has measured, so that the answer's shape does not depend on it.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from serving.core.difference import difference
from serving.core.model import Tag
from serving.store import observed
from serving.store.observed import NOT_OBSERVED, Observed
from serving.store.registry import ModelVersion, Run
from serving.store.version_reports import QUANTILES, VersionReports, facts_of, latency_ms, measured, scores
from serving.telemetry.metrics import Tally

_CHANGES_TOLD = 50
_SCORES = ("accuracy", "precision", "recall", "f1")
_ERRORS = ("mae", "rmse", "r2")


def statistics(
    known: VersionReports, tags: Mapping[str, str], tally: Tally, seen: Observed = NOT_OBSERVED
) -> dict[str, Any]:
    """The version's latest results; `error_rate` is what the server's workers counted.

    What labels say of live answers takes the place of the evaluation's results once there are enough;
    `source` says which they are.
    """
    reached, latency = scores(known), latency_ms(known)
    source = "evaluation" if reached else None
    if seen.has_enough_labels:
        reached, source = reached | observed.scores(seen.scored), "live"
    quantiles = {name: latency[name] for name in QUANTILES if name in latency}
    declared = number(tags.get(Tag.LATENCY_P50_MS))
    if not quantiles and declared is not None:
        quantiles = {"p50": declared}
    return {
        **{name: reached.get(name) for name in _SCORES},
        **{name: reached[name] for name in _ERRORS if name in reached},
        "source": source,
        "mean_latency_ms": latency.get("mean"),
        "latency_quantiles_ms": quantiles or None,
        "throughput": measured(known, "throughput_per_second"),
        "cpu": measured(known, "cpu_ratio"),
        "first_call_ms": measured(known, "first_call_ms"),
        "load_seconds": measured(known, "load_seconds"),
        "error_rate": tally.error_ratio,
        "answers": tally.answers,
        "last_benchmark": known.benchmarked_at.isoformat() if known.benchmarked_at else None,
    }


def memory_mb(known: VersionReports, cost_bytes: int, tags: Mapping[str, str]) -> float | None:
    """As measured in a clean process, else as loading was seen to take here, else as the registry says."""
    found = measured(known, "memory_mb")
    if found is None and cost_bytes:
        return round(cost_bytes / (1 << 20), 1)
    return number(tags.get(Tag.MEMORY_MB)) if found is None else found


def described(known: VersionReports) -> dict[str, Any]:
    """What the stored description adds to a version's entry."""
    body = known.description
    told: Mapping[str, Any] = body.get("told") or {}
    runtimes: Mapping[str, str] = body.get("runtimes") or {}
    needed = [f"{name}{wanted}" for name, wanted in runtimes.items() if name.islower()]
    names = ("parameter_count", "layer_count", "operators", "opsets", "producer", "producer_version")
    return {
        **{name: body.get(name) for name in names},
        "runtimes": dict(runtimes) if body else None,
        "dependencies": (list(told.get("dependencies") or ()) or needed) if body else None,
        "labels": list(told.get("labels") or ()) if body else None,
        "licence": told.get("licence"),
        "notes": list(body.get("notes") or ()),
    }


def tensors(body: Mapping[str, Any], role: str) -> list[dict[str, Any]] | None:
    """Input or output specs of a description, in the form of those of a loaded version."""
    if not body:
        return None
    return [
        {
            "name": tensor.get("name"),
            "datatype": tensor.get("datatype"),
            "shape": [length if isinstance(length, int) else -1 for length in tensor.get("shape") or (-1,)],
        }
        for tensor in body.get(role) or ()
    ]


def version_history(
    known: Sequence[tuple[ModelVersion, Run | None, VersionReports]],
) -> dict[str, dict[str, Any]]:
    """By version: what changed against the one listed before it; the first has no entry."""
    told = {}
    for before, after in pairwise(facts_of(*each) for each in known):
        found = difference(before, after)
        told[after.version] = {
            "since": before.version,
            "changes": [row.as_json() for row in found.changed[:_CHANGES_TOLD]],
            "changed": len(found.changed),
            "unknown": [str(area) for area in found.unknown],
        }
    return told


def number(text: str | None) -> float | None:
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None
