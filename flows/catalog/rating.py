"""What a benchmark's findings mean under a policy: one rating per aspect, pure.

Nothing is failed on a measurement that may be chance, or another process's doing: where the 95 % interval
reaches back inside the limit, or the time without waiting for a CPU does, it is a warning. A limit that
was given and could not be measured fails.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from flows.catalog.facts import Side
from flows.catalog.limits import BenchmarkPolicy
from flows.catalog.performance import BatchPoint, Findings, Performance, Statistic
from flows.catalog.verdict import Evidence, Verdict, worst


class Aspect(StrEnum):
    """Every rating, in the order of a report."""

    MEASURED = "measured"
    STEADY = "steady"
    LATENCY = "latency"
    AGAINST_CHAMPION = "against_champion"
    THROUGHPUT = "throughput"
    MEMORY = "memory"


@dataclass(frozen=True, slots=True)
class Rating:
    """One aspect's outcome: a sentence for people and the numbers behind it."""

    name: Aspect
    verdict: Verdict
    message: str
    evidence: Evidence = field(default_factory=dict)


def rated(findings: Findings, policy: BenchmarkPolicy) -> tuple[Rating, ...]:
    """Every aspect's rating, in the order of `Aspect`."""
    return tuple(_ratings(findings, policy))


def overall(ratings: tuple[Rating, ...]) -> Verdict:
    """The worst; a version of which nothing could be timed or failed is NOT_MEASURED, and no approval."""
    return worst(rating.verdict for rating in ratings)


def is_worse(ours_ms: float, theirs_ms: float, policy: BenchmarkPolicy) -> bool:
    """The one latency rule: beyond both the ratio and the absolute allowance."""
    return (
        ours_ms > theirs_ms * policy.max_latency_ratio and ours_ms > theirs_ms + policy.max_latency_extra_ms
    )


def times(ratio: float) -> str:
    """A ratio with two decimals, or two digits where it is small."""
    return f"{ratio:.2f}" if ratio >= 0.1 else f"{ratio:.2g}"


def _ratings(findings: Findings, policy: BenchmarkPolicy) -> Iterator[Rating]:
    candidate = findings.candidate or Performance(version="")
    yield _measured(findings, candidate)
    yield _steady(findings, candidate, policy)
    yield _latency(candidate, policy)
    yield _against_champion(findings, candidate, policy)
    yield _throughput(findings, candidate, policy)
    yield _memory(candidate, policy)


def _measured(findings: Findings, candidate: Performance) -> Rating:
    """A version that cannot be loaded or raises has failed; one that took too long was not measured."""
    name = Aspect.MEASURED
    if candidate.problem is not None:
        is_unasked = candidate.load_seconds is not None and findings.source is None
        return Rating(name, Verdict.NOT_MEASURED if is_unasked else Verdict.FAILED, candidate.problem)
    if findings.interrupted is not None:
        return _cut_short(findings, findings.interrupted, candidate)
    if not candidate.calls:
        return Rating(name, Verdict.NOT_MEASURED, "nothing was timed")
    said = f"{candidate.calls} single calls on the {findings.source}"
    return Rating(name, Verdict.PASSED, said, {"calls": candidate.calls, "source": str(findings.source)})


def _cut_short(findings: Findings, interrupted: str, candidate: Performance) -> Rating:
    """Dying is the version's fault, being late may be the machine's; what was measured before stands."""
    step = findings.step
    doing = f" while the {step.side} was {step.doing}" if step else ""
    is_ours = not findings.is_late and (step is None or step.side is Side.CANDIDATE)
    verdict = Verdict.WARNING if candidate.calls else Verdict.NOT_MEASURED
    return Rating(Aspect.MEASURED, Verdict.FAILED if is_ours else verdict, f"{interrupted}{doing}")


def _steady(findings: Findings, candidate: Performance, policy: BenchmarkPolicy) -> Rating:
    name, tolerance = Aspect.STEADY, f"{100 * policy.stability_ratio:g} %"
    if findings.is_stable is None or not candidate.calls:
        return Rating(name, Verdict.NOT_MEASURED, "nothing was timed")
    if findings.is_stable:
        return Rating(name, Verdict.PASSED, f"the last three windows lay within {tolerance} of their mean")
    said = f"the times did not settle within {tolerance}: the machine is busy or the version is unsteady"
    return Rating(name, Verdict.WARNING, said)


def _latency(candidate: Performance, policy: BenchmarkPolicy) -> Rating:
    name, found, limit_ms = Aspect.LATENCY, candidate.latency_ms, policy.max_p95_ms
    if found is None or candidate.p95 is None:
        return _unmeasured(name, limit_ms, "no call was timed")
    said = f"p95 {found.p95:.3f} ms, p50 {found.p50:.3f} ms"
    evidence: Evidence = {
        "p50_ms": found.p50,
        "p95_ms": found.p95,
        "p95_low_ms": candidate.p95.low,
        "limit_ms": limit_ms,
    }
    if limit_ms is None or found.p95 <= limit_ms:
        return Rating(name, Verdict.PASSED, said, evidence)
    is_certain = min(candidate.p95.low, _unhindered_ms(candidate, found.p95)) > limit_ms
    return _beyond(name, f"{said}; at most {limit_ms:g} ms are allowed", evidence, is_certain)


