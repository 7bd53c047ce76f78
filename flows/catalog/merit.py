"""The checks of merit: results on the declared evaluation set, and how alike embeddings are.

Pure; called by `flows.catalog.checks`. The rule against the champion, on the same rows: with the limit
on how much worse a candidate may be (the drop in a share of right answers, or the ratio of errors) it
passes where the whole interval of the difference lies within the limit, or every answer is the
champion's; it fails where the interval lies wholly beyond. In between the policy decides: by default
what was measured, which warns within the limit and fails beyond.
"""

from dataclasses import dataclass

from flows.catalog.facts import Difference, Estimate, Facts, Loaded, Metric, Score
from flows.catalog.figures import not_reached
from flows.catalog.policy import Doubt, ValidationPolicy
from flows.catalog.verdict import Check, CheckName, Evidence, Verdict, worst

_TINY = 1e-9
_DIGITS = 6


def accuracy(facts: Facts, policy: ValidationPolicy) -> Check:
    """Results on the declared evaluation set: required where one is declared, or a minimum is asked for."""
    name, score = CheckName.ACCURACY, facts.score
    if score is None:
        return _undeclared(facts, policy)
    if not score.candidate or score.metric is None:
        return Check(name, Verdict.FAILED, f"not measured, though declared: {score.problem}")
    findings = [_minimum(score, policy), _against_champion(score, policy)]
    told = [finding for finding in findings if finding is not None]
    verdict = worst((Verdict.PASSED, *(finding.verdict for finding in told)))
    sentence = "; ".join([_sentence(score, facts.champion), *(finding.sentence for finding in told)])
    return Check(name, verdict, sentence, _evidence(score, policy))


def similarity(facts: Facts, policy: ValidationPolicy) -> Check:
    """How alike an extractor's embeddings are to the champion's: what stored ones are still worth."""
    name, found = CheckName.SIMILARITY, facts.similarity
    if found is None:
        reason = "only extractors with an evaluation set and a champion give embeddings to compare"
        return Check(name, Verdict.NOT_MEASURED, reason)
    evidence: Evidence = {
        "rows": found.rows,
        "neighbours": found.neighbours,
        "neighbour_overlap": round(found.overlap, _DIGITS),
        "cosine_mean": None if found.cosine_mean is None else round(found.cosine_mean, _DIGITS),
        "cosine_p05": None if found.cosine_p05 is None else round(found.cosine_p05, _DIGITS),
    }
    said = f"{found.overlap:.2f} of a row's {found.neighbours} nearest rows are the champion's, too"
    if found.cosine_mean is None:
        said += "; the widths differ, so that embeddings themselves cannot be compared"
    else:
        said += f"; mean cosine to its embeddings {found.cosine_mean:.3f}, 5 % below {found.cosine_p05:.3f}"
    if found.overlap >= policy.min_neighbour_overlap:
        return Check(name, Verdict.PASSED, said, evidence)
    limit = f"below {policy.min_neighbour_overlap:g} stored embeddings must be made again"
    return Check(name, Verdict.WARNING, f"{said}; {limit}", evidence)


def _undeclared(facts: Facts, policy: ValidationPolicy) -> Check:
    name = CheckName.ACCURACY
    if facts.interrupted is not None:
        return not_reached(name)
    reason = "no evaluation set is declared (tag signalbox.evaluation_set)"
    if policy.min_accuracy is not None:
        needed = f"an accuracy of at least {policy.min_accuracy:g} is required, but {reason}"
        return Check(name, Verdict.FAILED, needed)
    return Check(name, Verdict.NOT_MEASURED, reason)


@dataclass(frozen=True, slots=True)
class _Finding:
    """One judgement and the words that go with it."""

    verdict: Verdict
    sentence: str


def _minimum(score: Score, policy: ValidationPolicy) -> _Finding | None:
    if policy.min_accuracy is None or score.metric is None:
        return None
    if not score.metric.is_share:
        limit = (
            f"a minimum accuracy of {policy.min_accuracy:g} was asked for, but it is scored by {score.metric}"
        )
        return _Finding(Verdict.FAILED, limit)
    if score.candidate[0].value < policy.min_accuracy - _TINY:
        return _Finding(Verdict.FAILED, f"at least {policy.min_accuracy:g} is required")
    return None


