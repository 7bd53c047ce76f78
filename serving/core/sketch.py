"""Distributions that can be added up: a quantile sketch of logarithmic buckets, and the moments.

Telemetry keeps one of each per version and second; minutes, hours and several workers are sums of them.
Adding is associative and commutative and the empty one changes nothing, so the order never matters.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from serving.core.datatypes import Array

RELATIVE_ERROR = 0.01
_GAMMA = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
_PER_LOG = 1 / math.log(_GAMMA)
# What lies outside is counted at the nearer end, which bounds a sketch to about two thousand buckets.
_SMALLEST, _LARGEST = 1e-9, 1e9
_FIRST = math.ceil(math.log(_SMALLEST) * _PER_LOG)
_LAST = math.ceil(math.log(_LARGEST) * _PER_LOG)


class Sketch:
    """Counts of values that are not negative, in buckets `(gamma^(i-1), gamma^i]`.

    A quantile is within 1 % of a value that has that rank, for values from 1e-9 to 1e9 in whatever unit;
    smaller ones count as 0. Source: Masson, Rim and Lee, "DDSketch: a fast and fully-mergeable quantile
    sketch with relative-error guarantees", PVLDB 12(12), 2019, section 2.
    """

    __slots__ = ("_buckets", "_zeros")

    def __init__(self, buckets: Mapping[int, int] | None = None, zeros: int = 0) -> None:
        self._buckets: dict[int, int] = dict(buckets or {})
        self._zeros = zeros

    @classmethod
    def of(cls, values: Array) -> "Sketch":
        """The sketch of many values at once, (count,) of any real datatype; NaN is left out."""
        numbers = values.astype(np.float64)
        numbers = numbers[~np.isnan(numbers)]
        positive = numbers[numbers >= _SMALLEST]
        places = np.ceil(np.log(np.minimum(positive, _LARGEST)) * _PER_LOG).astype(np.int64)
        found, counts = np.unique(places, return_counts=True)
        buckets = dict(zip(found.tolist(), counts.tolist(), strict=True))
        return cls(buckets, len(numbers) - len(positive))

    @property
    def count(self) -> int:
        return self._zeros + sum(self._buckets.values())

    def add(self, value: float) -> None:
        """Count one value."""
        if value < _SMALLEST:
            self._zeros += 1
            return
        place = math.ceil(math.log(min(value, _LARGEST)) * _PER_LOG)
        self._buckets[place] = self._buckets.get(place, 0) + 1

    def plus(self, other: "Sketch", times: int = 1) -> "Sketch":
        """The sketch of both; `times` of -1 takes away what was added before, or is yet to be added."""
        buckets = dict(self._buckets)
        for place, count in other._buckets.items():
            buckets[place] = buckets.get(place, 0) + times * count
        left = {place: count for place, count in buckets.items() if count}
        return Sketch(left, self._zeros + times * other._zeros)

    def quantile(self, ratio: float) -> float | None:
        """The value of rank `ratio` between 0 and 1; None of nothing."""
        total = self.count
        if total <= 0:
            return None
        rank, seen = ratio * (total - 1), self._zeros
        if rank < seen:
            return 0.0
        for place in sorted(self._buckets):
            seen += self._buckets[place]
            if rank < seen:
                return _middle(place)
        return _middle(max(self._buckets))

    def share_above(self, limit: float) -> float | None:
        """The share of values beyond `limit`, which is met to 1 %; None of nothing."""
        total = self.count
        if total <= 0:
            return None
        above = sum(count for place, count in self._buckets.items() if _middle(place) > limit)
        return above / total

    def as_numbers(self) -> list[int]:
        """A few bytes per bucket as JSON: the zeros, then distance from the last bucket and count in turn."""
        numbers, last = [self._zeros], 0
        for place in sorted(self._buckets):
            numbers += (place - last, self._buckets[place])
            last = place
        return numbers

    @classmethod
    def from_numbers(cls, numbers: Sequence[int]) -> "Sketch":
        """What `as_numbers` gave. Raises ValueError for anything else."""
        if len(numbers) % 2 == 0:
            raise ValueError(f"a sketch is an odd count of numbers, not {len(numbers)}")
        buckets: dict[int, int] = {}
        place = 0
        for distance, count in zip(numbers[1::2], numbers[2::2], strict=True):
            place += distance
            buckets[place] = count
        return cls(buckets, numbers[0])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sketch) and self._buckets == other._buckets and self._zeros == other._zeros

    __hash__ = None  # type: ignore[assignment]  # it changes as values are added

    def __repr__(self) -> str:
        return f"Sketch(count={self.count})"


def total(sketches: Iterable[Sketch]) -> Sketch:
    """The sum of many, without a copy for each."""
    buckets: dict[int, int] = {}
    zeros = 0
    for sketch in sketches:
        zeros += sketch._zeros
        for place, count in sketch._buckets.items():
            buckets[place] = buckets.get(place, 0) + count
    return Sketch({place: count for place, count in buckets.items() if count}, zeros)


@dataclass(frozen=True, slots=True)
class Moments:
    """Count, sum, sum of squares and range of some numbers; of none, the range is infinitely empty."""

    count: int = 0
    sum: float = 0.0
    squares: float = 0.0
    min: float = math.inf
    max: float = -math.inf

    @classmethod
    def of(cls, values: Array) -> "Moments":
        """Of many numbers at once, (count,) of any real datatype."""
        if not len(values):
            return NO_MOMENTS
        numbers = values.astype(np.float64)
        return cls(
            len(numbers),
            float(numbers.sum()),
            float(numbers @ numbers),
            float(numbers.min()),
            float(numbers.max()),
        )

    @property
    def mean(self) -> float | None:
        return self.sum / self.count if self.count else None

    @property
    def variance(self) -> float | None:
        """Of a sample, so None of fewer than two numbers."""
        if self.count < 2:
            return None
        return max(0.0, self.squares - self.sum * self.sum / self.count) / (self.count - 1)

    def plus(self, other: "Moments") -> "Moments":
        return Moments(
            self.count + other.count,
            self.sum + other.sum,
            self.squares + other.squares,
            min(self.min, other.min),
            max(self.max, other.max),
        )

    def as_numbers(self) -> list[float]:
        """For JSON; empty of nothing, because JSON knows no infinity."""
        return [self.count, self.sum, self.squares, self.min, self.max] if self.count else []

    @classmethod
    def from_numbers(cls, numbers: Sequence[float]) -> "Moments":
        """What `as_numbers` gave. Raises ValueError for anything else."""
        if not numbers:
            return NO_MOMENTS
        if len(numbers) != 5:
            raise ValueError(f"moments are five numbers, not {len(numbers)}")
        count, *others = numbers
        return cls(int(count), *map(float, others))


NO_MOMENTS = Moments()


def _middle(place: int) -> float:
    """The value whose relative distance to both ends of its bucket is the same, and at most 1 %."""
    clamped = min(max(place, _FIRST), _LAST)
    return float(2 * _GAMMA**clamped / (_GAMMA + 1))
