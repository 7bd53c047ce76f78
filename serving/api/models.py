"""`GET /api/v2/model-info`: what the registry wants, what is served, and what is known of each version.

Served versions come from memory. Everything else is asked of the registry and remembered for a few
seconds; when it is away the answer says so and holds what is known.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter

from serving.api import figures
from serving.api.knowledge import DETAILED_VERSIONS, Knowledge, detailed
from serving.core.errors import NotServed
from serving.core.model import Tag, TensorSpec, VersionRef
from serving.followed import FollowedModel
from serving.follower import Follower
from serving.formats.artifact import payload_files
from serving.health import Health
from serving.pool import LoadedVersion
from serving.store.changes import RecordedChange
from serving.store.registry import ModelVersion, Run
from serving.store.version_reports import VersionReports
from serving.telemetry.metrics import Metrics


@dataclass(frozen=True, slots=True)
class _Subject:
    """All that is known of one version; each part may be missing."""

    number: str
    registered: ModelVersion | None
    loaded: LoadedVersion | None
    run: Run | None
    reports: VersionReports
    changes: Mapping[str, Any] | None

    @property
    def tags(self) -> dict[str, str]:
        return dict(self.registered.tags) if self.registered else {}


class ModelDetails:
    """Assembles the answer. Confined to the event loop's thread."""

    def __init__(
        self,
        models: Mapping[str, FollowedModel],
        follower: Follower,
        knowledge: Knowledge,
        health: Health,
        metrics: Metrics,
    ) -> None:
        self._models = models
        self._follower = follower
        self._knowledge = knowledge
        self._health = health
        self._metrics = metrics
        self._sizes: dict[str, int] = {}

    async def of(self, model: FollowedModel) -> dict[str, Any]:
        """One model's entry."""
        registered = model.registered
        stale = self._follower.registry_problem
        found = await self._knowledge.versions(
            model.name, stale if registered is not None else "unregistered"
        )
        stale = found.problem if registered is not None else stale
        moves = await self._knowledge.moves(model.name)
        subjects = await self._subjects(model, found.listed if registered is not None else (), stale)
        tags = dict(registered.tags) if registered else {}
        return {
            "name": model.name,
            "type": tags.get(Tag.MODEL_TYPE),
            "description": registered.description if registered else None,
            "owner": tags.get(Tag.OWNER),
            "tags": tags,
            "aliases": self._aliases(model),
            "previous": model.previous.ref.version if model.previous else None,
            "watched_until": model.watch.until.isoformat() if model.watch else None,
            "registry_stale": stale,
            "notes": self._notes(subjects),
            "versions": [await self._version(model, subject, moves) for subject in subjects],
            "history": [_move(row) for row in moves],
        }

    def _notes(self, subjects: Sequence[_Subject]) -> list[str]:
        notes = []
        if self._knowledge.store_problem is not None:
            notes.append(f"statistics, descriptions and history are unknown: {self._knowledge.store_problem}")
        if len(subjects) > DETAILED_VERSIONS:
            notes.append(f"only the newest {DETAILED_VERSIONS} versions and those in use are told of in full")
        return notes

    async def _subjects(
        self, model: FollowedModel, listed: Sequence[ModelVersion], stale: str | None
    ) -> list[_Subject]:
        known = self._known(model, listed)
        in_use = {number for number, _, loaded in known if loaded is not None}
        told = detailed([registered for _, registered, _ in known if registered is not None], in_use)
        runs = await self._knowledge.runs(told, stale)
        reports = await self._knowledge.reports(model.name, told)
        changes = figures.version_history(told, runs, reports)
        return [
            _Subject(
                number,
                registered,
                loaded,
                runs.get(registered.run_id) if registered else None,
                reports.get(number, VersionReports()),
                changes.get(number),
            )
            for number, registered, loaded in known
        ]

    def _aliases(self, model: FollowedModel) -> dict[str, dict[str, Any]]:
        """Wanted and served apart, per alias, and why they differ."""
        wanted = dict(model.registered.aliases) if model.registered else {}
        entries = {}
        for alias in sorted(wanted.keys() | model.served.keys()):
            refusal = model.refusals.get(alias)
            served = model.served.get(alias)
            entries[alias] = {
                "wanted": wanted.get(alias),
                "served": served.ref.version if served else None,
                "reason": refusal.reason if refusal else None,
            }
        return entries

    def _known(
        self, model: FollowedModel, listed: Sequence[ModelVersion]
    ) -> list[tuple[str, ModelVersion | None, LoadedVersion | None]]:
        loaded = {version.ref.version: version for version in model.in_use()}
        registered = {version.ref.version: version for version in listed}
        for number, version in loaded.items():
            if number not in registered and version.provenance.registered is not None:
                registered[number] = version.provenance.registered
        numbers = sorted(loaded.keys() | registered.keys(), key=int)
        return [(number, registered.get(number), loaded.get(number)) for number in numbers]

    async def _version(
        self, model: FollowedModel, subject: _Subject, moves: Sequence[RecordedChange]
    ) -> dict[str, Any]:
        number, loaded, reports = subject.number, subject.loaded, subject.reports
        refusals = [r.reason for r in model.refusals.values() if r.key.ref.version == number]
        is_active = model.champion is not None and model.champion.ref.version == number
        tally = self._metrics.tally(VersionRef(model.name, number))
        return {
            "version": number,
            **_identity(subject),
            **_prose(subject),
            **_tensors(subject),
            **figures.described(reports),
            "size_bytes": await self._size_bytes(subject),
            "is_active": is_active,
            "loaded": loaded is not None,
            "loaded_at": loaded.loaded_at.isoformat() if loaded else None,
            "self_test": _self_test(loaded) if loaded else None,
            "memory_mb": figures.memory_mb(reports, subject.tags),
            "statistics": figures.statistics(reports, subject.tags, tally),
            "refused": refusals[0] if refusals else None,
            "health": str(self._health.status_of(model.name)) if is_active else None,
            "history": [_move(row) for row in moves if number in (row.from_version, row.to_version)],
            "changes": subject.changes,
        }

    async def _size_bytes(self, subject: _Subject) -> int | None:
        """As described, else of the files that are loaded."""
        described: int | None = subject.reports.description.get("size_bytes")
        if described is not None or subject.loaded is None:
            return described
        digest = subject.loaded.provenance.digest
        if digest not in self._sizes:
            self._sizes = {**self._sizes, digest: await asyncio.to_thread(_payload_bytes, subject.loaded)}
        return self._sizes[digest]


