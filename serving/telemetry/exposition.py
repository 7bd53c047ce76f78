"""The numbers of several workers as those of one server, for `/metrics`; pure, over what each told.

Counters and histograms add up. Of present values amounts add up too, while states, ages and settings are
the server's highest. What a worker counted stays counted when it has ended; what it measured does not.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.samples import Sample

Family = dict[str, Any]
_ADDED_TYPES = frozenset({"counter", "histogram"})
_AMOUNTS = ("_bytes", "_requests", "_requests_in_flight", "_labels", "_windows", "_fds")
_STARTED = "_created"


def told(registry: CollectorRegistry) -> list[Family]:
    """What one worker tells."""
    return [
        {
            "name": metric.name,
            "text": metric.documentation,
            "type": metric.type,
            "samples": [[sample.name, sample.labels, sample.value] for sample in metric.samples],
        }
        for metric in registry.collect()
    ]


def together(workers: Iterable[Sequence[Family]]) -> list[Family]:
    """One family per name."""
    found: dict[str, Family] = {}
    values: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
    for family in (family for families in workers for family in families):
        found.setdefault(family["name"], family)
        known = values.setdefault(family["name"], {})
        for name, labels, value in family["samples"]:
            place = (name, tuple(sorted(labels.items())))
            known[place] = value if place not in known else _joined(family, name, known[place], value)
    return [
        family | {"samples": [[name, dict(labels), value] for (name, labels), value in values[key].items()]}
        for key, family in found.items()
    ]


def counts(families: Iterable[Family]) -> list[Family]:
    """Those that outlive who counted them."""
    return [family for family in families if family["type"] in _ADDED_TYPES]


def text(families: Sequence[Family]) -> bytes:
    """The Prometheus text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Told(families))
    return generate_latest(registry)


class _Told:
    def __init__(self, families: Sequence[Family]) -> None:
        self._families = families

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        for family in self._families:
            metric = Metric(family["name"], family["text"], family["type"])
            metric.samples = [Sample(name, labels, value) for name, labels, value in family["samples"]]
            yield metric


def _joined(family: Family, name: str, one: float, other: float) -> float:
    if name.endswith(_STARTED):
        return min(one, other)
    if family["type"] in _ADDED_TYPES or family["name"].endswith(_AMOUNTS):
        return one + other
    if math.isnan(one) or math.isnan(other):
        return other if math.isnan(one) else one
    return max(one, other)
