"""The report of one validation: verdict, checks, and what the comparison rests on.

Made by `flows.catalog.validate`, shown by `flows.catalog.render`, kept in the state store as JSON.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import uuid4

from pydantic import TypeAdapter
from sqlalchemy import Engine

from flows.catalog.policy import ValidationPolicy
from flows.catalog.verdict import Check, CheckName, Verdict
from serving.core.model import Tag, VersionRef
from serving.store import audit, reports
from serving.store.audit import AuditEntry
from serving.store.database import writing
from serving.store.registry import Registry

KIND = "validation"
# MLflow takes up to 5,000 characters in the tag of a version.
_TAG_CHARACTERS = 4900


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationReport:
    """`champion` is the version compared with, None where there was none; `digest` is the payload's."""

    model: str
    version: str
    champion: str | None
    verdict: Verdict
    checks: tuple[Check, ...]
    evaluation_set: str | None
    format: str | None
    digest: str | None
    policy: ValidationPolicy
    created_at: datetime
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether the version may be promoted; a warning does not stand in its way."""
        return self.verdict in (Verdict.PASSED, Verdict.WARNING)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it failed: one sentence per failed check, without repetition."""
        return tuple(dict.fromkeys(self._messages(Verdict.FAILED)))

    @property
    def warnings(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self._messages(Verdict.WARNING)))

    @property
    def reason(self) -> str:
        """One sentence for a notice: why it failed, or that it did not."""
        return "; ".join(self.reasons) or f"validation {self.verdict}".replace("_", " ")

    def as_json(self) -> dict[str, Any]:
        """The report as plain JSON values; `from_json` reads them back."""
        values: dict[str, Any] = _REPORTS.dump_python(self, mode="json")
        return values

    def check(self, name: CheckName) -> Check:
        return next(check for check in self.checks if check.name is name)

    def _messages(self, verdict: Verdict) -> list[str]:
        return [f"{check.name}: {check.message}" for check in self.checks if check.verdict is verdict]


_REPORTS = TypeAdapter(ValidationReport)


def from_json(values: Mapping[str, Any]) -> ValidationReport:
    """What `as_json` made, read back from the store."""
    return _REPORTS.validate_python(dict(values))


def headline(report: ValidationReport) -> str:
    """`digits version 5 failed validation against champion 2`."""
    champion = report.champion
    rival = f" against champion {champion}" if champion else ", without a champion to compare with"
    said = {
        Verdict.PASSED: "passed validation",
        Verdict.WARNING: "passed validation with warnings",
        Verdict.FAILED: "failed validation",
        Verdict.NOT_MEASURED: "could not be validated",
    }[report.verdict]
    return f"{report.model} version {report.version} {said}{rival}"


def mark(registry: Registry, report: ValidationReport) -> None:
    """Leave the verdict on the version, where `SIGNALBOX_REQUIRE_VALIDATION` looks for it.

    The reasons go first: a verdict that is there has them beside it.
    """
    ref = VersionRef(report.model, report.version)
    said = "; ".join((headline(report), *report.reasons, *report.warnings))
    registry.set_version_tag(ref, Tag.VALIDATION_SUMMARY, said[:_TAG_CHARACTERS])
    registry.set_version_tag(ref, Tag.VALIDATION, "passed" if report.passed else "failed")


def record(engine: Engine, report: ValidationReport, actor: str) -> str:
    """Keep the report and audit that it was made; the stored report's id."""
    kept = reports.Report(
        id=uuid4().hex,
        kind=KIND,
        model=report.model,
        version=report.version,
        verdict=str(report.verdict),
        created_at=report.created_at,
        body=report.as_json(),
    )
    reports.save(engine, kept)
    entry = AuditEntry(
        action="validate",
        actor=actor,
        model=report.model,
        version=report.version,
        at=report.created_at,
        details={
            "verdict": str(report.verdict),
            "champion": report.champion,
            "reasons": list(report.reasons),
            "report": kept.id,
        },
    )
    with writing(engine) as connection:
        audit.append(connection, entry)
    return kept.id
