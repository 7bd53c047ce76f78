"""The checks that compare cost: latency and memory, each against the champion and a policy.

Pure; called by `flows.catalog.checks`. A limit that is not given judges nothing.
"""

from flows.catalog.facts import Facts, Latency
from flows.catalog.policy import ValidationPolicy
from flows.catalog.verdict import Check, CheckName, Evidence, Verdict

_MEGABYTE = 1 << 20


def latency(facts: Facts, policy: ValidationPolicy) -> Check:
    name, found = CheckName.LATENCY, facts.latency
    if found is None:
        reason = "no input was answered that could be timed"
        if policy.max_p95_ms is not None and facts.interrupted is None:
            return Check(
                name, Verdict.FAILED, f"{reason}, though a limit of {policy.max_p95_ms:g} ms was given"
            )
        return Check(name, Verdict.NOT_MEASURED, reason)
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
    grown_mb, needed_mb = facts.candidate.grown_bytes / _MEGABYTE, facts.candidate.peak_bytes / _MEGABYTE
    process_mb = facts.peak_bytes / _MEGABYTE
    evidence: Evidence = {
        "load_mb": round(grown_mb, 1),
        "first_answer_mb": round(needed_mb, 1),
        "process_peak_mb": round(process_mb, 1),
    }
    said = f"loading took {grown_mb:.1f} MB, {needed_mb:.1f} MB by its first answer"
    said += f"; the whole measuring process peaked at {process_mb:.0f} MB" if process_mb else ""
    limit_mb = policy.max_memory_mb
    if limit_mb is not None and max(grown_mb, needed_mb) > limit_mb:
        said = f"{said}; at most {limit_mb:g} MB are allowed"
        return Check(CheckName.MEMORY, Verdict.FAILED, said, evidence)
    return Check(CheckName.MEMORY, Verdict.PASSED, said, evidence)


def is_slower(found: Latency, policy: ValidationPolicy) -> bool:
    """Worse than the champion beyond both the ratio and the absolute allowance."""
    if found.champion is None:
        return False
    ours, theirs = found.candidate.p95_ms, found.champion.p95_ms
    return ours > theirs * policy.max_latency_ratio and ours > theirs + policy.max_latency_extra_ms


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
