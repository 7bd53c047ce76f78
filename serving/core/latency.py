"""Whether answers are slower: non-inferiority of a quantile, from distributions. One rule for all who judge.

The judge of a rollout asks it of two versions side by side, the watch of a champion and the one before.
"""

from dataclasses import dataclass
from math import exp, floor, lgamma, log, sqrt
from typing import Protocol

_MS = 1000.0


class Times(Protocol):
    """A distribution of seconds."""

    @property
    def count(self) -> int: ...

    def quantile(self, ratio: float) -> float | None: ...


@dataclass(frozen=True, slots=True)
class Contrast:
    """A quantile of both, and the bounds that speak for the slower: upper of `one`, lower of `other`."""

    one_ms: float
    other_ms: float
    one_high_ms: float
    other_low_ms: float
    is_beyond: bool
    is_proved: bool


@dataclass(frozen=True, slots=True)
class LatencyRule:
    """Slower only beyond both limits, and for certain only where a sample proves that at level `alpha`."""

    quantile: float = 0.95
    max_ratio: float = 1.25
    max_extra_ms: float = 5.0
    alpha: float = 0.01

    @property
    def name(self) -> str:
        return f"p{self.quantile * 100:g}"

    def is_beyond(self, one_ms: float, other_ms: float) -> bool:
        return other_ms > self.max_ratio * one_ms and other_ms - one_ms > self.max_extra_ms

    def contrast(self, one: Times, other: Times) -> Contrast:
        """Whether `other` is slower; of nothing, everything is 0.

        Proved where even the lower bound of its quantile is beyond the limits of the upper bound of the
        other's. The bounds are order statistics, so no shape of the distribution is assumed.
        """
        one_ms, other_ms = _ms(one, self.quantile), _ms(other, self.quantile)
        high = _ms(one, quantile_ranks(one.count, self.quantile, self.alpha)[1])
        low = _ms(other, quantile_ranks(other.count, self.quantile, self.alpha)[0])
        is_beyond, is_proved = self.is_beyond(one_ms, other_ms), self.is_beyond(high, low)
        return Contrast(one_ms, other_ms, high, low, is_beyond, is_proved)


def quantile_ranks(count: int, ratio: float, alpha: float) -> tuple[float, float]:
    """Between which ranks, as ratios, the true quantile lies with probability `1 - alpha`.

    Free of any distribution: the number of values below the quantile is binomial. An end that the
    count does not reach is 0 or 1.
    """
    if count < 2:
        return 0.0, 1.0
    low, high = (_hits_at(count, ratio, level) for level in (alpha / 2, 1 - alpha / 2))
    return max(0.0, (low - 1) / (count - 1)), min(1.0, high / (count - 1))


def _hits_at(count: int, ratio: float, level: float) -> int:
    """The binomial quantile: the fewest hits of `count` that are not exceeded with probability `level`."""
    spread = 12 * sqrt(count * ratio * (1 - ratio)) + 20  # what lies below is too rare to count
    passed = 0.0
    for hits in range(max(0, floor(count * ratio - spread)), count):
        ways = lgamma(count + 1) - lgamma(hits + 1) - lgamma(count - hits + 1)
        passed += exp(ways + hits * log(ratio) + (count - hits) * log(1 - ratio))
        if passed >= level:
            return hits
    return count


def _ms(times: Times, ratio: float) -> float:
    return (times.quantile(ratio) or 0.0) * _MS
