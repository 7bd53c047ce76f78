"""What changed between two versions of a model, area by area; pure, the same for serving and the flows.

An area that was never measured of one side is unknown, not changed.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeAlias

Value: TypeAlias = int | float | str

# Two measurements of one version differ by about this much on a busy machine.
NOISE_RATIO = 1.1


class Area(StrEnum):
    """In the order of a report."""

    SIGNATURE = "signature"
    FILE = "file"
    SIZE = "size"
    OPERATORS = "operators"
    METRICS = "metrics"
    LATENCY = "latency"
    PARAMETERS = "parameters"
    TAGS = "tags"


_NOISY_NAMES = frozenset({"memory_mb"})
# Where a value that one side lacks was not measured there; in the other areas it is not there.
_MEASURED = frozenset({Area.SIZE, Area.METRICS, Area.LATENCY})
# An operator that a version lacks is there zero times; anything else is simply not there.
_COUNTED = frozenset({Area.OPERATORS})


@dataclass(frozen=True, slots=True)
class VersionFacts:
    """What is known of one version. An area that is missing was never looked at."""

    version: str
    areas: Mapping[Area, Mapping[str, Value]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Row:
    """One compared value; None where that side has none. Names carry their units."""

    area: Area
    name: str
    before: Value | None
    after: Value | None

    @property
    def ratio(self) -> float | None:
        """After to before, where both are numbers and the first is not zero."""
        if isinstance(self.before, str) or isinstance(self.after, str) or not self.before:
            return None
        return None if self.after is None else self.after / self.before

    @property
    def is_changed(self) -> bool:
        """Whether the two differ; measured times and memory only beyond what noise makes of them."""
        if self.area in _MEASURED and None in (self.before, self.after):
            return False
        if self.area is Area.LATENCY or self.name in _NOISY_NAMES:
            ratio = self.ratio
            if ratio is not None:
                return not 1 / NOISE_RATIO <= ratio <= NOISE_RATIO
        return self.before != self.after

    def as_json(self) -> dict[str, Any]:
        return {
            "area": str(self.area),
            "name": self.name,
            "before": self.before,
            "after": self.after,
            "ratio": None if self.ratio is None else round(self.ratio, 4),
        }


@dataclass(frozen=True, slots=True)
class Difference:
    """All compared values, and by area the versions of which nothing is known there."""

    old: str
    new: str
    rows: tuple[Row, ...]
    unknown: Mapping[Area, tuple[str, ...]]

    @property
    def changed(self) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if row.is_changed)


def difference(old: VersionFacts, new: VersionFacts) -> Difference:
    """Compare every area that both sides have."""
    unknown = {}
    rows: list[Row] = []
    for area in Area:
        before, after = old.areas.get(area), new.areas.get(area)
        if before is None or after is None:
            unknown[area] = tuple(facts.version for facts in (old, new) if area not in facts.areas)
        else:
            rows += _rows(area, before, after)
    return Difference(old.version, new.version, tuple(rows), unknown)


def _rows(area: Area, before: Mapping[str, Value], after: Mapping[str, Value]) -> Iterator[Row]:
    absent = 0 if area in _COUNTED else None
    for name in dict.fromkeys((*before, *after)):
        yield Row(area, name, before.get(name, absent), after.get(name, absent))
