"""The direct promotion: validate, restore point, move the alias, see it applied. One durable step at a time.

Each step is noted before the next begins, so a later run takes up an abandoned rollout where it stopped.
Every write is fenced by the model's lease.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from sqlalchemy import Engine

from flows.rollout.keeper import Keeper
from flows.rollout.outcome import Outcome, Verdict
from flows.rollout.verify import Applied, applied
from flows.rollout.verify import Verdict as Seen
from serving.core.clock import Clock
from serving.core.errors import ChangeRefused, NotServed, RegistryUnavailable
from serving.core.model import Alias, Tag, VersionRef
from serving.store import overrides, rollouts, workers
from serving.store.guard import Guard, Wish
from serving.store.guard import Verdict as Written
from serving.store.registry import RegisteredModel, Registry
from serving.store.rollouts import Phase, Rollout
from serving.store.text import JsonValue

APPLY_SECONDS = 60.0
_LOOK_SECONDS = 0.5


class Evidence(Protocol):
    """What a validation says of a version."""

    @property
    def passed(self) -> bool: ...

    @property
    def reason(self) -> str: ...

    def as_json(self) -> Mapping[str, JsonValue]: ...


@dataclass(frozen=True, slots=True)
class Parts:
    """What a promotion works with. `validate` judges a rollout's version against the present champion."""

    engine: Engine
    registry: Registry
    guard: Guard
    clock: Clock
    validate: Callable[[Rollout, str | None], Evidence]
    pause: Callable[[float], object] = time.sleep


