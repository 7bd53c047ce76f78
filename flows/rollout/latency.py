"""Whether one version answers slower than another: non-inferiority of a quantile, from sketches."""

from typing import Protocol

from flows.rollout.measurement import Measurement, Verdict
from flows.rollout.policy import JudgePolicy, MetricName
from flows.rollout.sequential import quantile_ranks

_MS = 1000.0


class Times(Protocol):
    """A distribution of seconds."""

    @property
    def count(self) -> int: ...

    def quantile(self, ratio: float) -> float | None: ...


def compare_times(champion: Times, challenger: Times, policy: JudgePolicy, noun: str) -> Measurement:
    """FAIL where the sample proves a quantile beyond both limits; INCONCLUSIVE where it only looks so.

    Proved: even the lower bound of the challenger's quantile is beyond the limits of the upper bound of
    the champion's. Its bounds are order statistics, so no shape of the distribution is assumed.
    """
    counts = {"champion_samples": champion.count, "challenger_samples": challenger.count}

    def measured(verdict: Verdict, reason: str, **found: float) -> Measurement:
        return Measurement(MetricName.LATENCY, verdict, reason, {**counts, **found})

    if not champion.count or not challenger.count:
        if not champion.count and not challenger.count:
            return measured(Verdict.NOT_MEASURED, "nothing was timed")
        return measured(Verdict.INCONCLUSIVE, f"{noun} of one version only were timed")
    one, two = _ms(champion, policy.latency_quantile), _ms(challenger, policy.latency_quantile)
    low = _ms(challenger, _ranks(challenger, policy)[0])
    high = _ms(champion, _ranks(champion, policy)[1])
    name = f"p{policy.latency_quantile * 100:g}"
    said = f"{name} of champion {one:.3g} ms, of challenger {two:.3g} ms"
    found = {"champion_ms": one, "challenger_ms": two, "champion_high_ms": high, "challenger_low_ms": low}
    if min(champion.count, challenger.count) < policy.min_samples:
        return measured(
            Verdict.INCONCLUSIVE, f"{said}; {policy.min_samples} {noun} of each are needed", **found
        )
    if _is_beyond(high, low, policy):
        return measured(Verdict.FAIL, f"{said}; at least {low:.3g} against at most {high:.3g} ms", **found)
    if _is_beyond(one, two, policy):
        return measured(
            Verdict.INCONCLUSIVE, f"{said}, which {challenger.count} {noun} do not prove", **found
        )
    return measured(Verdict.SUCCESS, said, **found)


def _is_beyond(champion_ms: float, challenger_ms: float, policy: JudgePolicy) -> bool:
    return (
        challenger_ms > policy.max_latency_ratio * champion_ms
        and challenger_ms - champion_ms > policy.max_latency_extra_ms
    )


def _ranks(times: Times, policy: JudgePolicy) -> tuple[float, float]:
    return quantile_ranks(times.count, policy.latency_quantile, policy.latency_alpha)


def _ms(times: Times, ratio: float) -> float:
    return (times.quantile(ratio) or 0.0) * _MS
