"""Whether one version answers slower than another, as the judge of a rollout sees it."""

from flows.rollout.measurement import Measurement, Verdict
from flows.rollout.policy import JudgePolicy, MetricName
from serving.core.latency import LatencyRule, Times


def compare_times(champion: Times, challenger: Times, policy: JudgePolicy, noun: str) -> Measurement:
    """FAIL where the sample proves a quantile beyond both limits; INCONCLUSIVE where it only looks so."""
    counts = {"champion_samples": champion.count, "challenger_samples": challenger.count}

    def measured(verdict: Verdict, reason: str, **found: float) -> Measurement:
        return Measurement(MetricName.LATENCY, verdict, reason, {**counts, **found})

    if not champion.count or not challenger.count:
        if not champion.count and not challenger.count:
            return measured(Verdict.NOT_MEASURED, "nothing was timed")
        return measured(Verdict.INCONCLUSIVE, f"{noun} of one version only were timed")
    rule = _rule(policy)
    seen = rule.contrast(champion, challenger)
    one, two, high, low = seen.one_ms, seen.other_ms, seen.one_high_ms, seen.other_low_ms
    said = f"{rule.name} of champion {one:.3g} ms, of challenger {two:.3g} ms"
    found = {"champion_ms": one, "challenger_ms": two, "champion_high_ms": high, "challenger_low_ms": low}
    if min(champion.count, challenger.count) < policy.min_samples:
        return measured(
            Verdict.INCONCLUSIVE, f"{said}; {policy.min_samples} {noun} of each are needed", **found
        )
    if seen.is_proved:
        return measured(Verdict.FAIL, f"{said}; at least {low:.3g} against at most {high:.3g} ms", **found)
    if seen.is_beyond:
        return measured(
            Verdict.INCONCLUSIVE, f"{said}, which {challenger.count} {noun} do not prove", **found
        )
    return measured(Verdict.SUCCESS, said, **found)


def _rule(policy: JudgePolicy) -> LatencyRule:
    return LatencyRule(
        policy.latency_quantile, policy.max_latency_ratio, policy.max_latency_extra_ms, policy.latency_alpha
    )