def model_routes(details: ModelDetails, models: Mapping[str, FollowedModel]) -> APIRouter:
    router = APIRouter(tags=["models"])

    @router.get("/api/v2/model-info")
    async def model_info(
        model: str | None = None, type: str | None = None, active: bool | None = None
    ) -> dict[str, Any]:
        if model is not None and model not in models:
            raise NotServed(f"model '{model}' is not followed", exists=sorted(models))
        followed = [models[name] for name in sorted(models) if model in (None, name)]
        entries = [await details.of(entry) for entry in followed if entry.registered or entry.served]
        if type is not None:
            entries = [entry for entry in entries if entry["type"] == type]
        if active is not None:
            entries = [_only_active(entry, active) for entry in entries]
        return {"models": entries}

    return router


def _only_active(entry: dict[str, Any], active: bool) -> dict[str, Any]:
    return entry | {"versions": [v for v in entry["versions"] if v["is_active"] == active]}


def _identity(subject: _Subject) -> dict[str, Any]:
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


def _prose(subject: _Subject) -> dict[str, Any]:
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


def _tensors(subject: _Subject) -> dict[str, Any]:
    """As they are served, else as they were described."""
    if subject.loaded is not None:
        model = subject.loaded.model
        return {"inputs": _specs(model.inputs), "outputs": _specs(model.outputs)}
    body = subject.reports.description
    return {role: figures.tensors(body, role) for role in ("inputs", "outputs")}


def _move(row: RecordedChange) -> dict[str, Any]:
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


def _payload_bytes(loaded: LoadedVersion) -> int:
    return sum(path.stat().st_size for path in payload_files(loaded.artifact.root) if path.is_file())


def _specs(specs: tuple[TensorSpec, ...]) -> list[dict[str, Any]]:
    return [{"name": spec.name, "datatype": spec.datatype, "shape": spec.wire_shape} for spec in specs]


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