class DirectPromotion:
    """One rollout, worked on by the holder of the model's lease."""

    def __init__(self, parts: Parts, rollout: Rollout, keeper: Keeper, report: Callable[[str], None]) -> None:
        self._parts = parts
        self._rollout = rollout
        self._keeper = keeper
        self._report = report

    @property
    def rollout(self) -> Rollout:
        """The row as it was written last."""
        return self._rollout

    def run(self) -> Outcome:
        """Carry the rollout from its last durable step to its end. Raises `StoreUnavailable`."""
        try:
            return self._steps()
        except ChangeRefused as refusal:
            return self._ended(Verdict.SUPERSEDED, str(refusal))
        except (RegistryUnavailable, NotServed) as error:
            return self._ended(Verdict.FAILED, str(error))

    def _steps(self) -> Outcome:
        model = self._parts.registry.registered_model(self._rollout.model)
        champion = model.aliases.get(Alias.CHAMPION)
        if self._is_at(Phase.REQUESTED):
            if champion == self._rollout.version:
                return self._ended(Verdict.REFUSED, f"version {champion} is the champion already")
            evidence = self._parts.validate(self._rollout, champion)
            self._advance(Phase.VALIDATED, evidence=evidence.as_json())
            if not evidence.passed:
                return self._ended(Verdict.REFUSED, evidence.reason)
        if self._is_at(Phase.VALIDATED):
            if self._parts.registry.version(_ref(self._rollout)).tags.get(Tag.VALIDATION) != "passed":
                self._parts.registry.set_version_tag(_ref(self._rollout), Tag.VALIDATION, "passed")
            if (problem := self._no_worker()) is not None:
                return self._ended(Verdict.FAILED, problem)
            self._advance(Phase.RESTORE_POINT, restore_point=_restore_point(model))
        if self._is_at(Phase.RESTORE_POINT) and (stopped := self._move_alias()) is not None:
            return stopped
        if self._is_at(Phase.ALIAS_MOVED) and (stopped := self._see_applied()) is not None:
            return stopped
        return self._ended(Verdict.PROMOTED, self._promoted_from())

    def _move_alias(self) -> Outcome | None:
        point = self._rollout.restore_point or {}
        self._lift_overrides()
        old = point.get("champion")
        wish = self._wish(Alias.CHAMPION, self._rollout.version, only_from=old)
        move = self._parts.guard.move(wish, self._keeper.lease)
        if move.verdict in (Written.APPLIED, Written.ALREADY):
            self._advance(Phase.ALIAS_MOVED)
            return None
        verdict = Verdict.SUPERSEDED if move.verdict is Written.SUPERSEDED else Verdict.FAILED
        return self._ended(verdict, f"alias champion was not moved: {move.reason}")

    def _see_applied(self) -> Outcome | None:
        self._report(f"waiting until every worker answers with version {self._rollout.version}")
        deadline = self._parts.clock.monotonic() + APPLY_SECONDS
        while True:
            seen = self._seen()
            if seen.verdict is Seen.APPLIED:
                self._advance(
                    Phase.APPLIED, evidence=dict(self._rollout.evidence or {}) | {"applied": str(seen)}
                )
                return None
            if (named := self._named()) != self._rollout.version:
                return self._ended(*self._moved_away(named))
            if seen.verdict is Seen.REFUSED:
                return self._taken_back(Verdict.REFUSED, str(seen))
            if self._parts.clock.monotonic() >= deadline:
                return self._taken_back(Verdict.FAILED, f"not applied within {APPLY_SECONDS:.0f} s: {seen}")
            self._parts.pause(_LOOK_SECONDS)

    def _seen(self) -> Applied:
        beats = workers.live(self._parts.engine, self._parts.clock.now())
        return applied(beats, self._rollout.model, self._rollout.version, self._rollout.updated_at)

    def _named(self) -> str | None:
        return self._parts.registry.alias(self._rollout.model, Alias.CHAMPION)

    def _moved_away(self, named: str | None) -> tuple[Verdict, str]:
        """Why the alias names another version by now: serving took it back, or a person chose otherwise."""
        for override in overrides.active(self._parts.engine):
            if (override.model, override.not_version) == (self._rollout.model, self._rollout.version):
                return Verdict.ROLLED_BACK, f"serving rolled it back: {override.reason}"
        point = self._rollout.restore_point or {}
        if named == point.get("champion"):
            return Verdict.ROLLED_BACK, f"alias champion is back on version {named}"
        return Verdict.SUPERSEDED, f"alias champion was moved to {named or 'nothing'} meanwhile"

    def _taken_back(self, verdict: Verdict, reason: str) -> Outcome:
        """Put the alias back where it was before telling how this ended."""
        old = (self._rollout.restore_point or {}).get("champion")
        wish = self._wish(Alias.CHAMPION, old, only_from=self._rollout.version)
        move = self._parts.guard.move(wish, self._keeper.lease)
        warnings = () if move.is_settled else (f"alias champion was not put back: {move.reason}",)
        return self._ended(verdict, reason, warnings)

    def _lift_overrides(self) -> None:
        """Promoting a version on purpose ends an earlier rollback from it."""
        for override in overrides.active(self._parts.engine):
            if (override.model, override.not_version) == (self._rollout.model, self._rollout.version):
                overrides.end(self._parts.engine, override, f"promoted again by {self._rollout.requested_by}")

    def _no_worker(self) -> str | None:
        if workers.live(self._parts.engine, self._parts.clock.now()):
            return None
        return "no serving worker is alive to apply it; start serving and ask again"

    def _wish(self, alias: str, to_version: str | None, *, only_from: str | None) -> Wish:
        return Wish(
            model=self._rollout.model,
            alias=alias,
            to_version=to_version,
            actor=self._rollout.requested_by,
            reason=f"rollout {self._rollout.id}",
            only_from=frozenset({only_from}),
        )

    def _is_at(self, phase: Phase) -> bool:
        return self._rollout.phase is phase

    def _advance(
        self,
        phase: Phase,
        *,
        evidence: Mapping[str, JsonValue] | None = None,
        restore_point: Mapping[str, JsonValue] | None = None,
    ) -> None:
        self._report(f"rollout {self._rollout.id[:8]}: {phase.replace('_', ' ')}")
        self._rollout = rollouts.advance(
            self._parts.engine,
            self._rollout,
            phase,
            self._keeper.lease,
            self._parts.clock.now(),
            evidence=evidence,
            restore_point=restore_point,
        )

    def _promoted_from(self) -> str:
        old = (self._rollout.restore_point or {}).get("champion")
        return f"version {old} before" if old else "the first champion"

    def _ended(self, verdict: Verdict, reason: str, warnings: tuple[str, ...] = ()) -> Outcome:
        return Outcome(verdict, reason, self._rollout, warnings)


def _restore_point(model: RegisteredModel) -> dict[str, JsonValue]:
    """What it takes to go back: every alias and the traffic tag as they are before the change."""
    return {
        "champion": model.aliases.get(Alias.CHAMPION),
        "aliases": dict(model.aliases),
        "traffic": model.tags.get(Tag.TRAFFIC),
    }


def _ref(rollout: Rollout) -> VersionRef:
    return VersionRef(rollout.model, rollout.version)
