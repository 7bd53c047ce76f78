"""Whether a challenger is worse than the champion: pure, one measurement per metric, the worst wins.

Never guesses: too few samples are INCONCLUSIVE, a source that gave nothing is NOT_MEASURED, and neither
is ever a success. Both versions off the champion's own past alike is the world's shift, not a fault.
"""

from dataclasses import dataclass
from enum import StrEnum

from flows.rollout import predictions
from flows.rollout.evidence import Evidence
from flows.rollout.latency import Times, compare_times
from flows.rollout.measurement import Measurement, Verdict
from flows.rollout.policy import JudgePolicy, Kind, MetricName
from flows.rollout.sequential import Count, compare, faults_of_challenger, is_worse
from serving.core.scored import Scored
from serving.core.window import WindowStats

_LARGEST_RATIO = 1e12


class Shift(StrEnum):
    """What of both versions moved away from the champion's past."""

    ERRORS = "errors"
    LATENCY = "latency"


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict over all metrics, and what it rests on. `shifts` tells of the world, not of a version."""

    verdict: Verdict
    reason: str
    measurements: tuple[Measurement, ...]
    shifts: tuple[Shift, ...] = ()


def judge(evidence: Evidence, policy: JudgePolicy, kind: Kind | None) -> Judgement:
    """Judge one stage by what is known now."""
    measurements = (
        _errors(evidence.champion, evidence.challenger, policy),
        _latency(evidence, policy),
        predictions.measure(evidence.pairs, policy, kind),
        _labels(evidence.champion_labels, evidence.challenger_labels, policy),
    )
    verdict = _worst(measurements, policy)
    shifts = () if verdict is Verdict.FAIL else _shifts(evidence, policy)
    return Judgement(verdict, _reason(verdict, measurements, policy), measurements, shifts)


def _worst(measurements: tuple[Measurement, ...], policy: JudgePolicy) -> Verdict:
    found = {each.verdict for each in measurements}
    if Verdict.FAIL in found:
        return Verdict.FAIL
    wanted = {each.verdict for each in measurements if each.metric in policy.required}
    if Verdict.INCONCLUSIVE in found or Verdict.NOT_MEASURED in wanted:
        return Verdict.INCONCLUSIVE
    return Verdict.SUCCESS if Verdict.SUCCESS in found else Verdict.NOT_MEASURED


def _reason(verdict: Verdict, measurements: tuple[Measurement, ...], policy: JudgePolicy) -> str:
    if verdict is Verdict.SUCCESS:
        return "no metric is worse"
    telling = {verdict} if verdict is Verdict.FAIL else {Verdict.INCONCLUSIVE, Verdict.NOT_MEASURED}
    said = [
        f"{each.metric.replace('_', ' ')}: {each.reason}"
        for each in measurements
        if each.verdict in telling
        and (each.verdict is not Verdict.NOT_MEASURED or each.metric in policy.required)
    ]
    return "; ".join(said) or "nothing was measured"


def _errors(champion: WindowStats, challenger: WindowStats, policy: JudgePolicy) -> Measurement:
    one, two = _faults(champion), _faults(challenger)
    seen, whose = compare(one, two, policy.error_tau), faults_of_challenger(one, two)
    ratio = min(max(seen.likelihood_ratio, whose.likelihood_ratio / 10), _LARGEST_RATIO)
    about = f"champion {one}, challenger {two}"
    evidence = {
        "champion_faults": one.hits,
        "champion_requests": one.trials,
        "challenger_faults": two.hits,
        "challenger_requests": two.trials,
        "difference": seen.difference,
        "likelihood_ratio": ratio,
        "limit": 1 / policy.error_alpha,
    }

    def measured(verdict: Verdict, reason: str) -> Measurement:
        return Measurement(MetricName.ERROR_RATE, verdict, reason, evidence)

    if not one.trials and not two.trials:
        return measured(Verdict.NOT_MEASURED, "no version was asked")
    if is_worse(one, two, policy.error_tau, policy.error_alpha):
        return measured(Verdict.FAIL, f"{about}; {ratio:.3g} times likelier than by chance")
    if min(one.trials, two.trials) < policy.min_samples:
        return measured(Verdict.INCONCLUSIVE, f"{about}; {policy.min_samples} requests of each are needed")
    return measured(Verdict.SUCCESS, about)


def _faults(stats: WindowStats) -> Count:
    return Count(stats.faults, stats.answered + stats.faults)


def _latency(evidence: Evidence, policy: JudgePolicy) -> Measurement:
    """End to end; at 100 % the champion's copies are the control, or else its earlier stages."""
    control = evidence.control
    if evidence.is_final and control.pairs >= policy.min_samples:
        return compare_times(control.champion_times, control.other_times, policy, "copies")
    return compare_times(evidence.champion.latency, evidence.challenger.latency, policy, "requests")


