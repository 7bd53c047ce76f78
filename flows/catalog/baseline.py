"""A version's baseline: the benchmark that later ones, and health checks, are compared with.

Measured here or declared in a side file; one row of the store's reports each, the newest counts.
Whether one is due again and whether it got worse are decided without looking at anything else.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import uuid4

from pydantic import ValidationError
from sqlalchemy import Engine

from flows.catalog.benchmark_report import DECLARED, MEASURED, BenchmarkReport, from_json
from flows.catalog.regression import Regression, notice_of, regression
from flows.catalog.verdict import Verdict
from serving.store import audit, outbox, reports
from serving.store.audit import AuditEntry
from serving.store.database import writing
from serving.store.outbox import Notice
from serving.store.reports import Report
from serving.store.text import JsonValue

KIND = "benchmark"
MAX_AGE = timedelta(days=7)
_LOOKED_AT = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """`host_id` is None of a declared one. Latency and memory by name, as in the report's JSON."""

    id: str
    model: str
    version: str
    created_at: datetime
    origin: str
    host_id: str | None
    digest: str | None
    latency_ms: Mapping[str, float]
    throughput_per_second: float | None
    memory_mb: Mapping[str, float]
    accuracy: float | None
    body: Mapping[str, Any]

    @property
    def is_measured(self) -> bool:
        return self.origin == MEASURED

    def report(self) -> BenchmarkReport | None:
        """The whole report; None of a declared one, and of one whose shape another release wrote."""
        try:
            return from_json(self.body) if self.is_measured else None
        except (KeyError, ValidationError):
            return None


class Due(StrEnum):
    """Why a benchmark is due, or that it is not."""

    NO = "it is fresh"
    MISSING = "there is none"
    DECLARED = "it was declared, never measured"
    OLD = "it is older than 7 days"
    OTHER_HOST = "it was measured on another host"


def is_due(baseline: Baseline | None, host_id: str, now: datetime) -> Due:
    """Whether to measure again on this host; the age counts first, as it is the same everywhere."""
    if baseline is None:
        return Due.MISSING
    if not baseline.is_measured:
        return Due.DECLARED
    if now - baseline.created_at > MAX_AGE:
        return Due.OLD
    return Due.NO if baseline.host_id == host_id else Due.OTHER_HOST


def baseline(engine: Engine, model: str, version: str, host_id: str | None = None) -> Baseline | None:
    """The newest baseline of a version, of this host where there is one. An empty report is none."""
    found = [_read(row) for row in reports.recent(engine, KIND, model, _LOOKED_AT, version)]
    found = [each for each in found if each.latency_ms or not each.is_measured]
    here = [each for each in found if host_id is not None and each.host_id == host_id]
    return next(iter(here or found), None)


def keep(engine: Engine, report: BenchmarkReport, actor: str) -> Regression | None:
    """Make the report the version's baseline; what got worse since the former one, told in a notice."""
    former = baseline(engine, report.model, report.version, report.host.id)
    before = former.report() if former is not None else None
    found = regression(before, report) if before is not None else None
    notice = notice_of(report, found, former.id) if found is not None and former is not None else None
    record(engine, report, actor, notice)
    return found


def record(engine: Engine, report: BenchmarkReport, actor: str, notice: Notice | None = None) -> str:
    """Keep the report with its notice and audit that it was made; the stored report's id."""
    row = _row(report.model, report.version, str(report.verdict), report.created_at, report.as_json())
    details: dict[str, JsonValue] = {
        "verdict": str(report.verdict),
        "champion": report.champion.version if report.champion else None,
        "reasons": list(report.reasons),
        "host": report.host.id,
    }
    _write(engine, row, actor, details, notice)
    return row.id


def record_declared(
    engine: Engine, model: str, version: str, numbers: Mapping[str, Any], actor: str, now: datetime
) -> str:
    """Keep what a side file says a version costs; the stored report's id.

    `numbers`: `latency_ms` and `memory_mb`, each a number (the median; the resident size) or a mapping
    as in a report, `throughput_per_second`, `accuracy`. Raises `ValueError` for any that is no number.
    """
    body = {"origin": DECLARED, "verdict": str(Verdict.NOT_MEASURED), **_declared(numbers)}
    row = _row(model, version, DECLARED, now, body)
    _write(engine, row, actor, {"verdict": DECLARED, "numbers": _declared(numbers)}, None)
    return row.id


def accuracy_on_record(engine: Engine, model: str, version: str, digest: str | None) -> float | None:
    """The accuracy that the newest validation of the same files measured."""
    found = reports.latest(engine, "validation", model, version)
    if found is None or found.body.get("digest") != digest:
        return None
    checks: Any = found.body.get("checks") or ()
    evidence: Mapping[str, Any] = next(
        (check["evidence"] for check in checks if check["name"] == "accuracy"), {}
    )
    return _number(evidence.get("candidate")) if evidence.get("metric") == "accuracy" else None


def _write(
    engine: Engine, row: Report, actor: str, details: Mapping[str, JsonValue], notice: Notice | None
) -> None:
    entry = AuditEntry(
        action="benchmark",
        actor=actor,
        model=row.model,
        version=row.version,
        at=row.created_at,
        details={**details, "report": row.id},
    )
    with writing(engine) as connection:
        reports.add(connection, row)
        if notice is not None:
            outbox.enqueue(connection, notice, row.created_at)
        audit.append(connection, entry)


def _row(model: str, version: str, verdict: str, now: datetime, body: Mapping[str, JsonValue]) -> Report:
    return Report(
        id=uuid4().hex, kind=KIND, model=model, version=version, verdict=verdict, created_at=now, body=body
    )


def _read(row: Report) -> Baseline:
    body: Mapping[str, Any] = row.body
    return Baseline(
        id=row.id,
        model=row.model,
        version=row.version or "",
        created_at=row.created_at,
        origin=body.get("origin", MEASURED),
        host_id=(body.get("host") or {}).get("id"),
        digest=body.get("digest"),
        latency_ms=body.get("latency_ms") or {},
        throughput_per_second=_number(body.get("throughput_per_second")),
        memory_mb=body.get("memory_mb") or {},
        accuracy=_number(body.get("accuracy")),
        body=body,
    )


_PLAIN = ("throughput_per_second", "accuracy")
_NAMED = {
    "latency_ms": ("p50", ("mean", "p50", "p90", "p95", "p99", "p999")),
    "memory_mb": ("resident", ("load", "peak", "resident")),
}


def _declared(numbers: Mapping[str, Any]) -> dict[str, Any]:
    unknown = numbers.keys() - _NAMED.keys() - set(_PLAIN)
    if unknown:
        known = ", ".join((*_NAMED, *_PLAIN))
        raise ValueError(f"a declared baseline has no '{min(unknown)}'; it may hold {known}")
    found: dict[str, Any] = {name: _checked(name, numbers[name]) for name in _PLAIN if name in numbers}
    for name, (single, names) in _NAMED.items():
        if name in numbers:
            given = numbers[name]
            by_name = given if isinstance(given, Mapping) else {single: given}
            if by_name.keys() - set(names):
                odd = min(by_name.keys() - set(names))
                raise ValueError(f"{name} has no '{odd}'; it may hold {', '.join(names)}")
            found[name] = {key: _checked(f"{name}.{key}", value) for key, value in by_name.items()}
    return found


def _checked(name: str, value: Any) -> float:
    number = _number(value)
    if number is None or not number >= 0:
        raise ValueError(f"{name} must be a number of at least 0, not {value!r}")
    return number


def _number(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number else None
