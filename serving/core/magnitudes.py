"""How large many values are: mergeable counts in buckets of equal relative width.

Any quantile within 2 % of its value, whatever was merged in which order.
Source: DDSketch (Masson, Rim and Lee, 2019), with bounds in place of collapsing buckets.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from serving.core.datatypes import Array

_ACCURACY = 0.02
_GAMMA = (1 + _ACCURACY) / (1 - _ACCURACY)
_LOG_GAMMA = math.log(_GAMMA)
# Below counts as zero, above as the bound: some 1,400 buckets at most.
_SMALLEST = 1e-12
_LARGEST = 1e12


@dataclass(slots=True)
class Magnitudes:
    """Counts of absolute values; `buckets` by exponent, bucket i holds (gamma^(i-1), gamma^i]."""

    zeros: int = 0
    buckets: dict[int, int] = field(default_factory=dict)

    @property
    def count(self) -> int:
        return self.zeros + sum(self.buckets.values())

    def add(self, values: Array) -> None:
        """Count values that are finite and not negative, of any shape."""
        flat = np.minimum(values.ravel(), _LARGEST)
        sized = flat[flat >= _SMALLEST]
        self.zeros += flat.size - sized.size
        exponents = np.ceil(np.log(sized.astype(np.float64)) / _LOG_GAMMA).astype(np.int64)
        for exponent, count in zip(*(a.tolist() for a in np.unique_counts(exponents)), strict=True):
            self.buckets[exponent] = self.buckets.get(exponent, 0) + count

    def add_one(self, value: float) -> None:
        if value < _SMALLEST:
            self.zeros += 1
            return
        exponent = math.ceil(math.log(min(value, _LARGEST)) / _LOG_GAMMA)
        self.buckets[exponent] = self.buckets.get(exponent, 0) + 1

    def merge(self, other: "Magnitudes") -> None:
        self.zeros += other.zeros
        for exponent, count in other.buckets.items():
            self.buckets[exponent] = self.buckets.get(exponent, 0) + count

    def quantile(self, ratio: float) -> float | None:
        """The value below which `ratio` of the values lie; None where none was counted."""
        rank, passed = ratio * (self.count - 1), self.zeros
        if 0 <= rank < passed:
            return 0.0
        for exponent in sorted(self.buckets):
            passed += self.buckets[exponent]
            if rank < passed:
                return float(2 * _GAMMA**exponent / (_GAMMA + 1))
        return None

    @property
    def median(self) -> float | None:
        return self.quantile(0.5)

    def as_json(self) -> dict[str, Any]:
        return {"zeros": self.zeros, "buckets": [[e, n] for e, n in sorted(self.buckets.items())]}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> "Magnitudes":
        return cls(raw["zeros"], dict(raw["buckets"]))
