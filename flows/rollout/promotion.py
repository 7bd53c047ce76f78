"""One promotion from the request to the announced end, whoever asked for it. Knows no Prefect.

Creates or joins the model's open rollout, works on it under the model's lease, and leaves the outcome
in the store, the outbox and the registry. Safe to run twice: the second run joins or takes up.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from sqlalchemy import Engine

from flows.rollout.direct import DirectPromotion
from flows.rollout.explanation import explain
from flows.rollout.keeper import Keeper, take
from flows.rollout.outcome import Outcome, Verdict, notice_of, state_of
from flows.rollout.parts import Ending, Parts
from flows.rollout.policy import Spec, Usual, kind_of, plan_of
from flows.rollout.staged import StagedPromotion
from serving.core.clock import Clock
from serving.core.errors import ChangeRefused, NotServed, RegistryUnavailable
from serving.core.model import Alias, Tag, VersionRef
from serving.core.traffic import Split, read_tag
from serving.store import policies, rollouts
from serving.store.guard import Guard, TrafficWish, Wish
from serving.store.leases import Held, Lease, Leases
from serving.store.registry import RegisteredModel, Registry
from serving.store.rollouts import Entry, Request, Rollout
from serving.store.text import JsonValue

log = logging.getLogger(__name__)

STRATEGIES = ("staged", "direct")
_STAGED = "staged"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request as it came in. `version` None means: the one alias `challenger` names.

    `usual` is the plan of a staged rollout where `policy` does not say otherwise.
    """

    model: str
    version: str | None
    asked_at: datetime
    by: str
    strategy: str = "direct"
    policy: Mapping[str, JsonValue] = field(default_factory=dict)
    usual: Usual = field(default_factory=Usual)


def record(engine: Engine, registry: Registry, asked: Asked, clock: Clock) -> Entry | Outcome:
    """Open or join a rollout; an outcome where the request cannot stand. Raises `RegistryUnavailable`."""
    if asked.strategy not in STRATEGIES:
        known = ", ".join(STRATEGIES)
        return Outcome(Verdict.REFUSED, f"strategy '{asked.strategy}' does not exist; use {known}")
    version = _named(registry, asked)
    if isinstance(version, Outcome):
        return version
    registered = registry.registered_models().get(asked.model)
    if registered is None:
        return Outcome(Verdict.REFUSED, f"'{asked.model}' is none of the models in SIGNALBOX_MODELS")
    try:
        spec = spec_of(asked, registered, policies.of_model(engine, asked.model))
    except ValueError as error:
        return _unplanned(engine, registered, replace(asked, version=version), str(error))
    request = Request(
        model=asked.model,
        version=version,
        strategy=asked.strategy,
        requested_by=asked.by,
        policy=dict(asked.policy),
        spec=spec.as_json() if spec is not None else None,
        is_challenger=registered.aliases.get(Alias.CHALLENGER) == version,
    )
    try:
        entry = rollouts.enter(engine, request, asked.asked_at, clock.now())
    except ChangeRefused as refusal:
        return Outcome(Verdict.REFUSED, str(refusal))
    return _conflict(entry, version, asked) or _specified(engine, registered, asked, entry)


def _named(registry: Registry, asked: Asked) -> str | Outcome:
    """The version that is meant, which the registry has. Raises `RegistryUnavailable`."""
    try:
        version = asked.version or registry.alias(asked.model, Alias.CHALLENGER)
        if version is None:
            return Outcome(Verdict.REFUSED, f"'{asked.model}' has no alias challenger; name a version")
        if not version.isdecimal():
            problem = f"'{version}' is no version number"
            return Outcome(Verdict.REFUSED, f"{problem}{_versions(registry, asked.model)}")
        return registry.version(VersionRef(asked.model, version)).ref.version
    except NotServed as error:
        return Outcome(Verdict.REFUSED, f"{error}{_versions(registry, asked.model)}")


def _conflict(entry: Entry, version: str, asked: Asked) -> Outcome | None:
    """What keeps a request from joining the open rollout: another version, or other limits."""
    other = entry.rollout
    is_joining = not entry.created and not other.state.is_terminal
    if other.version != version:
        by = f"{other.requested_by} (rollout {other.id})"
        problem = f"version {other.version} of '{other.model}' is being promoted by {by}"
    elif is_joining and any(other.policy.get(name) != limit for name, limit in asked.policy.items()):
        problem = f"rollout {other.id} of this version runs under other limits ({_limits(other)})"
    else:
        return None
    return Outcome(Verdict.BUSY, f"{problem}; ask again when it has ended", other)


def _specified(engine: Engine, registered: RegisteredModel, asked: Asked, entry: Entry) -> Entry | Outcome:
    """A staged rollout that serving's API put on record has no plan yet: its policy file is ours to read."""
    rollout = entry.rollout
    if rollout.strategy != _STAGED or rollout.spec is not None or rollout.state.is_terminal:
        return entry
    try:
        of_rollout = replace(asked, strategy=_STAGED, policy=rollout.policy)
        spec = spec_of(of_rollout, registered, policies.of_model(engine, asked.model))
    except ValueError as error:
        return Outcome(Verdict.REFUSED, f"the rollout cannot be planned: {error}", rollout)
    assert spec is not None
    return Entry(rollouts.specify(engine, rollout, spec.as_json()), entry.created)


