"""How sure a number from a sample is: intervals and paired tests, each with its source.

Pure; called by the scores of an evaluation. Chance is seeded, so the same set gives the same interval.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from scipy.special import bdtr

from serving.core.datatypes import Array

_SEED = 0
_RESAMPLES = 1000
_MAX_BLOCKS = 10_000
_MAX_DRAWS = 1 << 22

Statistic = Callable[[Array], Array]
"""From sums (resamples, columns) to values (resamples, figures)."""


@dataclass(frozen=True, slots=True)
class Interval:
    low: float
    high: float


def share_interval(right: int, total: int, confidence: float) -> Interval:
    """Of a share of right answers. Source: Wilson, JASA 22 (1927) 209-212."""
    z, share = _quantile(confidence), right / total
    middle = share + z * z / (2 * total)
    spread = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return Interval(max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale))


def drop_interval(worse: int, better: int, total: int, confidence: float) -> Interval:
    """Of the drop in a share of right answers, on the same rows for both sides.

    `worse` counts rows that only the champion has right, `better` those that only the candidate has.
    Source: Agresti and Min, Statistics in Medicine 24 (2005) 729-740: Wald's interval after half an
    observation was added to each of the four cells.
    """
    rows, only_champion, only_candidate = total + 2.0, worse + 0.5, better + 0.5
    drop = (only_champion - only_candidate) / rows
    variance = (only_champion + only_candidate) - (only_champion - only_candidate) ** 2 / rows
    spread = _quantile(confidence) * math.sqrt(variance) / rows
    return Interval(max(-1.0, drop - spread), min(1.0, drop + spread))


def chance_of_drop(worse: int, better: int) -> float:
    """The chance of at least `worse` losses among the rows that differ, were both sides equally good.

    Source: McNemar, Psychometrika 12 (1947) 153-157, in its exact one-sided form.
    """
    return float(bdtr(better, worse + better, 0.5)) if worse + better else 1.0


def resampled(rows: Array, statistic: Statistic) -> Array:
    """What `statistic` gives on resampled rows: (resamples, figures), from rows (count, columns).

    More than 10,000 rows are first summed in that many blocks, which a random order of rows allows.
    Source: Efron, Annals of Statistics 7 (1979) 1-26.
    """
    blocks = _blocks(rows)
    return _drawn(
        np.full(len(blocks), 1 / len(blocks)), len(blocks), lambda weights: weights @ blocks, statistic
    )


def resampled_counts(counts: Array, statistic: Statistic) -> Array:
    """The same where rows fall into a few kinds: `counts` (kinds,) of each; `statistic` takes counts."""
    total = int(counts.sum())
    return _drawn(counts / total, total, lambda weights: weights, statistic)


def percentiles(values: Array, confidence: float) -> Interval:
    """The interval that holds `confidence` of resampled values (resamples,)."""
    outside = (1 - confidence) / 2
    low, high = np.quantile(values, [outside, 1 - outside])
    return Interval(float(low), float(high))


def _drawn(shares: Array, total: int, summed: Callable[[Array], Array], statistic: Statistic) -> Array:
    """Resamples in portions, so that memory stays bounded however many rows or kinds there are."""
    chance = np.random.default_rng(_SEED)
    portion = max(1, min(_RESAMPLES, _MAX_DRAWS // len(shares)))
    found = []
    for start in range(0, _RESAMPLES, portion):
        weights = chance.multinomial(total, shares, size=min(portion, _RESAMPLES - start))
        found.append(statistic(summed(weights.astype(np.float64))))
    return np.concatenate(found)


def _blocks(rows: Array) -> Array:
    length = -(-len(rows) // _MAX_BLOCKS)
    return rows if length == 1 else np.add.reduceat(rows, range(0, len(rows), length), axis=0)


def _quantile(confidence: float) -> float:
    return NormalDist().inv_cdf((1 + confidence) / 2)
