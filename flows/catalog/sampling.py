"""What many timed calls say together: quantiles, whether they were steady, and how sure a ratio is.

Pure. Calls come in blocks; blocks of two versions are taken in turn, so block i of one side saw the
same machine as block i of the other. Times are in milliseconds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flows.catalog.performance import Estimate, LatencyMs, Statistic
from serving.core.datatypes import Array

_LOOKED_AT = 3
_RESAMPLES = 500
_RESAMPLED_CALLS = 20_000_000
_OUTER = (0.025, 0.975)
_QUANTILES = (0.5, 0.9, 0.95, 0.99, 0.999)


@dataclass(frozen=True, slots=True)
class Window:
    """One stretch of calls of one side."""

    p50_ms: float
    calls_per_second: float


def window_of(blocks: Sequence[Array]) -> Window:
    times_ms = np.concatenate(blocks)
    return Window(float(np.median(times_ms)), 1000 * len(times_ms) / float(times_ms.sum()))


def is_stable(windows: Sequence[Window], tolerance_ratio: float) -> bool:
    """Whether latency and throughput of the last three windows each lie within the tolerance of their mean.

    Source: the rule of Triton's perf_analyzer, `--stability-percentage`.
    """
    last = windows[-_LOOKED_AT:]
    if len(last) < _LOOKED_AT:
        return False
    series = ([each.p50_ms for each in last], [each.calls_per_second for each in last])
    return all(_is_close(values, tolerance_ratio) for values in series)


def latency_of(blocks: Sequence[Array]) -> LatencyMs:
    times_ms = np.concatenate(blocks)
    p50, p90, p95, p99, p999 = (float(value) for value in np.quantile(times_ms, _QUANTILES))
    return LatencyMs(mean=float(times_ms.mean()), p50=p50, p90=p90, p95=p95, p99=p99, p999=p999)


def estimate(blocks: Sequence[Array], statistic: Statistic, rng: np.random.Generator) -> Estimate:
    """The statistic over all calls, with its interval from resampling whole blocks."""
    drawn = [_value(_picked(blocks, picks), statistic) for picks in _draws(blocks, rng)]
    low, high = np.quantile(drawn, _OUTER)
    return Estimate(_value(np.concatenate(blocks), statistic), float(low), float(high))


def ratio(
    ours: Sequence[Array], theirs: Sequence[Array], statistic: Statistic, rng: np.random.Generator
) -> Estimate:
    """Ours to theirs. Blocks are drawn in pairs, so what slowed both at once cancels out.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, percentile interval, clustered pairs.
    """
    pairs = min(len(ours), len(theirs))
    ours, theirs = ours[:pairs], theirs[:pairs]
    drawn = [
        _value(_picked(ours, picks), statistic) / _value(_picked(theirs, picks), statistic)
        for picks in _draws([*ours, *theirs], rng, pairs)
    ]
    low, high = np.quantile(drawn, _OUTER)
    value = _value(np.concatenate(ours), statistic) / _value(np.concatenate(theirs), statistic)
    return Estimate(value, float(low), float(high))


def _is_close(values: Sequence[float], tolerance_ratio: float) -> bool:
    mean = sum(values) / len(values)
    return all(abs(value - mean) <= tolerance_ratio * mean for value in values)


def _draws(blocks: Sequence[Array], rng: np.random.Generator, count: int | None = None) -> Array:
    """Block numbers to take together, one row per resample; fewer resamples of very many calls."""
    count = len(blocks) if count is None else count
    calls = sum(len(block) for block in blocks)
    resamples = max(50, min(_RESAMPLES, _RESAMPLED_CALLS // calls))
    return rng.integers(0, count, size=(resamples, count))


def _picked(blocks: Sequence[Array], picks: Array) -> Array:
    return np.concatenate([blocks[pick] for pick in picks])


def _value(times_ms: Array, statistic: Statistic) -> float:
    if statistic is Statistic.MEAN:
        return float(times_ms.mean())
    return float(np.quantile(times_ms, 0.5 if statistic is Statistic.P50 else 0.95))
