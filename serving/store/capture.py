"""Reads what a restore point holds from registry and store, and writes the point.

Called by promotions and rollbacks before their first change, by the command line and by the API.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import Engine

from serving.core.model import Alias, Tag
from serving.store import digests, overrides, policies, reports, restore_points, workers
from serving.store.registry import ModelVersion, RegisteredModel, Registry
from serving.store.restore_points import Draft, Kind, RestorePoint
from serving.store.snapshot import Captured, snapshot, worth_keeping
from serving.store.text import JsonValue

_FUNCTIONAL = "functional"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A restore point to make. `settings` are those of the process that makes it, without secrets."""

    id: str
    model: str
    kind: Kind
    reason: str
    by: str
    settings: Mapping[str, JsonValue]


def make(engine: Engine, registry: Registry, wanted: Wanted, now: datetime) -> RestorePoint:
    """Raises `NotServed` for a model that the registry does not have."""
    state = captured(engine, registry, wanted.model, wanted.settings, now)
    draft = Draft(
        id=wanted.id,
        model=wanted.model,
        kind=wanted.kind,
        reason=wanted.reason,
        state=state,
        created_by=wanted.by,
    )
    return restore_points.create(engine, draft, now)


def captured(
    engine: Engine, registry: Registry, model: str, settings: Mapping[str, JsonValue], now: datetime
) -> dict[str, JsonValue]:
    """The present state in the form of a restore point's."""
    registered = _as_answered(engine, registry.registered_model(model))
    versions = worth_keeping(registered, registry.versions(model))
    return snapshot(
        Captured(
            registered=registered,
            versions=versions,
            digests=_digests(engine, versions),
            policies=policies.of_model(engine, model),
            baseline=_baseline(engine, model, registered.aliases.get(Alias.CHAMPION)),
            beats=workers.live(engine, now),
            settings=settings,
        )
    )


def _as_answered(engine: Engine, registered: RegisteredModel) -> RegisteredModel:
    """The model with what answers for champion, which after a rollback the registry may not name yet."""
    aliases = dict(registered.aliases)
    for override in overrides.active(engine):
        role = override.role
        if override.model == registered.name and aliases.get(role) == override.not_version:
            aliases = {name: version for name, version in aliases.items() if name != role}
            aliases |= {role: override.answer_with} if override.answer_with is not None else {}
    return replace(registered, aliases=aliases)


def _digests(engine: Engine, versions: Sequence[ModelVersion]) -> dict[str, str]:
    found = {}
    for version in versions:
        if Tag.DIGEST not in version.tags:
            ref = version.ref
            if (digest := digests.recorded(engine, ref.model, ref.version, version.source)) is not None:
                found[ref.version] = digest
    return found


def _baseline(engine: Engine, model: str, champion: str | None) -> dict[str, JsonValue] | None:
    if champion is None:
        return None
    report = reports.latest(engine, _FUNCTIONAL, model, champion)
    return None if report is None else {"version": champion, **report.body}
