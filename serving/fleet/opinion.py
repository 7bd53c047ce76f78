"""The health of a whole server, out of what each worker says of itself; pure. The worst opinion counts."""

from collections.abc import Iterable, Mapping
from typing import Any

from serving.core.health import Status, worst

Entry = Mapping[str, Any]


def together(own: Iterable[Entry], others: Iterable[Entry]) -> list[dict[str, Any]]:
    """One entry per model, in the form of each. A model that only others follow has theirs."""
    told: dict[str, dict[str, Any]] = {}
    for entry in [*own, *others]:
        before = told.get(entry["model"])
        told[entry["model"]] = dict(entry) if before is None else _joined(before, entry)
    return [told[name] for name in sorted(told)]


def overall(entries: Iterable[Entry]) -> str:
    statuses = [Status(entry["status"]) for entry in entries]
    return str(worst(statuses) if statuses else Status.HEALTHY)


def _joined(one: Entry, other: Entry) -> dict[str, Any]:
    levels = {name: _worse(level, other["levels"].get(name, level)) for name, level in one["levels"].items()}
    advice = dict.fromkeys([*one["recommendations"], *other["recommendations"]])
    return {
        **one,
        "status": _worse(one, other)["status"],
        "levels": levels,
        "recommendations": list(advice),
    }


def _worse(one: Entry, other: Entry) -> Entry:
    """The first unless the second is strictly worse, so that equal opinions keep the answering worker's."""
    first, second = Status(one["status"]), Status(other["status"])
    return other if worst((first, second)) is not first else one
