"""What came of a model file, and how it is recorded: store row, audit row and notice in one transaction."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any
from uuid import uuid4

from sqlalchemy import Engine

from flows.catalog import baseline
from flows.catalog.description import KIND, Description
from serving.core.clock import Clock
from serving.store import audit, model_files, outbox, reports
from serving.store.audit import AuditEntry
from serving.store.database import writing
from serving.store.model_files import ModelFile, State
from serving.store.outbox import Notice, Severity

NOTICE = "model_file_refused"


class Result(StrEnum):
    REGISTERED = "registered"
    ALREADY = "already registered"
    DESCRIBED = "described anew"
    REFUSED = "refused"
    PENDING = "still changing"
    UNCHANGED = "unchanged"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One file. `reason` is why it was refused or waits, `notes` are sentences on what was looked at."""

    path: Path
    result: Result
    model: str | None = None
    version: str | None = None
    format: str | None = None
    reason: str | None = None
    digest: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def is_success(self) -> bool:
        return self.result in (Result.REGISTERED, Result.ALREADY, Result.DESCRIBED)

    @property
    def sentence(self) -> str:
        name = self.path.name
        if self.result is Result.REGISTERED:
            return f"'{name}' is version {self.version} of {self.model}"
        if self.result is Result.ALREADY:
            return f"'{name}' is registered already: version {self.version} of {self.model}"
        if self.result is Result.DESCRIBED:
            return f"'{name}' is version {self.version} of {self.model}, now described as its side file says"
        if self.result is Result.REFUSED:
            return f"'{name}' was not registered: {self.reason}"
        return f"'{name}' is still changing: {self.reason or 'it is registered once it stays as it is'}"

    def as_json(self) -> dict[str, Any]:
        return {
            "path": str(self.path),
            "result": str(self.result),
            "model": self.model,
            "version": self.version,
            "format": self.format,
            "reason": self.reason,
            "digest": self.digest,
            "notes": list(self.notes),
        }


@dataclass(frozen=True, slots=True)
class Recorder:
    """Writes outcomes to the store. `tells` says whether a refusal becomes a notice to people."""

    engine: Engine
    clock: Clock
    actor: str
    tells: bool = True

    def refused(self, file: ModelFile, outcome: Outcome) -> Outcome:
        now = self.clock.now()
        row = replace(
            file,
            state=State.REFUSED,
            reason=outcome.reason,
            model=outcome.model,
            version=None,
            side=None,
            attempt=None,
        )
        with writing(self.engine) as connection:
            model_files.put(connection, row, now)
            if self.tells:
                outbox.enqueue(connection, _notice(row, outcome), now)
            audit.append(connection, self._entry(outcome, {"reason": outcome.reason}))
        return outcome

    def became_version(
        self,
        file: ModelFile,
        outcome: Outcome,
        side: Mapping[str, Any],
        description: Description | None,
        details: Mapping[str, Any],
    ) -> Outcome:
        row = replace(
            file,
            state=State.REGISTERED,
            model=outcome.model,
            version=outcome.version,
            reason=None,
            side=side,
            attempt=None,
        )
        with writing(self.engine) as connection:
            model_files.put(connection, row, self.clock.now())
            if description is not None:
                reports.add(connection, self._report(outcome, description))
            audit.append(connection, self._entry(outcome, details))
        return outcome

    def declared(self, outcome: Outcome, numbers: Mapping[str, Any]) -> None:
        """Keep what a side file says the version costs as its baseline until somebody measures it."""
        if outcome.model is not None and outcome.version is not None:
            baseline.record_declared(
                self.engine, outcome.model, outcome.version, numbers, self.actor, self.clock.now()
            )

    def put(self, file: ModelFile) -> None:
        with writing(self.engine) as connection:
            model_files.put(connection, file, self.clock.now())

    def _report(self, outcome: Outcome, description: Description) -> reports.Report:
        """What later comparisons of two versions read, without their files."""
        return reports.Report(
            id=uuid4().hex,
            kind=KIND,
            model=outcome.model or "",
            version=outcome.version,
            verdict="partial" if description.notes else "described",
            created_at=self.clock.now(),
            body=description.as_json(),
        )

    def _entry(self, outcome: Outcome, details: Mapping[str, Any]) -> AuditEntry:
        return AuditEntry(
            action="register",
            actor=self.actor,
            model=outcome.model,
            version=outcome.version,
            at=self.clock.now(),
            details={"path": str(outcome.path), "result": str(outcome.result), **details},
        )


def _notice(file: ModelFile, outcome: Outcome) -> Notice:
    facts = {"path": file.path, "reason": outcome.reason}
    return Notice(
        kind=NOTICE,
        severity=Severity.WARNING,
        title=outcome.sentence,
        model=outcome.model,
        facts=facts,
        dedup_key=f"{NOTICE}:{model_files.key_of(file.path)[-500:]}:{file.fingerprint}",
    )
