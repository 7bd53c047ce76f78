"""The staged promotion: the direct one, with stages of live traffic before the alias moves.

Each status is stored before it is acted on. What the plan decides is done here: the alias `challenger`, the
traffic tag, its withdrawal at every end. A registry that is away is asked again; serving goes on meanwhile.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace

from flows.rollout import plan, rollbacks, verify
from flows.rollout.direct import DirectPromotion
from flows.rollout.evidence import EvidenceSource, Span, StoredEvidence
from flows.rollout.facts import Act, Decision, Facts, Named, Subject
from flows.rollout.judge import Judgement, judge
from flows.rollout.keeper import Keeper
from flows.rollout.outcome import Outcome, Verdict, notice_of_rest
from flows.rollout.parts import Parts
from flows.rollout.policy import Spec
from flows.rollout.progress import show_stage
from flows.rollout.status import Status, Step
from serving.core.errors import RegistryUnavailable
from serving.core.model import Alias, Tag
from serving.core.traffic import Split, write_tag
from serving.store import rollouts, workers
from serving.store.guard import TrafficWish, Wish
from serving.store.guard import Verdict as Written
from serving.store.rollouts import Phase, Rollout

log = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0
_NOTE_SECONDS = 5.0
_OUTAGE_SECONDS = 120.0
_WITHDRAW_SECONDS = 10.0


class StagedPromotion(DirectPromotion):
    """One staged rollout, worked on by the holder of the model's lease."""

    def __init__(self, parts: Parts, rollout: Rollout, keeper: Keeper, report: Callable[[str], None]) -> None:
        super().__init__(parts, rollout, keeper, report)
        self._spec = Spec.from_json(rollout.spec or {})
        self._status = Status.from_json(rollout.status)
        self._source: EvidenceSource = parts.evidence or StoredEvidence(parts.engine)
        self._outage_seconds = 0.0

    @property
    def _subject(self) -> Subject:
        rollout = self._rollout
        champion = (rollout.restore_point or {})["champion"]
        return Subject(rollout.id, rollout.model, rollout.version, champion, rollout.was_challenger)

    def _try_out(self) -> Outcome | None:
        """Every stage, one step at a time; with no champion to be compared with there are none."""
        if (self._rollout.restore_point or {}).get("champion") is None:
            return None
        while True:
            facts = self._facts()
            now = self._parts.clock.now()
            decision = plan.advance(self._subject, self._spec, self._status, facts, now)
            self._note(decision.status)
            if decision.act is Act.PASS:
                self._advance(Phase.STAGES_PASSED)
                return None
            if (outcome := self._acted(decision)) is not None:
                return outcome
            self._parts.pause(_LOOK_SECONDS)

    def _acted(self, decision: Decision) -> Outcome | None:
        """Do what was decided; a registry that does not take it is asked again at the next look."""
        try:
            if decision.act is Act.NAME:
                self._name_challenger()
            elif decision.act is Act.SET:
                self._set_traffic()
            elif decision.act is Act.END:
                return self._withdrawn()
        except RegistryUnavailable as error:
            self._outage_seconds += _LOOK_SECONDS
            self._report(f"the registry did not take it: {error}")
            if self._outage_seconds >= _OUTAGE_SECONDS:
                raise
        if decision.act is Act.REST:
            return self._ended(Verdict.HELD, self._status.reason)
        return None

    def _name_challenger(self) -> None:
        rollbacks.lift(self._parts.engine, self._rollout, Alias.CHALLENGER)
        wish = Wish(
            model=self._subject.model,
            alias=Alias.CHALLENGER,
            to_version=self._subject.version,
            actor=self._rollout.requested_by,
            reason=f"rollout {self._rollout.id}",
            only_from=frozenset({None}),
        )
        move = self._write(wish)
        if move.verdict is Written.SUPERSEDED:
            reason = f"alias challenger names version {move.seen}: delete it, or promote that one"
            self._note(replace(self._status, step=Step.ENDING, end=str(Verdict.SUPERSEDED), reason=reason))
            return
        self._note(plan.was_named(self._status))

    def _set_traffic(self) -> None:
        split = self._split()
        tag = write_tag(split)
        self._write(self._traffic(tag, f"{split.percent} % to version {split.challenger}"))
        self._note(plan.was_set(self._status, tag, self._parts.clock.now()))

    def _split(self) -> Split:
        """What the present stage asks for."""
        spec, stage = self._spec, self._status.stage
        return Split(
            self._subject.version, spec.percents[stage], self._rollout.id, spec.compare_percent(stage)
        )

    def _withdrawn(self) -> Outcome:
        """No traffic before anybody is told: the tag deleted, and every worker seen to follow."""
        self._write(self._traffic(None, f"rollout {self._rollout.id} ends: {self._status.reason}"))
        deadline = self._parts.clock.monotonic() + _WITHDRAW_SECONDS
        while not (is_gone := self._is_withdrawn()) and self._parts.clock.monotonic() < deadline:
            self._parts.pause(_LOOK_SECONDS)
        warnings = () if is_gone else ("a worker still splits traffic; its next poll ends that",)
        return self._ended(Verdict(str(self._status.end)), self._status.reason, warnings)

    def _is_withdrawn(self) -> bool:
        beats = workers.live(self._parts.engine, self._parts.clock.now())
        return verify.withdrawn(beats, self._subject.model, self._rollout.id)

    def _traffic(self, tag: str | None, reason: str) -> TrafficWish:
        return TrafficWish(self._subject.model, tag, self._rollout.requested_by, reason)

    def _facts(self) -> Facts:
        engine, now = self._parts.engine, self._parts.clock.now()
        self._rollout = replace(self._rollout, asked=rollouts.get(engine, self._rollout.id).asked)
        split = self._split()
        beats = workers.live(engine, now)
        follows = verify.split_applied(beats, self._subject.model, split, self._status.set_at or now)
        return Facts(self._named(), follows, self._judged(), self._ejected(), self._rollout.asked)

    def _named(self) -> Named | None:
        try:
            model = self._parts.registry.registered_model(self._subject.model)
        except RegistryUnavailable as error:
            log.warning("registry_away rollout=%s reason=%s", self._rollout.id, error)
            return None
        aliases = model.aliases
        if self._is_undone(Alias.CHAMPION, aliases) or self._is_undone(Alias.CHALLENGER, aliases):
            return None
        return Named(aliases.get(Alias.CHAMPION), aliases.get(Alias.CHALLENGER), model.tags.get(Tag.TRAFFIC))

    def _is_undone(self, alias: Alias, aliases: Mapping[str, str]) -> bool:
        """Whether a dead process's late write had to be put right, which is nobody's choice: look again."""
        guard, model = self._parts.guard, self._subject.model
        if guard.late_write(model, alias, aliases.get(alias)) is None:
            return False
        return guard.put_right(model, alias, self._keeper.lease) is not None

    def _judged(self) -> Judgement | None:
        """The judgement on the present stage; None before its split was seen to hold."""
        status, spec, now = self._status, self._spec, self._parts.clock.now()
        if status.since is None or status.began is None or now < (status.window_since or status.since):
            return None
        is_final = status.stage == spec.last
        span = Span(
            model=self._subject.model,
            champion=self._subject.champion,
            challenger=self._subject.version,
            began=status.began,
            since=(status.window_since or status.since) if is_final else status.since,
            until=now,
            is_final=is_final,
            is_shadow=not spec.percents[status.stage],
        )
        return judge(self._source.collect(span), spec.policy, spec.kind, spec.slices)

    def _ejected(self) -> str | None:
        """Why serving sent it away since the alias was set; an older ejection is lifted before that."""
        if not self._status.is_known:
            return None
        return rollbacks.ejection_since_asked(self._parts.engine, self._rollout)

    def _rolled_back(self) -> Outcome | None:
        is_on_trial = self._rollout.phase in (Phase.RESTORE_POINT, Phase.STAGES_PASSED)
        if is_on_trial and (reason := self._ejected()) is not None:
            return self._ended(Verdict.ROLLED_BACK, f"serving ejected it: {reason}")
        return super()._rolled_back()

    def _note(self, status: Status) -> None:
        """Store the status: each step at once and audited, the passing of time every few seconds."""
        last = Status.from_json(self._rollout.status)
        percent = self._spec.percents[status.stage]
        is_step = (status.step, status.stage) != (last.step, last.stage)
        self._status = status
        if not is_step and not self._is_due(last, status):
            return
        rests = is_step and status.step.is_resting
        self._rollout = rollouts.note(
            self._parts.engine,
            self._rollout,
            status.as_json(),
            self._keeper.lease,
            self._parts.clock.now(),
            step=_told(status, percent) if is_step else None,
            notice=notice_of_rest(self._rollout, status, percent) if rests else None,
        )
        if is_step:
            self._report(f"rollout {self._rollout.id[:8]}: {percent} % {status.step}")
            show_stage(self._parts.registry, self._rollout, self._spec, status)

    def _is_due(self, last: Status, status: Status) -> bool:
        if last.looked_at is None or status.looked_at is None:
            return True
        is_changed = (last.heeded, last.failed_windows, last.tag) != (
            status.heeded,
            status.failed_windows,
            status.tag,
        )
        return is_changed or (status.looked_at - last.looked_at).total_seconds() >= _NOTE_SECONDS


def _told(status: Status, percent: int) -> dict[str, str | int]:
    told: dict[str, str | int] = {"step": str(status.step), "stage": status.stage + 1, "percent": percent}
    return told | ({"reason": status.reason} if status.reason else {})
