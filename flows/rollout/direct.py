"""The direct promotion: validate, benchmark, restore point, move the alias, see it applied.

Each step is noted before the next begins, so a later run takes up an abandoned rollout where it stopped.
Every write is fenced by the model's lease. A registry that is away ends nothing: the rollout stays open.
"""

import logging
from collections.abc import Callable, Mapping

from flows.rollout import rollbacks
from flows.rollout.keeper import Keeper, is_promotion
from flows.rollout.outcome import Outcome, Verdict
from flows.rollout.parts import Evidence, Parts, on_record, save_point
from flows.rollout.progress import show_step
from flows.rollout.verify import Applied, applied
from flows.rollout.verify import Verdict as Seen
from flows.rollout.withdrawal import withdrawn
from serving.core.errors import (
    ChangeRefused,
    NotServed,
    RegistryUnavailable,
    SignalboxError,
    StoreUnavailable,
)
from serving.core.model import Alias, Tag, VersionRef
from serving.store import rollouts, workers
from serving.store.database import writing
from serving.store.guard import Move, TrafficWish, Wish
from serving.store.guard import Verdict as Written
from serving.store.leases import fence
from serving.store.rollouts import Phase, Rollout
from serving.store.text import JsonValue

log = logging.getLogger(__name__)

APPLY_SECONDS = 60.0
_LOOK_SECONDS = 0.5
_TRIED_OUT = (Phase.RESTORE_POINT, Phase.STAGES_PASSED)


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
        """Carry the rollout from its last durable step to its end, or as far as the registry answers.

        Raises `StoreUnavailable`.
        """
        try:
            return self._steps()
        except ChangeRefused as refusal:
            return self._preempted(refusal)
        except RegistryUnavailable as error:
            phase = self._rollout.phase.replace("_", " ")
            return self._ended(
                Verdict.UNAVAILABLE,
                f"{error}; rollout {self._rollout.id} stays open at step '{phase}' and is taken up later",
            )
        except StoreUnavailable:
            raise
        except SignalboxError as error:
            return self._ended(Verdict.FAILED, str(error))

    def _steps(self) -> Outcome:
        if self._is_at(Phase.REQUESTED) and (stopped := self._judge()) is not None:
            return stopped
        if self._is_at(Phase.VALIDATED) and (stopped := self._measure()) is not None:
            return stopped
        if self._is_at(Phase.BENCHMARKED) and (stopped := self._prepare()) is not None:
            return stopped
        if self._is_at(Phase.RESTORE_POINT) and (stopped := self._try_out()) is not None:
            return stopped
        if self._rollout.phase in _TRIED_OUT and (stopped := self._move_alias()) is not None:
            return stopped
        if self._is_at(Phase.ALIAS_MOVED) and (stopped := self._see_applied()) is not None:
            return stopped
        return self._ended(Verdict.PROMOTED, self._promoted_from())

    def _judge(self) -> Outcome | None:
        champion = self._answering()
        if champion == self._rollout.version:
            return self._ended(Verdict.REFUSED, f"version {champion} is the champion already")
        show_step(self._parts.registry, self._rollout, "validation and benchmark")
        found = self._asked(self._parts.validate, "validation", champion)
        if isinstance(found, Outcome):
            return found
        known = self._rollout.evidence or {}
        self._advance(Phase.VALIDATED, evidence={**known, **on_record(found), "against": champion})
        return None

    def _measure(self) -> Outcome | None:
        """Act on the validation as it is on record, whoever made it; then see what the version costs."""
        evidence = self._rollout.evidence or {}
        if not evidence["passed"]:
            return self._ended(Verdict.REFUSED, evidence["reason"])
        if (reason := withdrawn(self._parts.registry, self._rollout)) is not None:
            return self._ended(Verdict.SUPERSEDED, reason)
        found = self._asked(self._parts.benchmark, "benchmark", evidence["against"])
        if isinstance(found, Outcome):
            return found
        self._advance(Phase.BENCHMARKED, evidence={**evidence, "benchmark": on_record(found)})
        return None

    def _asked(
        self, judge: Callable[[Rollout, str | None], Evidence], noun: str, champion: str | None
    ) -> Evidence | Outcome:
        try:
            return judge(self._rollout, champion)
        except SignalboxError:
            raise
        except Exception as error:  # it would raise again: left open, the rollout were begun for ever
            log.exception("judgement_failed of=%s rollout=%s", noun, self._rollout.id)
            return self._ended(Verdict.FAILED, f"the {noun} could not be carried out: {error!r}")

    def _prepare(self) -> Outcome | None:
        """Act on the benchmark as it is on record; then note the way back."""
        evidence = self._rollout.evidence or {}
        if not evidence["benchmark"]["passed"]:
            return self._ended(Verdict.REFUSED, evidence["benchmark"]["reason"])
        if (reason := withdrawn(self._parts.registry, self._rollout)) is not None:
            return self._ended(Verdict.SUPERSEDED, reason)
        against, champion = evidence["against"], self._answering()
        if champion not in (against, self._rollout.version):
            return self._ended(
                Verdict.SUPERSEDED,
                f"alias champion was moved to {champion or 'nothing'} since the validation",
            )
        registry, ref = self._parts.registry, VersionRef(self._rollout.model, self._rollout.version)
        if registry.version(ref).tags.get(Tag.VALIDATION) != "passed":
            registry.set_version_tag(ref, Tag.VALIDATION, "passed")
        if (problem := self._no_worker()) is not None:
            return self._ended(Verdict.FAILED, problem)
        point = save_point(self._parts, self._rollout)
        self._advance(Phase.RESTORE_POINT, restore_point={**point, "champion": against})
        return None

    def _try_out(self) -> Outcome | None:
        """Nothing here: a direct promotion trusts validation, benchmark and the watch that follows."""
        return None

    def _move_alias(self) -> Outcome | None:
        if (rolled_back := self._rolled_back()) is not None:
            return rolled_back
        rollbacks.lift(self._parts.engine, self._rollout)
        old = (self._rollout.restore_point or {}).get("champion")
        move = self._write(self._wish(self._rollout.version, only_from=old))
        if move.verdict is Written.SUPERSEDED:
            return self._ended(Verdict.SUPERSEDED, f"alias champion was not moved: {move.reason}")
        self._advance(Phase.ALIAS_MOVED)
        return None

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
            if (stopped := self._overtaken()) is not None:
                return stopped
            if seen.verdict is Seen.REFUSED:
                return self._taken_back(Verdict.REFUSED, str(seen))
            if self._parts.clock.monotonic() >= deadline:
                return self._taken_back(Verdict.FAILED, f"not applied within {APPLY_SECONDS:.0f} s: {seen}")
            self._parts.pause(_LOOK_SECONDS)

    def _seen(self) -> Applied:
        beats = workers.live(self._parts.engine, self._parts.clock.now())
        return applied(beats, self._rollout.model, self._rollout.version, self._rollout.updated_at)

    def _overtaken(self) -> Outcome | None:
        """Whether serving took the version back, or a person chose otherwise, while it was being applied."""
        if (rolled_back := self._rolled_back()) is not None:
            return rolled_back
        try:
            named = self._parts.registry.alias(self._rollout.model, Alias.CHAMPION)
        except RegistryUnavailable as error:
            self._report(f"the registry cannot be asked: {error}")  # the workers tell whether it is applied
            return None
        if named == self._rollout.version:
            return None
        if named == (self._rollout.restore_point or {}).get("champion"):
            return self._ended(Verdict.ROLLED_BACK, f"alias champion is back on {named or 'nothing'}")
        return self._ended(Verdict.SUPERSEDED, f"alias champion was moved to {named or 'nothing'} meanwhile")

    def _preempted(self, refusal: ChangeRefused) -> Outcome:
        """The lease is gone: to a run that carries this rollout on, to a rollback, or to something else."""
        if is_promotion(refusal.holder):
            reason = f"rollout {self._rollout.id} was taken up by {refusal.holder}"
            return self._ended(Verdict.JOINED, reason)
        return self._rolled_back() or self._ended(Verdict.SUPERSEDED, str(refusal))

    def _rolled_back(self) -> Outcome | None:
        rollback = rollbacks.since_asked(self._parts.engine, self._rollout)
        if rollback is None:
            return None
        return self._ended(Verdict.ROLLED_BACK, f"serving rolled it back: {rollback.reason}")

    def _taken_back(self, verdict: Verdict, reason: str) -> Outcome:
        """Put the alias back where it was before telling how this ended."""
        old = (self._rollout.restore_point or {}).get("champion")
        try:
            self._write(self._wish(old, only_from=self._rollout.version))
        except NotServed as error:
            return self._ended(verdict, reason, (f"alias champion was not put back: {error}",))
        return self._ended(verdict, reason)

    def _write(self, wish: Wish | TrafficWish) -> Move:
        """A guarded write that is settled.

        Raises:
            ChangeRefused: the lease went to somebody else.
            NotServed: the version to name is gone.
            RegistryUnavailable: the registry did not do it; another try may help.
        """
        move = self._parts.guard.move(wish, self._keeper.lease)
        if move.is_settled:
            return move
        with writing(self._parts.engine) as connection:
            fence(connection, self._keeper.lease)
        if isinstance(wish, Wish) and wish.to_version is not None:
            self._parts.registry.version(VersionRef(wish.model, wish.to_version))
        raise RegistryUnavailable(move.reason)

    def _answering(self) -> str | None:
        """The champion: the alias, unless it still names this version after a rollback from it."""
        named = self._parts.registry.alias(self._rollout.model, Alias.CHAMPION)
        standing = rollbacks.in_force(self._parts.engine, self._rollout)
        return standing.answer_with if standing is not None and named == self._rollout.version else named

    def _no_worker(self) -> str | None:
        if workers.live(self._parts.engine, self._parts.clock.now()):
            return None
        return "no serving worker is alive to apply it; start serving and ask again"

    def _wish(self, to_version: str | None, *, only_from: str | None) -> Wish:
        return Wish(
            model=self._rollout.model,
            alias=Alias.CHAMPION,
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
        return f"in the place of version {old}" if old else "the first champion"

    def _ended(self, verdict: Verdict, reason: str, warnings: tuple[str, ...] = ()) -> Outcome:
        return Outcome(verdict, reason, self._rollout, warnings)
