"""Whether a version became slower than its former baseline says, pure, and the notice that tells of it."""

from dataclasses import dataclass

from flows.catalog.benchmark_report import BenchmarkReport
from flows.catalog.performance import Statistic
from flows.catalog.rating import is_worse
from flows.catalog.verdict import Verdict
from serving.store.outbox import Notice, Severity
from serving.store.text import JsonValue


@dataclass(frozen=True, slots=True)
class Regression:
    """A slowdown beyond the one latency rule; times in milliseconds."""

    reason: str
    before_p95_ms: float
    now_p95_ms: float


def regression(former: BenchmarkReport, present: BenchmarkReport) -> Regression | None:
    """What got worse; None where nothing did, or where the two cannot be compared.

    Where both were measured beside the same other version, that version says what the machine is worth
    today. Else only the same host compares, and only where the present times held still.
    """
    before, now = former.candidate.latency_ms, present.candidate.latency_ms
    if before is None or now is None or present.verdict is Verdict.NOT_MEASURED:
        return None
    expected_ms, basis = before.p95, "on the same host"
    rival = _rival_p95_ms(former, present)
    if rival is not None:
        expected_ms = rival * former.ratios[Statistic.P95].value
        basis = f"beside version {present.champion.version if present.champion else ''}"
    elif former.host.id != present.host.id or not present.is_stable:
        return None
    floors_ms = [present.candidate.unhindered_p95_ms or now.p95]
    floors_ms += [present.candidate.p95.low] if present.candidate.p95 else []
    if not is_worse(min(floors_ms), expected_ms, present.policy):
        return None
    ratio = now.p95 / expected_ms
    reason = f"p95 is {now.p95:.1f} ms, {ratio:.2f} times the {expected_ms:.1f} ms to be expected {basis}"
    return Regression(reason, before.p95, now.p95)


def notice_of(report: BenchmarkReport, found: Regression, former_id: str) -> Notice:
    """Told once per former baseline; the next benchmark is compared with this one."""
    facts: dict[str, JsonValue] = {
        "reason": found.reason,
        "p95_before_ms": round(found.before_p95_ms, 3),
        "p95_now_ms": round(found.now_p95_ms, 3),
        "host": report.host.sentence(),
    }
    return Notice(
        kind="benchmark_regression",
        severity=Severity.WARNING,
        title=f"Version {report.version} of {report.model} became slower than its baseline",
        model=report.model,
        version=report.version,
        facts=facts,
        dedup_key=f"benchmark:{report.model}:{report.version}:{former_id}",
    )


def _rival_p95_ms(former: BenchmarkReport, present: BenchmarkReport) -> float | None:
    """The present p95 of the version that both were measured beside, None where there is none."""
    then, now = former.champion, present.champion
    if then is None or now is None or now.latency_ms is None or then.latency_ms is None:
        return None
    is_same = then.version == now.version and then.digest == now.digest
    return now.latency_ms.p95 if is_same and Statistic.P95 in former.ratios else None