def _unplanned(engine: Engine, registered: RegisteredModel, asked: Asked, problem: str) -> Outcome:
    """A request no plan can be made of; with the open rollout, where that one's cannot be made either."""
    for rollout in rollouts.open_rollouts(engine):
        if (rollout.model, rollout.version) == (asked.model, asked.version):
            entry = _specified(engine, registered, asked, Entry(rollout, created=False))
            if isinstance(entry, Outcome):
                return entry
    return Outcome(Verdict.REFUSED, f"the rollout cannot be planned: {problem}")


def spec_of(
    asked: Asked, registered: RegisteredModel, kept: Mapping[str, Mapping[str, JsonValue]]
) -> Spec | None:
    """The plan of a staged rollout, None of a direct one. Raises `ValueError`.

    `kept` are the model's own policies by name: they hold where the request says nothing.
    """
    if asked.strategy != _STAGED:
        return None
    given = {**kept.get(policies.PROMOTION, {}), **asked.policy}
    kind, slices = kind_of(registered.tags.get(Tag.MODEL_TYPE)), registered.tags.get(Tag.SLICES)
    return plan_of(given, asked.usual, kind, kept.get(policies.JUDGE, {}), slices)


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

    def carry(present: Rollout, keeper: Keeper) -> Outcome:
        way = StagedPromotion if present.spec is not None else DirectPromotion
        return way(parts, present, keeper, report).run()

    return _held(rollout, parts, leases, holder, carry, pause)


def refuse(
    rollout: Rollout,
    reason: str,
    parts: Ending,
    leases: Leases,
    holder: str,
    pause: Callable[[float], object] = time.sleep,
) -> Outcome:
    """End an open rollout that no plan can be made of: it would be taken up and refused for ever.

    One that has got its plan meanwhile is left to whoever gave it that. Raises `StoreUnavailable`.
    """

    def end(present: Rollout, _: Keeper) -> Outcome:
        return joined(present) if present.spec is not None else Outcome(Verdict.REFUSED, reason, present)

    return _held(rollout, parts, leases, holder, end, pause)


def _held(
    rollout: Rollout,
    parts: Ending,
    leases: Leases,
    holder: str,
    carry: Callable[[Rollout, Keeper], Outcome],
    pause: Callable[[float], object],
) -> Outcome:
    """What comes of an open rollout under the model's lease; its end is written, announced, tidied after."""

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
        outcome = carry(present, keeper)
        if outcome.verdict in (Verdict.JOINED, Verdict.UNAVAILABLE, Verdict.HELD):
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
    """Leave the verdict in the registry: reason as tags and description; no traffic tag, no `challenger`.

    Repeatable; what failed comes back as warnings, and `tend` tries again.
    """
    ref = VersionRef(rollout.model, rollout.version)
    try:
        problem = _untagged(rollout, registry, guard, lease)
        if not _is_champion_already(registry, rollout):
            explain(registry, ref, rollout)
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
            if not move.is_settled:
                problem = (*problem, f"alias challenger was not deleted: {move.reason}")
    except (RegistryUnavailable, NotServed, ChangeRefused) as error:
        return (f"the registry was not told: {error}",)
    return problem


def owns(rollout: Rollout, tag: str | None) -> bool:
    """Whether a traffic tag was written for this rollout."""
    split = read_tag(tag)
    return isinstance(split, Split) and split.rollout == rollout.id


def _untagged(
    rollout: Rollout, registry: Registry, guard: Guard, lease: Callable[[], Lease]
) -> tuple[str, ...]:
    """First of all the traffic: the split must not outlive the rollout that asked for it.

    A tag that is gone is asked for too, which settles what a process that died had begun.
    """
    tag = registry.tag(rollout.model, Tag.TRAFFIC)
    if not owns(rollout, tag) and (tag is not None or rollout.status is None):
        return ()
    reason = f"rollout {rollout.id} {rollout.state}"
    move = guard.move(
        TrafficWish(rollout.model, None, rollout.requested_by, reason, frozenset({tag})), lease()
    )
    return () if move.is_settled else (f"the traffic tag was not deleted: {move.reason}",)


def _is_champion_already(registry: Registry, rollout: Rollout) -> bool:
    """Asking for the present champion is refused, and says nothing against the version."""
    is_refused = rollout.state is rollouts.State.REFUSED
    return is_refused and registry.alias(rollout.model, Alias.CHAMPION) == rollout.version


def _versions(registry: Registry, model: str) -> str:
    try:
        numbers = [version.ref.version for version in registry.versions(model)]
        names = sorted(registry.registered_models())
    except RegistryUnavailable:
        return ""
    if numbers:
        return f"; it has versions {', '.join(numbers)}"
    return f"; registered are {', '.join(names) or 'no models'}"
