"""The checks that compare numbers: accuracy, latency and memory, each against the champion and a policy.

Pure; called by `flows.catalog.checks`. A limit that is not given judges nothing.
"""

from flows.catalog.facts import Facts, Latency, Loaded, Metric, Score
from flows.catalog.policy import ValidationPolicy
from flows.catalog.verdict import Check, CheckName, Evidence, Verdict

_MEGABYTE = 1 << 20
_TINY = 1e-9


def accuracy(facts: Facts, policy: ValidationPolicy) -> Check:
    """Results on the declared evaluation set: required where one is declared."""
    name, score = CheckName.ACCURACY, facts.score
    if score is None:
        reason = "no evaluation set is declared (tag signalbox.evaluation_set)"
        return Check(name, Verdict.NOT_MEASURED, reason) if facts.interrupted is None else not_reached(name)
    if score.candidate is None or score.metric is None:
        return Check(name, Verdict.FAILED, f"not measured, though declared: {score.problem}")
    problems = _score_problems(score, score.candidate, policy)
    evidence: Evidence = {
        "metric": str(score.metric),
        "candidate": score.candidate,
        "champion": score.champion,
        "rows": score.rows,
        "rows_declared": score.total,
    }
    said = _score_sentence(score, score.candidate, facts.champion)
    verdict = Verdict.FAILED if problems else Verdict.PASSED
    return Check(name, verdict, "; ".join([said, *problems]), evidence)


def latency(facts: Facts, policy: ValidationPolicy) -> Check:
    name, found = CheckName.LATENCY, facts.latency
    if found is None:
        return Check(name, Verdict.NOT_MEASURED, "no input was answered that could be timed")
    ours, theirs = found.candidate, found.champion
    evidence: Evidence = {
        "p50_ms": round(ours.p50_ms, 3),
        "p95_ms": round(ours.p95_ms, 3),
        "champion_p50_ms": round(theirs.p50_ms, 3) if theirs else None,
        "champion_p95_ms": round(theirs.p95_ms, 3) if theirs else None,
        "calls": found.calls,
    }
    said = f"p95 {ours.p95_ms:.2f} ms over {found.calls} single calls"
    said += f", the champion's {theirs.p95_ms:.2f} ms" if theirs else "; no champion to compare with"
    problems = _latency_problems(found, policy)
    return Check(name, Verdict.FAILED if problems else Verdict.PASSED, "; ".join([said, *problems]), evidence)


def memory(facts: Facts, policy: ValidationPolicy) -> Check:
    if facts.candidate is None:
        return not_reached(CheckName.MEMORY)
    grown_mb, peak_mb = facts.candidate.grown_bytes / _MEGABYTE, facts.peak_bytes / _MEGABYTE
    evidence: Evidence = {"load_mb": round(grown_mb, 1), "process_peak_mb": round(peak_mb, 1)}
    said = f"loading took {grown_mb:.1f} MB; the whole measuring process peaked at {peak_mb:.0f} MB"
    limit_mb = policy.max_memory_mb
    if limit_mb is not None and grown_mb > limit_mb:
        said = f"{said}; at most {limit_mb:g} MB are allowed"
        return Check(CheckName.MEMORY, Verdict.FAILED, said, evidence)
    return Check(CheckName.MEMORY, Verdict.PASSED, said, evidence)


def is_slower(found: Latency, policy: ValidationPolicy) -> bool:
    """Worse than the champion beyond both the ratio and the absolute allowance."""
    if found.champion is None:
        return False
    ours, theirs = found.candidate.p95_ms, found.champion.p95_ms
    return ours > theirs * policy.max_latency_ratio and ours > theirs + policy.max_latency_extra_ms


def _score_problems(score: Score, reached: float, policy: ValidationPolicy) -> list[str]:
    problems = []
    if score.metric is Metric.ACCURACY:
        if policy.min_accuracy is not None and reached < policy.min_accuracy:
            problems.append(f"at least {policy.min_accuracy:g} is required")
        if score.champion is not None and reached < score.champion - policy.max_accuracy_drop - _TINY:
            problems.append(f"a drop of at most {policy.max_accuracy_drop:g} is allowed")
    elif score.champion is not None and reached > score.champion * policy.max_error_ratio + _TINY:
        problems.append(f"at most {policy.max_error_ratio:g} times the champion's is allowed")
    return problems


def _score_sentence(score: Score, reached: float, champion: Loaded | None) -> str:
    rows = f"{score.rows} rows" if score.rows == score.total else f"{score.rows} of {score.total} rows"
    said = f"{score.metric} {reached:.4g} on {rows}"
    if score.champion is not None:
        return f"{said}, the champion's {score.champion:.4g}"
    if champion is None:
        return f"{said}; no champion to compare with"
    return f"{said}; not compared: {score.champion_problem or champion.problem}"


def _latency_problems(found: Latency, policy: ValidationPolicy) -> list[str]:
    problems = []
    if is_slower(found, policy):
        allowed = f"{policy.max_latency_ratio:g} times and {policy.max_latency_extra_ms:g} ms more"
        problems.append(f"worse than the champion beyond {allowed}")
    if policy.max_p95_ms is not None and found.candidate.p95_ms > policy.max_p95_ms:
        problems.append(f"at most {policy.max_p95_ms:g} ms are allowed")
    return problems


def not_reached(name: CheckName) -> Check:
    return Check(name, Verdict.NOT_MEASURED, "this step was not reached")
