"""Whether two versions tell callers the same: paired disagreement on the same inputs, without labels.

Labels may differ on a share of the rows, numbers by a share of their own size; which of the two an answer
is, the model's type says, and without one its first output: one float per row is a number, several columns
have a largest one. An output that is only one of the two is judged as that, whatever the model is.
"""

from collections.abc import Iterator
from math import inf

from flows.rollout.measurement import Measurement, Verdict
from flows.rollout.policy import JudgePolicy, Kind, MetricName
from flows.rollout.sequential import Count, ratio_bounds
from serving.core.comparison import OutputTally, Tally
from serving.store.text import JsonValue

# So that an output that is always zero has a size.
_LEAST_MAGNITUDE = 1e-6
_SEVERITY = (Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.SUCCESS)

# The number at the end: how near to its limit, to tell the worst of findings with one verdict.
_Finding = tuple[Verdict, str, dict[str, JsonValue], float]


def measure(pairs: Tally, policy: JudgePolicy, kind: Kind | None) -> Measurement:
    """The worst of all outputs; of several alike the one that tells most comes first."""
    counts: dict[str, JsonValue] = {"pairs": pairs.pairs, "failed_copies": pairs.failed}
    if not pairs.pairs:
        return Measurement(MetricName.PREDICTIONS, Verdict.NOT_MEASURED, "no answers were compared", counts)
    if pairs.pairs < policy.min_pairs:
        reason = f"{pairs.pairs} pairs of answers, {policy.min_pairs} are needed"
        return Measurement(MetricName.PREDICTIONS, Verdict.INCONCLUSIVE, reason, counts)
    found = list(_findings(pairs, policy, kind))
    worst = min(found, key=lambda finding: (_SEVERITY.index(finding[0]), -finding[3]))
    examples: list[JsonValue] = [f"{each.request_id}: {each.summary}" for each in pairs.examples]
    evidence = {**counts, **worst[2], "examples": examples}
    return Measurement(MetricName.PREDICTIONS, worst[0], worst[1], evidence)


def _findings(pairs: Tally, policy: JudgePolicy, kind: Kind | None) -> Iterator[_Finding]:
    by_labels = _says_labels(pairs) if kind is None else kind.has_labels
    for name, output in pairs.outputs.items():
        if output.labels and (by_labels or not output.elements):
            yield _share(name, "labels", output.labels_differing, output.labels, pairs.pairs, policy)
        elif output.elements:
            yield _numbers(name, output, policy)
        if output.elements or output.non_finite:
            whole = output.elements + output.non_finite
            yield _share(name, "not finite", output.non_finite, whole, pairs.pairs, policy)
        yield _share(name, "incomparable", output.incomparable, pairs.pairs, pairs.pairs, policy)


def _says_labels(pairs: Tally) -> bool:
    """Whether an untyped model is a classifier, by the first output it declares."""
    first = next(iter(pairs.outputs.values()), None)
    return first is not None and bool(first.labels)


def _share(name: str, noun: str, hits: int, trials: int, pairs: int, policy: JudgePolicy) -> _Finding:
    """A share against the limit. Rows of one request are alike, so pairs are what the sample counts."""
    ratio = hits / trials
    low, _ = ratio_bounds(Count(round(ratio * pairs), pairs), policy.predictions_alpha)
    limit = policy.max_disagreement_ratio
    said = f"'{name}' {noun}: {ratio:.1%} differ in {pairs} pairs, at most {limit:.0%} may"
    verdict = Verdict.FAIL if low > limit else Verdict.INCONCLUSIVE if ratio > limit else Verdict.SUCCESS
    evidence: dict[str, JsonValue] = {
        "output": name,
        "differing_ratio": ratio,
        "lower_bound": low,
        "limit": limit,
    }
    return verdict, said, evidence, _nearness(ratio, limit)


def _numbers(name: str, output: OutputTally, policy: JudgePolicy) -> _Finding:
    difference = output.differences.quantile(0.5) or 0.0
    size = output.champion.quantile(0.5) or 0.0
    limit = policy.max_median_difference_ratio * (size + _LEAST_MAGNITUDE)
    said = f"'{name}' differs by {difference:.3g} at the median, at most {limit:.3g} may"
    evidence: dict[str, JsonValue] = {
        "output": name,
        "median_difference": difference,
        "median_champion": size,
        "limit": limit,
    }
    verdict = Verdict.FAIL if difference > limit else Verdict.SUCCESS
    return verdict, said, evidence, _nearness(difference, limit)


def _nearness(found: float, limit: float) -> float:
    """`found` in units of its limit; where nothing is allowed, anything is beyond it."""
    return found / limit if limit else inf if found else 0.0
