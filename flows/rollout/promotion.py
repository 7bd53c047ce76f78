"""One promotion from the request to the announced end, whoever asked for it. Knows no Prefect.

Creates or joins the model's open rollout, works on it under the model's lease, and leaves the outcome
in the store, the outbox and the registry. Safe to run twice: the second run joins or takes up.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import Engine

from flows.rollout.direct import DirectPromotion
from flows.rollout.keeper import take
from flows.rollout.outcome import Outcome, Verdict, notice_of, state_of
from flows.rollout.parts import Parts
from serving.core.clock import Clock
from serving.core.errors import ChangeRefused, NotServed, RegistryUnavailable
from serving.core.model import Alias, Tag, VersionRef
from serving.store import rollouts
from serving.store.guard import Guard, Wish
from serving.store.leases import Held, Lease, Leases
from serving.store.registry import Registry
from serving.store.rollouts import Entry, Request, Rollout
from serving.store.text import JsonValue

STRATEGIES = ("direct",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request as it came in. `version` None means: the one alias `challenger` names."""

    model: str
    version: str | None
    asked_at: datetime
    by: str
    strategy: str = "direct"
    policy: Mapping[str, JsonValue] = field(default_factory=dict)


def record(engine: Engine, registry: Registry, asked: Asked, clock: Clock) -> Entry | Outcome:
    """Open or join a rollout; an outcome where the request cannot stand. Raises `RegistryUnavailable`."""
    if asked.strategy not in STRATEGIES:
        known = ", ".join(STRATEGIES)
        return Outcome(Verdict.REFUSED, f"strategy '{asked.strategy}' does not exist yet; use {known}")
    try:
        version = asked.version or registry.alias(asked.model, Alias.CHALLENGER)
        if version is None:
            return Outcome(Verdict.REFUSED, f"'{asked.model}' has no alias challenger; name a version")
        if not version.isdecimal():
            problem = f"'{version}' is no version number"
            return Outcome(Verdict.REFUSED, f"{problem}{_versions(registry, asked.model)}")
        version = registry.version(VersionRef(asked.model, version)).ref.version
    except NotServed as error:
        return Outcome(Verdict.REFUSED, f"{error}{_versions(registry, asked.model)}")
    if asked.model not in registry.registered_models():
        return Outcome(Verdict.REFUSED, f"'{asked.model}' is none of the models in SIGNALBOX_MODELS")
    request = Request(
        model=asked.model,
        version=version,
        strategy=asked.strategy,
        requested_by=asked.by,
        policy=dict(asked.policy),
    )
    try:
        entry = rollouts.enter(engine, request, asked.asked_at, clock.now())
    except ChangeRefused as refusal:
        return Outcome(Verdict.REFUSED, str(refusal))
    if entry.rollout.version != version:
        other = entry.rollout
        return Outcome(
            Verdict.BUSY,
            f"version {other.version} of '{other.model}' is being promoted by {other.requested_by} "
            f"(rollout {other.id}); ask again when it has ended",
            other,
        )
    is_joining = not entry.created and not entry.rollout.state.is_terminal
    if is_joining and any(entry.rollout.policy.get(name) != limit for name, limit in asked.policy.items()):
        other = entry.rollout
        return Outcome(
            Verdict.BUSY,
            f"rollout {other.id} of this version runs under other limits ({_limits(other)}); "
            "ask again when it has ended",
            other,
        )
    return entry


def _limits(rollout: Rollout) -> str:
    return ", ".join(f"{name} {value}" for name, value in rollout.policy.items()) or "the defaults"


