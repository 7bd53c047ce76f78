"""Whether a challenger is worse than the champion: pure, one measurement per metric, the worst wins.

Never guesses: too few samples are INCONCLUSIVE, a source that gave nothing is NOT_MEASURED, and neither
is ever a success. Both versions off the champion's own past alike is the world's shift, not a fault.
"""

from dataclasses import dataclass
from enum import StrEnum

from flows.rollout import labelled, predictions
from flows.rollout.evidence import Evidence
from flows.rollout.latency import compare_times
from flows.rollout.measurement import Measurement, Verdict
from flows.rollout.policy import JudgePolicy, Kind, MetricName
from flows.rollout.sequential import Count, compare, faults_of_challenger, is_worse
from flows.rollout.slices import Slices
from serving.core.comparison import Tally
from serving.core.latency import Times
from serving.core.window import OVERLOADED, WindowStats

_LARGEST_RATIO = 1e12


class Shift(StrEnum):
    """What of both versions moved away from the champion's past."""

    ERRORS = "errors"
    LATENCY = "latency"
    LABELS = "labels"


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict over all metrics, and what it rests on. `shifts` tells of the world, not of a version."""

    verdict: Verdict
    reason: str
    measurements: tuple[Measurement, ...]
    shifts: tuple[Shift, ...] = ()


def judge(
    evidence: Evidence, policy: JudgePolicy, kind: Kind | None, slices: Slices | None = None
) -> Judgement:
    """Judge one stage by what is known now."""
    measurements = (
        _copy_errors(evidence.pairs, policy) if evidence.is_shadow else _request_errors(evidence, policy),
        _latency(evidence, policy),
        predictions.measure(evidence.pairs, policy, kind),
        labelled.measure(evidence, policy, slices or {}),
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


def _request_errors(evidence: Evidence, policy: JudgePolicy) -> Measurement:
    return _errors(_faults(evidence.champion), _faults(evidence.challenger), policy, "requests")


def _copy_errors(pairs: Tally, policy: JudgePolicy) -> Measurement:
    """Of a challenger that answers nobody: only what the champion answered is copied."""
    copies = pairs.pairs + pairs.failed
    return _errors(Count(0, copies), Count(pairs.failed, copies), policy, "copies")


def _errors(one: Count, two: Count, policy: JudgePolicy, noun: str) -> Measurement:
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
        return measured(Verdict.INCONCLUSIVE, f"{about}; {policy.min_samples} {noun} of each are needed")
    return measured(Verdict.SUCCESS, about)


def _faults(stats: WindowStats) -> Count:
    """What a version failed to answer of all it was asked. That it had no room counts for either alike: for
    a challenger, in whose place the champion then answered, it is among the faults.
    """
    faults = stats.faults + stats.statuses.get(OVERLOADED, 0)
    return Count(faults, stats.answered + faults)


def _latency(evidence: Evidence, policy: JudgePolicy) -> Measurement:
    """End to end; at 100 % the champion's copies are the control, or else its earlier stages.

    Of a challenger that answers nobody yet, copies tell.
    """
    control, pairs = evidence.control, evidence.pairs
    if evidence.is_final and control.pairs >= policy.min_samples:
        return compare_times(control.champion_times, control.other_times, policy, "copies")
    if evidence.is_shadow:
        return compare_times(pairs.champion_times, pairs.other_times, policy, "copies")
    return compare_times(evidence.champion.latency, evidence.challenger.latency, policy, "requests")


def _shifts(evidence: Evidence, policy: JudgePolicy) -> tuple[Shift, ...]:
    """What is worse of both versions than of the champion before. Of one version only it is no shift."""
    both, past = (evidence.champion, evidence.challenger), evidence.baseline
    if evidence.is_final:
        return ()
    found = []
    is_enough = min(each.requests for each in (*both, past)) >= policy.min_samples
    if is_enough and all(_fails_more(past, each, policy) for each in both):
        found.append(Shift.ERRORS)
    if is_enough and all(_is_slower(past.latency, each.latency, policy) for each in both):
        found.append(Shift.LATENCY)
    both_labels = (evidence.champion_labels, evidence.challenger_labels)
    if all(labelled.is_less_right(evidence.past_labels, each, policy) for each in both_labels):
        found.append(Shift.LABELS)
    return tuple(found)


def _fails_more(past: WindowStats, now: WindowStats, policy: JudgePolicy) -> bool:
    return is_worse(_faults(past), _faults(now), policy.error_tau, policy.error_alpha)


def _is_slower(past: Times, now: Times, policy: JudgePolicy) -> bool:
    return compare_times(past, now, policy, "requests").verdict is Verdict.FAIL