def _against_champion(score: Score, policy: ValidationPolicy) -> _Finding | None:
    found, metric = score.difference, score.metric
    if found is None or metric is None:
        return None
    limit = policy.max_accuracy_drop if metric.is_share else policy.max_error_ratio
    amount = _amount(metric, found, policy)
    if found.is_same:
        return _Finding(Verdict.PASSED, "every answer is the champion's")
    if found.high <= limit + _TINY:
        return _Finding(Verdict.PASSED, f"{amount}, within {_allowed(metric, limit)}")
    if found.low > limit + _TINY:
        return _Finding(Verdict.FAILED, f"{amount}, clearly worse: {_allowed(metric, limit)} is allowed")
    return _uncertain(metric, found.value <= limit + _TINY, amount, limit, policy)


def _uncertain(
    metric: Metric, is_within: bool, amount: str, limit: float, policy: ValidationPolicy
) -> _Finding:
    if policy.when_uncertain is Doubt.ESTIMATE:
        verdict = Verdict.WARNING if is_within else Verdict.FAILED
    else:
        verdict = Verdict(policy.when_uncertain)
    where = "within" if is_within else "worse than"
    said = f"{amount}, measured {where} {_allowed(metric, limit)}"
    return _Finding(verdict, f"{said}, but too few rows differ or are there to be sure")


def _allowed(metric: Metric, limit: float) -> str:
    return f"a drop of {limit:g}" if metric.is_share else f"{limit:g} times the champion's"


def _amount(metric: Metric, found: Difference, policy: ValidationPolicy) -> str:
    sure = f"with {policy.confidence:.0%} confidence"
    if not metric.is_share:
        return f"{found.value:.4g} times the champion's ({found.low:.4g} to {found.high:.4g} {sure})"
    if found.value < 0:
        return f"gain {-found.value:.4g} ({-found.high:.4g} to {-found.low:.4g} {sure})"
    return f"drop {found.value:.4g} ({found.low:.4g} to {found.high:.4g} {sure})"


def _sentence(score: Score, champion: Loaded | None) -> str:
    rows = f"{score.rows} rows" if score.rows == score.total else f"{score.rows} of {score.total} rows"
    said = f"{score.metric} {_told(score.candidate[0])} on {rows}"
    if score.champion:
        return f"{said}, the champion's {_told(score.champion[0])}"
    if champion is None:
        return f"{said}; no champion to compare with"
    return f"{said}; not compared: {score.champion_problem or champion.problem}"


def _told(estimate: Estimate) -> str:
    return f"{estimate.value:.4g} ({estimate.low:.4g} to {estimate.high:.4g})"


def _evidence(score: Score, policy: ValidationPolicy) -> Evidence:
    """Every figure by name, with `_low` and `_high`; the champion's under `champion_`."""
    found: dict[str, bool | int | float | str | None] = {
        "metric": str(score.metric),
        "candidate": score.candidate[0].value,
        "champion": score.champion[0].value if score.champion else None,
        "rows": score.rows,
        "rows_declared": score.total,
        "confidence": policy.confidence,
    }
    for prefix, estimates in (("", score.candidate), ("champion_", score.champion)):
        for one in estimates:
            found[f"{prefix}{one.name}"] = round(one.value, _DIGITS)
            found[f"{prefix}{one.name}_low"] = round(one.low, _DIGITS)
            found[f"{prefix}{one.name}_high"] = round(one.high, _DIGITS)
    if score.difference is not None:
        found |= _difference(score.metric, score.difference)
    return found | dict(score.notes)


def _difference(metric: Metric | None, found: Difference) -> dict[str, bool | int | float | str | None]:
    name = "drop" if metric is not None and metric.is_share else "ratio"
    return {
        name: round(found.value, _DIGITS),
        f"{name}_low": round(found.low, _DIGITS),
        f"{name}_high": round(found.high, _DIGITS),
        "chance": found.chance,
        "worse_rows": found.worse_rows,
        "better_rows": found.better_rows,
        "same_answers": found.is_same,
    }