def work(
    rollout: Rollout,
    parts: Parts,
    leases: Leases,
    holder: str,
    report: Callable[[str], None],
    pause: Callable[[float], object] = time.sleep,
) -> Outcome:
    """Carry an open rollout to its end, or say who does or what is in the way. Raises `StoreUnavailable`."""

    def is_over() -> bool:
        return rollouts.get(parts.engine, rollout.id).state.is_terminal

    keeper = take(leases, f"model:{rollout.model}", holder, is_over, pause)
    if isinstance(keeper, Held):
        return Outcome(Verdict.JOINED, f"rollout {rollout.id} is worked on by {keeper.holder}", rollout)
    if keeper is None:
        return joined(rollouts.get(parts.engine, rollout.id))
    with keeper.working():
        present = rollouts.get(parts.engine, rollout.id)
        if present.state.is_terminal:
            return joined(present)
        outcome = DirectPromotion(parts, present, keeper, report).run()
        if outcome.verdict in (Verdict.JOINED, Verdict.UNAVAILABLE):
            return outcome
        finished = rollouts.finish(
            parts.engine,
            outcome.rollout or present,
            state_of(outcome.verdict),
            outcome.reason,
            holder,
            parts.clock.now(),
            notice_of(outcome.rollout or present, outcome.verdict, outcome.reason),
        )
        warnings = (*outcome.warnings, *tidy(finished, parts.registry, parts.guard, lambda: keeper.lease))
    return Outcome(outcome.verdict, outcome.reason, finished, warnings)


def joined(rollout: Rollout) -> Outcome:
    """The outcome for somebody whose question another rollout has answered."""
    answer = f": {rollout.state}, {rollout.reason}" if rollout.state.is_terminal else ""
    return Outcome(Verdict.JOINED, f"rollout {rollout.id} of the same version answers this{answer}", rollout)


def tidy(rollout: Rollout, registry: Registry, guard: Guard, lease: Callable[[], Lease]) -> tuple[str, ...]:
    """Leave the verdict in the registry: reason as tags and description, alias `challenger` taken away.

    Repeatable; what failed comes back as warnings, and `tend` tries again.
    """
    ref = VersionRef(rollout.model, rollout.version)
    try:
        if not _is_champion_already(registry, rollout):
            _explain(registry, ref, rollout)
        wish = Wish(
            model=rollout.model,
            alias=Alias.CHALLENGER,
            to_version=None,
            actor=rollout.requested_by,
            reason=f"rollout {rollout.id} {rollout.state}",
            only_from=frozenset({rollout.version}),
        )
        if registry.alias(rollout.model, Alias.CHALLENGER) == rollout.version:
            move = guard.move(wish, lease())
            return () if move.is_settled else (f"alias challenger was not deleted: {move.reason}",)
    except (RegistryUnavailable, NotServed, ChangeRefused) as error:
        return (f"the registry was not told: {error}",)
    return ()


def _is_champion_already(registry: Registry, rollout: Rollout) -> bool:
    """Asking for the present champion is refused, and says nothing against the version."""
    is_refused = rollout.state is rollouts.State.REFUSED
    return is_refused and registry.alias(rollout.model, Alias.CHAMPION) == rollout.version


def _explain(registry: Registry, ref: VersionRef, rollout: Rollout) -> None:
    tags = registry.version(ref).tags
    if tags.get(Tag.ROLLOUT) == rollout.id:
        return
    evidence = rollout.evidence or {}
    verdicts = (evidence.get("verdict"), evidence.get("benchmark", {}).get("verdict"))
    if rollout.state is rollouts.State.REFUSED and "failed" in verdicts:
        registry.set_version_tag(ref, Tag.VALIDATION, "failed")
    registry.set_version_tag(ref, Tag.VERDICT, f"{rollout.state}: {rollout.reason}"[:4900])
    if rollout.state is not rollouts.State.PROMOTED:
        registry.set_version_description(ref, _described(registry.version(ref).description, rollout))
    registry.set_version_tag(ref, Tag.ROLLOUT, rollout.id)


def _described(description: str, rollout: Rollout) -> str:
    """The description somebody wrote, with our last verdict under it instead of an earlier one."""
    own = description.partition(_MARK)[0].rstrip()
    when = rollout.finished_at.isoformat(timespec="seconds") if rollout.finished_at else ""
    return f"{own}\n\n{_MARK} {rollout.state} {when}: {rollout.reason}".strip()[:4900]


_MARK = "Signalbox:"


def _versions(registry: Registry, model: str) -> str:
    try:
        numbers = [version.ref.version for version in registry.versions(model)]
        names = sorted(registry.registered_models())
    except RegistryUnavailable:
        return ""
    if numbers:
        return f"; it has versions {', '.join(numbers)}"
    return f"; registered are {', '.join(names) or 'no models'}"
