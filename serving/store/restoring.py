"""Puts back what a restore point holds beside its champion: other aliases, the split, policies, reference.

What is to be done is decided by the pure `plan`; doing it is repeatable, so that whoever was killed half-way
is followed by one who does the rest. Settings of processes cannot be put back from here and are listed.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import NAMESPACE_OID, uuid5

from sqlalchemy import Engine

from serving.core.errors import RegistryUnavailable
from serving.core.model import Alias, Tag
from serving.core.traffic import Split, read_tag, write_tag
from serving.store import policies, reports
from serving.store.guard import Guard, Move, TrafficWish, Wish
from serving.store.leases import Lease
from serving.store.registry import RegisteredModel, Registry
from serving.store.reports import Report
from serving.store.restore_points import Kind, RestorePoint
from serving.store.snapshot import differences
from serving.store.text import JsonValue

_FUNCTIONAL = "functional"
# The champion goes first and on its own; `previous` is serving's to write, from its durable record.
_NOT_OURS = frozenset({Alias.CHAMPION, Alias.PREVIOUS, Alias.CHALLENGER})


@dataclass(frozen=True, slots=True)
class Plan:
    """What to write: aliases (None takes one away), the traffic tag; and in words what stays as it is."""

    aliases: Mapping[str, str | None]
    traffic: str | None
    left: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Restored:
    """`changed` and `left` are sentences; `settings` are `name: then → now` of this process."""

    changed: tuple[str, ...]
    left: tuple[str, ...]
    settings: tuple[str, ...]

    def as_json(self) -> dict[str, JsonValue]:
        return {"changed": self.changed, "left": self.left, "settings": self.settings}


def plan(point: RestorePoint, present: RegisteredModel, left_version: str) -> Plan:
    """What differs from the point, but for the champion.

    A challenger and its share are the business of a rollout: they come back only from a point made by hand,
    and never the version that is being left.
    """
    then: Mapping[str, str] = point.state["model"]["aliases"]
    wanted: dict[str, str | None] = {
        alias: version for alias, version in then.items() if alias not in _NOT_OURS
    }
    wanted.setdefault(Alias.SHADOW, None)
    challenger, tag = _challenger(point, left_version)
    wanted[Alias.CHALLENGER] = challenger
    moves = {alias: version for alias, version in wanted.items() if present.aliases.get(alias) != version}
    newer = sorted(present.aliases.keys() - then.keys() - _NOT_OURS - {Alias.SHADOW})
    left = [f"alias {alias} was not there then and stays" for alias in newer]
    if then.get(Alias.CHALLENGER) not in (challenger, None):
        left.append(f"challenger {then[Alias.CHALLENGER]} belonged to a rollout and is not brought back")
    return Plan(moves, tag, tuple(left))


def restore(
    point: RestorePoint,
    *,
    left_version: str,
    engine: Engine,
    registry: Registry,
    guard: Guard,
    lease: Callable[[], Lease],
    settings: Mapping[str, JsonValue],
    actor: str,
    now: datetime,
) -> Restored:
    """Bring it all back. Raises `RegistryUnavailable`, `StoreUnavailable`, or `ChangeRefused` under a lost
    lease: what was done by then stays, and doing it again changes nothing.
    """
    present = registry.registered_model(point.model)
    what = plan(point, present, left_version)
    reason = f"restore point {point.id}"
    changed: list[str] = []
    left = list(what.left)
    if present.tags.get(Tag.TRAFFIC) != what.traffic:
        _settled(guard.move(TrafficWish(point.model, what.traffic, actor, reason), lease()))
        changed.append(f"traffic tag: {what.traffic or 'none'}")
    known = {one.ref.version for one in registry.versions(point.model)}
    for alias, version in sorted(what.aliases.items()):
        if version is not None and version not in known:
            left.append(f"alias {alias}: version {version} is no longer in the registry")
            continue
        _settled(guard.move(Wish(point.model, alias, version, actor, reason), lease()))
        changed.append(f"alias {alias}: {version or 'none'}")
    changed += _policies(engine, point, actor, now)
    changed += _reference(engine, registry, point, present, now)
    return Restored(tuple(changed), tuple(left), _settings(point, settings))


def _challenger(point: RestorePoint, left_version: str) -> tuple[str | None, str | None]:
    version: str | None = point.state["model"]["aliases"].get(Alias.CHALLENGER)
    if point.kind is not Kind.BY_HAND or version in (None, left_version, point.champion):
        return None, None
    split = read_tag(point.state["traffic"]["tag"])
    if not isinstance(split, Split):
        return version, None
    # The rollout that owned the split is over; now it is a person's.
    return version, write_tag(replace(split, rollout=None))


def _policies(engine: Engine, point: RestorePoint, actor: str, now: datetime) -> list[str]:
    then: Mapping[str, Any] = point.state["system"]["policies"]
    present = policies.of_model(engine, point.model)
    names = sorted(then.keys() | present.keys())
    return [
        f"policy {name}: {'as it was' if name in then else 'none'}"
        for name in names
        if policies.put(engine, point.model, name, then.get(name), actor, now)
    ]


def _reference(
    engine: Engine, registry: Registry, point: RestorePoint, present: RegisteredModel, now: datetime
) -> list[str]:
    """What drift and functional health compare with: the declared set, and the first measurement on it."""
    reference: Mapping[str, Any] = point.state["system"]["drift_reference"]
    done = []
    uri = reference["evaluation_set"]
    if present.tags.get(Tag.EVALUATION_SET) != uri:
        if uri is None:
            registry.delete_tag(point.model, Tag.EVALUATION_SET)
        else:
            registry.set_tag(point.model, Tag.EVALUATION_SET, uri)
        done.append(f"evaluation set: {uri or 'none'}")
    baseline = reference["functional_baseline"]
    if baseline is not None and _bring_baseline(engine, point, baseline, now):
        done.append(f"functional baseline of version {baseline['version']}: {baseline['accuracy']}")
    return done


def _bring_baseline(engine: Engine, point: RestorePoint, baseline: Mapping[str, Any], now: datetime) -> bool:
    version, body = baseline["version"], {k: v for k, v in baseline.items() if k != "version"}
    latest = reports.latest(engine, _FUNCTIONAL, point.model, version)
    if latest is not None and dict(latest.body) == body:
        return False
    # Named after what it repeats: two at once write one.
    identity = uuid5(NAMESPACE_OID, f"{point.id}:{latest.id if latest else ''}").hex
    report = Report(
        id=identity,
        kind=_FUNCTIONAL,
        model=point.model,
        version=version,
        verdict="baseline",
        created_at=now,
        body=body,
    )
    reports.save(engine, report)
    return True


def _settings(point: RestorePoint, present: Mapping[str, JsonValue]) -> tuple[str, ...]:
    """Only names that both know: a point made by another kind of process has others."""
    then: Mapping[str, JsonValue] = point.state["system"]["settings"]
    shared = then.keys() & present.keys()
    found = differences({n: then[n] for n in shared}, {n: present[n] for n in shared})
    return tuple(f"{each.path}: {each.then} → {each.now}" for each in found)


def _settled(move: Move) -> None:
    if not move.is_settled:
        raise RegistryUnavailable(move.reason)
