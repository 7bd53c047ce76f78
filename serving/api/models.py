"""`GET /api/v2/model-info`: what the registry wants, what is served, and what is known of each version.

Served versions come from memory. Everything else is asked of the registry and remembered for a few
seconds; when it is away the answer says so and holds what is known.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import orjson
from fastapi import APIRouter
from fastapi.responses import Response

from serving.api.entries import Subject, entries, move
from serving.api.knowledge import DETAILED_VERSIONS, Knowledge, Versions, detailed
from serving.core.errors import NotServed
from serving.core.model import Tag, VersionRef
from serving.fleet.channel import Told
from serving.fleet.elsewhere import Elsewhere, elsewhere
from serving.followed import FollowedModel
from serving.follower import Follower
from serving.health import Health
from serving.pace import NOT_YET
from serving.pool import LoadedVersion
from serving.splits import Splits
from serving.store.observed import NOT_OBSERVED
from serving.store.registry import ModelVersion
from serving.store.version_reports import VersionReports
from serving.telemetry.metrics import Metrics


class ModelDetails:
    """Assembles the answer. Confined to the event loop's thread, but for writing it down."""

    def __init__(
        self,
        models: Mapping[str, FollowedModel],
        follower: Follower,
        splits: Splits,
        knowledge: Knowledge,
        health: Health,
        metrics: Metrics,
        others: Callable[[], Awaitable[list[Told]]],
    ) -> None:
        """`others` asks the server's other workers what they loaded and counted."""
        self._models = models
        self._splits = splits
        self._follower = follower
        self._knowledge = knowledge
        self._health = health
        self._metrics = metrics
        self._others = others

    async def of(self, model: FollowedModel) -> dict[str, Any]:
        """One model's entry."""
        registered = model.registered
        stale, listed = self._follower.registry_problem, Versions()
        if registered is not None:
            listed = await self._knowledge.versions(model.name, stale)
            stale = listed.problem
        moves = await self._knowledge.moves(model.name)
        subjects = await self._subjects(model, listed.listed, stale)
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
            "watch": _watch(model),
            "registry_stale": stale,
            "frozen": await self._knowledge.frozen(model.name),
            "notes": self._notes(subjects),
            "versions": await asyncio.to_thread(entries, subjects, moves),
            "history": [move(row) for row in moves],
        }

    def _notes(self, subjects: Sequence[Subject]) -> list[str]:
        notes = []
        if self._knowledge.store_problem is not None:
            notes.append(f"statistics, descriptions and history are unknown: {self._knowledge.store_problem}")
        if not all(subject.is_told for subject in subjects):
            notes.append(f"only the newest {DETAILED_VERSIONS} versions and those in use are told of in full")
        return notes

    async def _subjects(
        self, model: FollowedModel, listed: Sequence[ModelVersion], stale: str | None
    ) -> list[Subject]:
        known = self._known(model, listed)
        in_use = {number for number, _, loaded in known if loaded is not None}
        told = detailed([registered for _, registered, _ in known if registered is not None], in_use)
        runs = await self._knowledge.runs(told, stale)
        reports = await self._knowledge.reports(model.name, told)
        seen = await self._knowledge.observed(model.name, model.registered)
        numbers = in_use | {version.ref.version for version in told}
        refusals = {refusal.key.ref.version: refusal.reason for refusal in model.refusals.values()}
        others = elsewhere(await self._others())
        active = model.champion.ref.version if model.champion is not None else None
        return [
            Subject(
                number=number,
                registered=registered,
                loaded=loaded,
                run=runs.get(registered.run_id) if registered else None,
                reports=reports.get(number, VersionReports()),
                tally=self._metrics.tally(VersionRef(model.name, number)),
                elsewhere=others.get(VersionRef(model.name, number), Elsewhere()),
                seen=seen.get(number, NOT_OBSERVED),
                is_active=number == active,
                is_told=number in numbers,
                health=str(self._health.status_of(model.name)) if number == active else None,
                refused=refusals.get(number),
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

    def _traffic(self, model: FollowedModel) -> dict[str, Any]:
        """The tag as it is wanted, the split that requests meet, and why they differ."""
        split = model.shown_split
        return {
            "wanted": model.registered.tags.get(Tag.TRAFFIC) if model.registered else None,
            "served": asdict(split) if split else None,
            "reason": self._splits.explain(model),
        }

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


def model_routes(details: ModelDetails, models: Mapping[str, FollowedModel]) -> APIRouter:
    router = APIRouter(tags=["models"])

    @router.get("/api/v2/model-info", response_model=dict[str, Any])
    async def model_info(
        model: str | None = None, type: str | None = None, active: bool | None = None
    ) -> Response:
        if model is not None and model not in models:
            raise NotServed(f"model '{model}' is not followed", exists=sorted(models))
        followed = [models[name] for name in sorted(models) if model in (None, name)]
        told = [await details.of(entry) for entry in followed if entry.registered or entry.served]
        if type is not None:
            told = [entry for entry in told if entry["type"] == type]
        if active is not None:
            told = [_only_active(entry, active) for entry in told]
        return Response(
            await asyncio.to_thread(orjson.dumps, {"models": told}), media_type="application/json"
        )

    return router


def _watch(model: FollowedModel) -> dict[str, Any] | None:
    """What the champion is watched against, and what is known of its latency beside that of the other."""
    watch, pace = model.watch, model.pace
    if watch is None:
        return None
    is_judged = pace is not None and (pace.version, pace.until) == (watch.version, watch.until)
    return {
        "version": watch.version,
        "previous": watch.previous,
        "until": watch.until.isoformat(),
        "latency": pace.said if pace is not None and is_judged else NOT_YET,
    }


def _only_active(entry: dict[str, Any], active: bool) -> dict[str, Any]:
    return entry | {"versions": [v for v in entry["versions"] if v["is_active"] == active]}
