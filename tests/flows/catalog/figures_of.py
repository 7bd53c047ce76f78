"""Benchmarks written by hand, for tests of what is made of them."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from flows.catalog.benchmark_report import BenchmarkReport
from flows.catalog.facts import Source
from flows.catalog.host import Host
from flows.catalog.limits import BenchmarkPolicy
from flows.catalog.performance import (
    BatchPoint,
    Estimate,
    Findings,
    LatencyMs,
    MemoryMb,
    Performance,
    Statistic,
    ThreadPoint,
)
from flows.catalog.rating import overall, rated

HERE = Host("CPU", ("avx2",), 2, 8, "Linux 6.1 x86_64", "3.11.8", {"numpy": "2.4"})
ELSEWHERE = replace(HERE, cpus=8)
AT = datetime(2026, 1, 1, tzinfo=UTC)
DIGEST = "d" * 64


def latency(p50_ms: float = 1.0, p95_ms: float = 2.0) -> LatencyMs:
    return LatencyMs(p50_ms, p50_ms, p50_ms, p95_ms, p95_ms, p95_ms)


def point(rows: int, p50_ms: float = 1.0, rate: float | None = None) -> BatchPoint:
    rate = 1000 * rows / p50_ms if rate is None else rate
    return BatchPoint(rows, p50_ms, 2 * p50_ms, rate, 1.1 * rate)


def performance(version: str = "2", p95_ms: float = 2.0, **different: Any) -> Performance:
    """Everything measured; p95 is certain to a hundredth, and nobody waited for a CPU."""
    plain = Performance(
        version,
        format="onnx",
        digest=DIGEST,
        load_seconds=0.5,
        first_call_ms=9.0,
        memory_mb=MemoryMb(load=10.0, peak=30.0, resident=20.0),
        latency_ms=latency(p95_ms / 2, p95_ms),
        p95=Estimate(p95_ms, 0.99 * p95_ms, 1.01 * p95_ms),
        unhindered_p95_ms=p95_ms,
        calls=1000,
        cpu_ratio=1.0,
        batches=(point(1), point(8, 4.0)),
        threads=(ThreadPoint(1, 8, 4.0, 2000.0), ThreadPoint(2, 8, 3.0, 2700.0)),
    )
    return replace(plain, **different)


def findings(
    candidate: Performance | None = None, champion: Performance | None = None, **different: Any
) -> Findings:
    """Both sides with the ratio that their p95 makes, certain to a hundredth."""
    ours = candidate or performance()
    plain = Findings(ours, champion, _ratios(ours, champion), Source.EXAMPLE, is_stable=True)
    return replace(plain, **different)


def _ratios(ours: Performance, theirs: Performance | None) -> Mapping[Statistic, Estimate]:
    if theirs is None or ours.latency_ms is None or theirs.latency_ms is None:
        return {}
    value = ours.latency_ms.p95 / theirs.latency_ms.p95
    return {statistic: Estimate(value, 0.99 * value, 1.01 * value) for statistic in Statistic}


def report(
    found: Findings | None = None, policy: BenchmarkPolicy | None = None, **different: Any
) -> BenchmarkReport:
    found, policy = found or findings(), policy or BenchmarkPolicy()
    checks = rated(found, policy)
    plain = BenchmarkReport(
        model="digits",
        version="2",
        verdict=overall(checks),
        checks=checks,
        candidate=found.candidate or Performance("2"),
        champion=found.champion,
        ratios=found.ratios,
        source=found.source,
        is_stable=found.is_stable,
        interrupted=found.interrupted,
        is_late=found.is_late,
        step=found.step,
        host=HERE,
        policy=policy,
        created_at=AT,
        seconds=3.0,
    )
    return replace(plain, **different)
