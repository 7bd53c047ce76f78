"""`GET /api/v2/model-info`: what the registry wants, what is served, and what is known of each version.

Served versions come from memory. Everything else is asked of the registry and remembered for a few
seconds; when it is away the answer says so and holds what is known.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter

from serving.core.clock import Clock
from serving.core.errors import NotServed, RegistryUnavailable, SignalboxError, StoreUnavailable
from serving.core.model import Tag, TensorSpec
from serving.followed import FollowedModel
from serving.follower import Follower
from serving.health import Health
from serving.ledger import Ledger
from serving.pool import LoadedVersion
from serving.splits import Splits
from serving.store import changes
from serving.store.registry import ModelVersion, Registry, Run

_REMEMBER_SECONDS = 5.0
_HISTORY_ROWS = 50
# Null until something measures them, so that the answer's shape does not depend on what is installed.
_STATISTICS = (
    "accuracy",
    "precision",
    "recall",
    "f1",
    "mean_latency_ms",
    "latency_quantiles_ms",
    "throughput",
    "cpu",
    "error_rate",
    "last_benchmark",
)


class ModelDetails:
    """Assembles the answer. Confined to the event loop's thread."""

    def __init__(
        self,
        models: Mapping[str, FollowedModel],
        follower: Follower,
        registry: Registry,
        splits: Splits,
        health: Health,
        ledger: Ledger,
        clock: Clock,
    ) -> None:
        self._models = models
        self._splits = splits
        self._follower = follower
        self._registry = registry
        self._health = health
        self._ledger = ledger
        self._clock = clock
        self._versions: dict[str, tuple[float, list[ModelVersion]]] = {}
        self._runs: dict[str, Run] = {}

    async def of(self, model: FollowedModel) -> dict[str, Any]:
        """One model's entry."""
        registered = model.registered
        stale = self._follower.registry_problem
        versions = self._versions.get(model.name, (0.0, []))[1]
        try:
            if stale is None:  # else asking would only wait for the registry to time out
                versions = await self._listed(model.name) if registered is not None else []
        except SignalboxError as error:
            stale = str(error)
        tags = dict(registered.tags) if registered else {}
        return {
            "name": model.name,
            "type": tags.get(Tag.MODEL_TYPE),
            "description": registered.description if registered else None,
            "owner": tags.get(Tag.OWNER),
            "tags": tags,
            "aliases": self._aliases(model),
            "previous": model.previous.ref.version if model.previous else None,
            "traffic": self._traffic(model),
            "watched_until": model.watch.until.isoformat() if model.watch else None,
            "registry_stale": stale,
            "versions": [await self._version(model, entry) for entry in self._known(model, versions)],
            "history": await self._history(model.name),
        }

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

    def _traffic(self, model: FollowedModel) -> dict[str, Any]:
        """The tag as it is wanted, the split that requests meet, and why they differ."""
        split = model.shown_split
        return {
            "wanted": model.registered.tags.get(Tag.TRAFFIC) if model.registered else None,
            "served": asdict(split) if split else None,
            "reason": self._splits.explain(model),
        }

    def _known(
        self, model: FollowedModel, listed: list[ModelVersion]
    ) -> list[tuple[str, ModelVersion | None, LoadedVersion | None]]:
        loaded = {version.ref.version: version for version in model.in_use()}
        registered = {version.ref.version: version for version in listed}
        for number, version in loaded.items():
            if number not in registered and version.provenance.registered is not None:
                registered[number] = version.provenance.registered
        numbers = sorted(loaded.keys() | registered.keys(), key=int)
        return [(number, registered.get(number), loaded.get(number)) for number in numbers]

    async def _listed(self, model: str) -> list[ModelVersion]:
        now = self._clock.monotonic()
        remembered = self._versions.get(model)
        if remembered is not None and now - remembered[0] < _REMEMBER_SECONDS:
            return remembered[1]
        versions = await asyncio.to_thread(self._registry.versions, model)
        self._versions[model] = (now, versions)
        return versions

    async def _run(self, registered: ModelVersion | None) -> Run | None:
        if registered is None or not registered.run_id:
            return None
        if registered.run_id not in self._runs:
            if self._follower.registry_problem is not None:
                return None
            try:
                self._runs[registered.run_id] = await asyncio.to_thread(self._registry.run, registered.run_id)
            except (RegistryUnavailable, NotServed):
                return None
        return self._runs[registered.run_id]

    async def _version(
        self, model: FollowedModel, known: tuple[str, ModelVersion | None, LoadedVersion | None]
    ) -> dict[str, Any]:
        number, registered, loaded = known
        run = await self._run(registered)
        tags = dict(registered.tags) if registered else {}
        refusals = [r.reason for r in model.refusals.values() if r.key.ref.version == number]
        is_active = model.champion is not None and model.champion.ref.version == number
        dataset = tags.get(Tag.TRAINING_DATASET) or (", ".join(run.datasets) if run else "")
        return {
            "version": number,
            "format": str(loaded.artifact.format) if loaded else tags.get(Tag.FORMAT),
            "digest": loaded.provenance.digest if loaded else tags.get(Tag.DIGEST),
            "file_path": registered.source if registered else (loaded.provenance.source if loaded else None),
            "architecture": tags.get(Tag.ARCHITECTURE),
            "inputs": _specs(loaded.model.inputs) if loaded else None,
            "outputs": _specs(loaded.model.outputs) if loaded else None,
            "training_dataset": dataset or None,
            "training_metrics": dict(run.metrics) if run else {},
            "training_params": dict(run.params) if run else {},
            "description": registered.description if registered else None,
            "author": tags.get(Tag.AUTHOR) or (registered.user if registered else None),
            "tags": tags,
            "created_at": _time(registered.created_ms) if registered else None,
            "last_updated": _time(registered.updated_ms) if registered else None,
            "is_active": is_active,
            "loaded": loaded is not None and loaded.is_awake,
            "loaded_at": loaded.loaded_at.isoformat() if loaded else None,
            "self_test": _self_test(loaded) if loaded else None,
            "dependencies": None,
            "memory_mb": _memory_mb(loaded) or _number(tags.get(Tag.MEMORY_MB)),
            "statistics": dict.fromkeys(_STATISTICS),
            "refused": refusals[0] if refusals else None,
            "health": str(self._health.status_of(model.name)) if is_active else None,
        }

    async def _history(self, model: str) -> list[dict[str, Any]]:
        """Recorded moves of the model's aliases, newest first; empty while the store is away."""
        try:
            rows = await self._ledger.call(lambda engine: changes.recent(engine, model, _HISTORY_ROWS))
        except StoreUnavailable:
            return []
        return [
            {
                "at": row.at.isoformat(),
                "alias": row.alias,
                "from": row.from_version,
                "to": row.to_version,
                "actor": row.actor,
                "reason": row.reason,
                "by_hand": row.out_of_band,
                "outcome": str(row.outcome) if row.outcome else None,
            }
            for row in rows
        ]


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


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None


def _time(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat()


def _memory_mb(loaded: LoadedVersion | None) -> float | None:
    """What loading was seen to take here."""
    return round(loaded.loading.cost_bytes / (1 << 20), 1) if loaded and loaded.loading.cost_bytes else None
