"""How the answers of two versions to the same inputs differ: pure arithmetic, mergeable over any number
of pairs, replicas and minutes.

Differences are always the other version's from the champion's, whichever of the two answered the caller.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np

from serving.core.datatypes import DTYPES, Array
from serving.core.magnitudes import Magnitudes

# Of a larger tensor, evenly spread elements are compared.
MAX_ELEMENTS = 65_536
MAX_EXAMPLES = 5
# An output without labels disagrees where an element is further away than this.
TOLERANCE_RATIO = 0.1
_TOLERANCE = 1e-6
# So that no sum of differences overflows.
_LARGEST = 1e150
_NUMBERS, _TEXTS = "iub", "OSU"

Outputs = Mapping[str, Array]


class Role(StrEnum):
    """As what a version is compared with the champion."""

    CHALLENGER = "challenger"
    SHADOW = "shadow"


@dataclass(frozen=True, slots=True, order=True)
class Pair:
    """Whose answers are compared.

    `is_control` where the other version answered the caller and the champion got the copy; else the
    champion answered. Only the copy's time is free of what callers do.
    """

    model: str
    champion: str
    other: str
    role: Role
    is_control: bool = False


@dataclass(slots=True)
class OutputTally:
    """One output over many pairs.

    Floats have differences, over elements finite on both sides; two-dimensional ones with several columns
    have labels too, the column of each row's largest value. The elements of anything else are labels.
    `non_finite` counts elements that are not finite in both answers and not the same either,
    `incomparable` pairs of another shape or type.
    """

    elements: int = 0
    difference_sum: float = 0.0
    difference_max: float = 0.0
    differences: Magnitudes = field(default_factory=Magnitudes)
    champion: Magnitudes = field(default_factory=Magnitudes)
    far_elements: int = 0
    labels: int = 0
    labels_differing: int = 0
    non_finite: int = 0
    incomparable: int = 0

    @property
    def mean_difference(self) -> float | None:
        return self.difference_sum / self.elements if self.elements else None

    @property
    def disagrees(self) -> bool:
        """Whether a caller would have read something else."""
        is_far = self.far_elements > 0 and not self.labels
        return is_far or bool(self.labels_differing or self.non_finite or self.incomparable)

    def merge(self, other: "OutputTally") -> None:
        self.elements += other.elements
        self.difference_sum += other.difference_sum
        self.difference_max = max(self.difference_max, other.difference_max)
        self.differences.merge(other.differences)
        self.champion.merge(other.champion)
        self.far_elements += other.far_elements
        self.labels += other.labels
        self.labels_differing += other.labels_differing
        self.non_finite += other.non_finite
        self.incomparable += other.incomparable

    def describe(self) -> str:
        """What differs, for a person; of one pair."""
        if self.incomparable:
            return "other shape, type or absent"
        found = []
        if self.labels_differing:
            found.append(f"{self.labels_differing} of {self.labels} labels differ")
        if self.non_finite:
            found.append(f"{self.non_finite} elements are NaN or infinite in one answer")
        if self.elements and self.difference_max:
            found.append(
                f"differs by {self.mean_difference:.4g} on average, {self.difference_max:.4g} at most"
            )
        return ", ".join(found) or "equal"

    def as_json(self) -> dict[str, Any]:
        return {
            "elements": self.elements,
            "difference_sum": self.difference_sum,
            "difference_max": self.difference_max,
            "differences": self.differences.as_json(),
            "champion": self.champion.as_json(),
            "far_elements": self.far_elements,
            "labels": self.labels,
            "labels_differing": self.labels_differing,
            "non_finite": self.non_finite,
            "incomparable": self.incomparable,
        }

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> "OutputTally":
        sketches = {name: Magnitudes.from_json(raw[name]) for name in ("differences", "champion")}
        return cls(**{**raw, **sketches})


def compare(champion: Outputs, other: Outputs) -> dict[str, OutputTally]:
    """One pair of answers to the same input, by output; an output that one of them lacks is incomparable."""
    return {
        name: _compared(champion.get(name), other.get(name))
        for name in [*champion, *(other.keys() - champion)]
    }


def _compared(champion: Array | None, other: Array | None) -> OutputTally:
    if champion is None or other is None or champion.shape != other.shape:
        return OutputTally(incomparable=1)
    if _is_float(champion) and _is_float(other):
        return _floats(champion, other)
    if _is_float(champion) or _is_float(other) or not _are_alike(champion, other):
        return OutputTally(incomparable=1)
    differing = np.asarray(_thinned(champion) != _thinned(other), np.bool_)
    return OutputTally(labels=differing.size, labels_differing=int(differing.sum()))


def _floats(champion: Array, other: Array) -> OutputTally:
    one, two = _wide(_thinned(champion)), _wide(_thinned(other))
    both = np.isfinite(one) & np.isfinite(two)
    is_same = (one == two) | (np.isnan(one) & np.isnan(two))
    size = np.abs(one[both])
    with np.errstate(over="ignore"):
        difference = np.minimum(np.abs(two[both] - one[both]), _LARGEST)
    tally = OutputTally(
        elements=difference.size,
        difference_sum=float(difference.sum()),
        difference_max=float(difference.max(initial=0.0)),
        far_elements=int((difference > TOLERANCE_RATIO * size + _TOLERANCE).sum()),
        non_finite=int((~both & ~is_same).sum()),
    )
    tally.differences.add(difference)
    tally.champion.add(size)
    if champion.ndim == 2 and champion.shape[1] > 1:
        step = -(-champion.size // MAX_ELEMENTS) or 1
        _count_labels(tally, _wide(champion[::step]), _wide(other[::step]))
    return tally


def _count_labels(tally: OutputTally, champion: Array, other: Array) -> None:
    readable = np.isfinite(champion).all(axis=1) & np.isfinite(other).all(axis=1)
    differing = champion[readable].argmax(axis=1) != other[readable].argmax(axis=1)
    tally.labels, tally.labels_differing = differing.size, int(differing.sum())


def _are_alike(champion: Array, other: Array) -> bool:
    kinds = champion.dtype.kind + other.dtype.kind
    return all(kind in _NUMBERS for kind in kinds) or all(kind in _TEXTS for kind in kinds)


def _is_float(array: Array) -> bool:
    return array.dtype.kind == "f" or array.dtype == DTYPES["BF16"]


def _wide(array: Array) -> Array:
    with np.errstate(invalid="ignore"):  # widening a signalling NaN would warn
        return array.astype(np.float64)


def _thinned(array: Array) -> Array:
    flat = array.reshape(-1)
    return flat[:: -(-flat.size // MAX_ELEMENTS)] if flat.size > MAX_ELEMENTS else flat


@dataclass(frozen=True, slots=True)
class Example:
    """One request on which the versions disagreed. `at` is ISO-8601 UTC."""

    request_id: str
    at: str
    summary: str


@dataclass(slots=True)
class Tally:
    """Many pairs of answers of one champion and one other version; `outputs` as the champion declares them.

    `failed` counts copies that the version which got them did not answer; they are no pairs. Times are
    from asking a version to its answer, its queue included.
    """

    pairs: int = 0
    disagreeing: int = 0
    failed: int = 0
    champion_seconds: float = 0.0
    other_seconds: float = 0.0
    champion_times: Magnitudes = field(default_factory=Magnitudes)
    other_times: Magnitudes = field(default_factory=Magnitudes)
    outputs: dict[str, OutputTally] = field(default_factory=dict)
    examples: list[Example] = field(default_factory=list)

    def add(
        self, outputs: Mapping[str, OutputTally], champion_seconds: float, other_seconds: float
    ) -> list[str]:
        """Count one pair; the outputs on which it disagrees."""
        self.pairs += 1
        self.champion_seconds += champion_seconds
        self.other_seconds += other_seconds
        self.champion_times.add_one(champion_seconds)
        self.other_times.add_one(other_seconds)
        for name, output in outputs.items():
            self.outputs.setdefault(name, OutputTally()).merge(output)
        disagreeing = [name for name, output in outputs.items() if output.disagrees]
        self.disagreeing += bool(disagreeing)
        return disagreeing

    def keep(self, example: Example) -> None:
        """The first few are kept."""
        if len(self.examples) < MAX_EXAMPLES:
            self.examples.append(example)

    def merge(self, other: "Tally") -> None:
        self.pairs += other.pairs
        self.disagreeing += other.disagreeing
        self.failed += other.failed
        self.champion_seconds += other.champion_seconds
        self.other_seconds += other.other_seconds
        self.champion_times.merge(other.champion_times)
        self.other_times.merge(other.other_times)
        for name, output in other.outputs.items():
            self.outputs.setdefault(name, OutputTally()).merge(output)
        for example in other.examples:
            self.keep(example)

    def as_json(self) -> dict[str, Any]:
        return {
            "pairs": self.pairs,
            "disagreeing": self.disagreeing,
            "failed": self.failed,
            "champion_seconds": self.champion_seconds,
            "other_seconds": self.other_seconds,
            "champion_times": self.champion_times.as_json(),
            "other_times": self.other_times.as_json(),
            # Pairs, because the order in which a model declares them tells, and stored objects are sorted.
            "outputs": [[name, output.as_json()] for name, output in self.outputs.items()],
            "examples": [[e.request_id, e.at, e.summary] for e in self.examples],
        }

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> "Tally":
        return cls(
            **{
                **raw,
                "champion_times": Magnitudes.from_json(raw["champion_times"]),
                "other_times": Magnitudes.from_json(raw["other_times"]),
                # `dict`: minutes of an earlier release are objects.
                "outputs": {n: OutputTally.from_json(output) for n, output in dict(raw["outputs"]).items()},
                "examples": [Example(*example) for example in raw["examples"]],
            }
        )