def _against_champion(findings: Findings, candidate: Performance, policy: BenchmarkPolicy) -> Rating:
    name, champion, ratio = Aspect.AGAINST_CHAMPION, findings.champion, findings.ratios.get(Statistic.P95)
    if champion is None:
        return Rating(name, Verdict.NOT_MEASURED, "no version to compare with")
    if ratio is None or candidate.latency_ms is None or champion.latency_ms is None:
        why = champion.problem or "it was not reached"
        return Rating(name, Verdict.NOT_MEASURED, f"not compared with version {champion.version}: {why}")
    ours_ms, theirs_ms = candidate.latency_ms.p95, champion.latency_ms.p95
    said = (
        f"p95 is {times(ratio.value)} times that of version {champion.version} "
        f"({times(ratio.low)} to {times(ratio.high)})"
    )
    evidence: Evidence = {
        "ratio": ratio.value,
        "low": ratio.low,
        "high": ratio.high,
        "extra_ms": ours_ms - theirs_ms,
    }
    if not is_worse(ours_ms, theirs_ms, policy):
        return Rating(name, Verdict.PASSED, said, evidence)
    allowed = f"{policy.max_latency_ratio:g} times and {policy.max_latency_extra_ms:g} ms more"
    is_certain = ratio.low > policy.max_latency_ratio and is_worse(
        _unhindered_ms(candidate, ours_ms), theirs_ms, policy
    )
    return _beyond(
        name, f"{said}, {ours_ms - theirs_ms:.1f} ms more; worse than {allowed}", evidence, is_certain
    )


def _throughput(findings: Findings, candidate: Performance, policy: BenchmarkPolicy) -> Rating:
    name, best, least = Aspect.THROUGHPUT, candidate.best_batch, policy.min_throughput
    if best is None:
        return _unmeasured(name, least, "no batch was timed")
    said = f"{best.rows_per_second:,.0f} rows/s with {best.rows} at once"
    evidence: Evidence = {
        "rows_per_second": best.rows_per_second,
        "rows": best.rows,
        "limit_per_second": least,
    }
    if least is not None and best.rows_per_second < least:
        reached = max(point.best_rows_per_second for point in candidate.batches)
        return _beyond(name, f"{said}; at least {least:,.0f} are required", evidence, reached < least)
    pair = _largest_common(candidate, findings.champion)
    if pair is not None and is_worse(pair[0].p50_ms, pair[1].p50_ms, policy):
        ours, theirs = pair
        slower = f"{ours.rows} rows take {ours.p50_ms:.1f} ms, the other version's {theirs.p50_ms:.1f} ms"
        return Rating(name, Verdict.WARNING, f"{said}; {slower}", evidence)
    return Rating(name, Verdict.PASSED, said, evidence)


def _memory(candidate: Performance, policy: BenchmarkPolicy) -> Rating:
    name, found, limit_mb = Aspect.MEMORY, candidate.memory_mb, policy.max_memory_mb
    if found is None:
        return _unmeasured(name, limit_mb, "it was not reached")
    said = f"{found.resident:.1f} MB once warm, {found.load:.1f} MB by loading, {found.peak:.1f} MB at most"
    evidence: Evidence = {"resident_mb": found.resident, "peak_mb": found.peak, "limit_mb": limit_mb}
    held_mb = max(found.resident, found.load)
    if limit_mb is not None and held_mb > limit_mb:
        return Rating(name, Verdict.FAILED, f"{said}; at most {limit_mb:g} MB are allowed", evidence)
    return Rating(name, Verdict.PASSED, said, evidence)


def _unhindered_ms(side: Performance, otherwise_ms: float) -> float:
    return otherwise_ms if side.unhindered_p95_ms is None else side.unhindered_p95_ms


def _unmeasured(name: Aspect, limit: float | None, why: str) -> Rating:
    """What a given limit requires may not go unmeasured."""
    if limit is None:
        return Rating(name, Verdict.NOT_MEASURED, why)
    return Rating(name, Verdict.FAILED, f"not measured, though a limit of {limit:g} is set: {why}")


def _beyond(name: Aspect, said: str, evidence: Evidence, is_certain: bool) -> Rating:
    if is_certain:
        return Rating(name, Verdict.FAILED, said, evidence)
    return Rating(name, Verdict.WARNING, f"{said}, though the machine was too busy to be certain", evidence)


def _largest_common(
    candidate: Performance, champion: Performance | None
) -> tuple[BatchPoint, BatchPoint] | None:
    theirs = {point.rows: point for point in champion.batches} if champion else {}
    common = [point for point in candidate.batches if point.rows in theirs]
    return (common[-1], theirs[common[-1].rows]) if common else None