def _labels(champion: Scored, challenger: Scored, policy: JudgePolicy) -> Measurement:
    """How right both are by the labels that came; of classes by their share, of numbers by the mean error."""
    least = min(champion.labelled, challenger.labelled)
    evidence = {"champion_labels": champion.labelled, "challenger_labels": challenger.labelled}
    if least < policy.min_labels:
        is_wanted = MetricName.LABELS in policy.required and least > 0
        verdict = Verdict.INCONCLUSIVE if is_wanted else Verdict.NOT_MEASURED
        reason = f"{least} labels of one side, {policy.min_labels} are needed"
        return Measurement(MetricName.LABELS, verdict, reason, evidence)
    if min(champion.classified, challenger.classified) >= policy.min_labels:
        return _accuracy(champion, challenger, policy)
    return _mean_error(champion, challenger, policy)


def _accuracy(champion: Scored, challenger: Scored, policy: JudgePolicy) -> Measurement:
    one = Count(champion.classified - champion.right, champion.classified)
    two = Count(challenger.classified - challenger.right, challenger.classified)
    tau = max(policy.max_accuracy_drop, policy.error_tau)
    seen = compare(one, two, tau)
    is_beyond = seen.difference > policy.max_accuracy_drop and is_worse(one, two, tau, policy.error_alpha)
    return Measurement(
        MetricName.LABELS,
        Verdict.FAIL if is_beyond else Verdict.SUCCESS,
        f"wrong: champion {one}, challenger {two}",
        {
            "champion_accuracy": champion.accuracy,
            "challenger_accuracy": challenger.accuracy,
            "likelihood_ratio": min(seen.likelihood_ratio, _LARGEST_RATIO),
            "limit": policy.max_accuracy_drop,
        },
    )


def _mean_error(champion: Scored, challenger: Scored, policy: JudgePolicy) -> Measurement:
    one, two = champion.mae or 0.0, challenger.mae or 0.0
    spread = sum(_variance_of_mean(side) for side in (champion, challenger)) ** 0.5
    is_beyond = two > policy.max_error_growth_ratio * one
    # Three standard errors, because it is looked at again and again.
    is_proved = is_beyond and two - one > 3 * spread
    return Measurement(
        MetricName.LABELS,
        Verdict.FAIL if is_proved else Verdict.SUCCESS,
        f"mean error: champion {one:.4g}, challenger {two:.4g}",
        {
            "champion_mae": one,
            "challenger_mae": two,
            "standard_error": spread,
            "limit": policy.max_error_growth_ratio,
        },
    )


def _variance_of_mean(side: Scored) -> float:
    mean = side.mae or 0.0
    return max(0.0, side.squared / side.measured - mean**2) / side.measured if side.measured else 0.0


def _shifts(evidence: Evidence, policy: JudgePolicy) -> tuple[Shift, ...]:
    """What is worse of both versions than of the champion before. Of one version only it is no shift."""
    both, past = (evidence.champion, evidence.challenger), evidence.baseline
    if evidence.is_final or min(each.requests for each in (*both, past)) < policy.min_samples:
        return ()
    found = []
    if all(_errors(past, each, policy).verdict is Verdict.FAIL for each in both):
        found.append(Shift.ERRORS)
    if all(_is_slower(past.latency, each.latency, policy) for each in both):
        found.append(Shift.LATENCY)
    return tuple(found)


def _is_slower(past: Times, now: Times, policy: JudgePolicy) -> bool:
    return compare_times(past, now, policy, "requests").verdict is Verdict.FAIL
