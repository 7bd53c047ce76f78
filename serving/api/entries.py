"""A version's entry in model-info, made of what is known of it; pure, for threads beside the event loop.

A model with hundreds of versions takes a tenth of a second to write down, which no request should wait
for; so everything that belongs to the loop's thread is gathered into a `Subject` first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from serving.api import figures
from serving.api.causes import brief
from serving.core.model import Tag, TensorSpec
from serving.fleet.elsewhere import Elsewhere
from serving.formats.artifact import payload_files
from serving.pool import LoadedVersion
from serving.store import observed
from serving.store.changes import RecordedChange
from serving.store.observed import NOT_OBSERVED, Observed
from serving.store.registry import ModelVersion, Run
from serving.store.version_reports import VersionReports
from serving.telemetry.metrics import Tally


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """All that is known of one version.

    `elsewhere` is what other workers hold of it, `is_told` says whether run and reports were asked for.
    """

    number: str
    registered: ModelVersion | None
    loaded: LoadedVersion | None
    run: Run | None
    reports: VersionReports
    tally: Tally
    elsewhere: Elsewhere
    seen: Observed = NOT_OBSERVED
    is_active: bool
    is_told: bool
    health: str | None
    refused: str | None

    @property
    def tags(self) -> dict[str, str]:
        return dict(self.registered.tags) if self.registered else {}


def entries(subjects: Sequence[Subject], moves: Sequence[RecordedChange]) -> list[dict[str, Any]]:
    """One per version, in their order. Looks at the files of loaded versions, so not on the event loop."""
    told = [
        (each.registered, each.run, each.reports)
        for each in subjects
        if each.is_told and each.registered is not None
    ]
    changes = figures.version_history(told)
    return [_entry(subject, moves, changes.get(subject.number)) for subject in subjects]


def move(row: RecordedChange) -> dict[str, Any]:
    """A recorded move of an alias."""
    return {
        "at": row.at.isoformat(),
        "alias": row.alias,
        "from": row.from_version,
        "to": row.to_version,
        "actor": row.actor,
        "reason": row.reason,
        "by_hand": row.out_of_band,
        "outcome": str(row.outcome) if row.outcome else None,
    }


def _entry(
    subject: Subject, moves: Sequence[RecordedChange], changes: Mapping[str, Any] | None
) -> dict[str, Any]:
    loaded, reports, number = subject.loaded, subject.reports, subject.number
    cost_bytes = subject.elsewhere.cost_bytes + (loaded.loading.cost_bytes if loaded else 0)
    return {
        "version": number,
        **_identity(subject),
        **_prose(subject),
        **_tensors(subject),
        **figures.described(reports),
        "size_bytes": _size_bytes(subject),
        "is_active": subject.is_active,
        "loaded": subject.elsewhere.is_awake or (loaded is not None and loaded.is_awake),
        "loaded_at": loaded.loaded_at.isoformat() if loaded else None,
        "self_test": _self_test(loaded) if loaded else None,
        "memory_mb": figures.memory_mb(reports, cost_bytes, subject.tags),
        "statistics": figures.statistics(
            reports, subject.tags, subject.tally + subject.elsewhere.tally, subject.seen
        ),
        "live": observed.as_json(subject.seen),
        "errors": [brief(cause) for cause in subject.seen.causes],
        "refused": subject.refused,
        "health": subject.health,
        "history": [move(row) for row in moves if number in (row.from_version, row.to_version)],
        "changes": changes,
    }


def _identity(subject: Subject) -> dict[str, Any]:
    registered, loaded, tags = subject.registered, subject.loaded, subject.tags
    described = subject.reports.description
    source = loaded.provenance.source if loaded else None
    return {
        "format": str(loaded.artifact.format) if loaded else tags.get(Tag.FORMAT) or described.get("format"),
        "digest": loaded.provenance.digest if loaded else tags.get(Tag.DIGEST),
        "file_path": registered.source if registered else source,
        "tags": tags,
        "created_at": _time(registered.created_ms) if registered else None,
        "last_updated": _time(registered.updated_ms) if registered else None,
    }


def _prose(subject: Subject) -> dict[str, Any]:
    """What people say of a version: in the registry, else in its run, else in its file."""
    registered, run, tags = subject.registered, subject.run, subject.tags
    body = subject.reports.description
    told: Mapping[str, Any] = body.get("told") or {}
    dataset = tags.get(Tag.TRAINING_DATASET) or (", ".join(run.datasets) if run else "")
    description = registered.description if registered else ""
    return {
        "architecture": tags.get(Tag.ARCHITECTURE) or body.get("architecture"),
        "training_dataset": dataset or told.get("training_dataset"),
        "training_metrics": {**(told.get("metrics") or {}), **(run.metrics if run else {})},
        "training_params": dict(run.params) if run else {},
        "description": description or told.get("description"),
        "author": tags.get(Tag.AUTHOR) or told.get("author") or (registered.user if registered else None),
    }


def _tensors(subject: Subject) -> dict[str, Any]:
    """As they are served, else as they were described."""
    if subject.loaded is not None:
        model = subject.loaded.model
        return {"inputs": _specs(model.inputs), "outputs": _specs(model.outputs)}
    body = subject.reports.description
    return {role: figures.tensors(body, role) for role in ("inputs", "outputs")}


def _specs(specs: tuple[TensorSpec, ...]) -> list[dict[str, Any]]:
    return [{"name": spec.name, "datatype": spec.datatype, "shape": spec.wire_shape} for spec in specs]


def _size_bytes(subject: Subject) -> int | None:
    """As described, else of the files that are loaded."""
    described: int | None = subject.reports.description.get("size_bytes")
    if described is not None or subject.loaded is None:
        return described
    return sum(path.stat().st_size for path in payload_files(subject.loaded.artifact.root))


def _self_test(loaded: LoadedVersion) -> dict[str, Any]:
    tested = loaded.self_test
    return {
        "verdict": str(tested.verdict),
        "basis": str(tested.basis),
        "reason": tested.reason,
        "milliseconds": round(tested.seconds * 1000, 3),
    }


def _time(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat()
