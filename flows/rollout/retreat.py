"""One rollback that takes time: a gradual one, or what an instant one left to be put back. Knows no Prefect.

The target is looked into first, the present state is kept as a restore point, traffic goes down by stages
that every replica follows, and last the champion moves the way serving's own rollbacks move it: override
first. Each step is noted before the next begins; a later run takes up what a killed one left.
"""

from collections.abc import Callable, Mapping, Sequence

from flows.rollout.descent import Descent, NoDescent, Stage, descent, is_stage, remaining, stage_seconds
from flows.rollout.keeper import Keeper
from flows.rollout.lever import Lever
from flows.rollout.retreat_parts import Ended, RetreatParts
from flows.rollout.verify import Applied, applied, split_applied
from flows.rollout.verify import Verdict as Seen
from serving.core.model import Alias, Tag
from serving.core.traffic import Split, read_tag
from serving.store import capture, restore_points, rollbacks, rollouts
from serving.store.guard import Verdict as Written
from serving.store.restore_points import Kind, RestorePoint
from serving.store.restoring import restore
from serving.store.rollbacks import RollbackRecord, State, Step, Strategy
from serving.store.text import JsonValue
from serving.store.workers import Beat


class Retreat:
    """One rollback, worked on by the holder of the model's lease."""

    def __init__(
        self, parts: RetreatParts, record: RollbackRecord, keeper: Keeper, report: Callable[[str], None]
    ) -> None:
        self._parts = parts
        self._record = record
        self._keeper = keeper
        self._report = report
        self._lever = Lever(parts, record, keeper)

    @property
    def record(self) -> RollbackRecord:
        """The row as it was written last."""
        return self._record

    def run(self) -> Ended:
        """Carry it from its last durable step to its end.

        Raises:
            ChangeRefused: somebody else took the model, as an emergency does.
            RegistryUnavailable, StoreUnavailable: it stays open, and is taken up later.
        """
        if self._is_at(Step.REQUESTED) and (ended := self._verify()) is not None:
            return ended
        if self._is_at(Step.VERIFIED):
            self._save()
        is_going_down = self._is_at(Step.SAVED) or is_stage(self._record.step)
        if is_going_down and (ended := self._descend()) is not None:
            return ended
        if self._is_at(Step.MOVED) and (ended := self._see_applied()) is not None:
            return ended
        if self._is_at(Step.APPLIED):
            self._restore_rest()
        return Ended(State.COMPLETED, f"version {self._record.to_version} answers on every replica")

    def _verify(self) -> Ended | None:
        """Never to a version that is broken, or that its callers cannot use."""
        digest, point = None, self._point()
        if point is not None and not point.is_intact:
            return Ended(State.FAILED, f"restore point {point.id} is damaged: its checksum does not fit")
        if point is not None:
            digest = point.state["model"]["versions"].get(self._record.to_version, {}).get("digest")
        if (problem := self._parts.examine(self._record, digest)) is not None:
            message = f"version {self._record.to_version} is not one to go back to: {problem}"
            return Ended(State.FAILED, message)
        self._advance(Step.VERIFIED, {"version": self._record.to_version, "digest": digest})
        return None

    def _save(self) -> None:
        """The present state is kept, and a rollout that is open ends: its version is left, or its way is."""
        record, now = self._record, self._parts.clock.now()
        reason = f"before the rollback to version {record.to_version}"
        wanted = capture.Wanted(
            record.id, record.model, Kind.AUTOMATIC, reason, record.actor, self._parts.settings
        )
        capture.make(self._parts.engine, self._parts.registry, wanted, now)
        for rollout in rollouts.open_rollouts(self._parts.engine):
            if rollout.model == record.model:
                is_left = rollout.version == record.from_version
                state = rollouts.State.ROLLED_BACK if is_left else rollouts.State.SUPERSEDED
                why = f"gradual rollback {record.id} of {record.actor} to version {record.to_version}"
                rollouts.finish(self._parts.engine, rollout, state, why, record.actor, now, None)
        self._advance(Step.SAVED, {"restore_point": record.id})

    def _descend(self) -> Ended | None:
        present = self._parts.registry.registered_model(self._record.model)
        split = read_tag(present.tags.get(Tag.TRAFFIC))
        way = descent(self._record, present.aliases, split.percent if isinstance(split, Split) else None)
        if isinstance(way, NoDescent):
            if present.aliases.get(Alias.CHAMPION) != self._record.to_version:
                return Ended(State.SUPERSEDED, way.reason)
            self._lever.confirm_champion()
        else:
            for stage in remaining(way.stages, self._record.step):
                if (ended := self._take_stage(way, stage)) is not None:
                    self._lever.clear_challenger()  # traffic is where it was before
                    return ended
            if (ended := self._move(way)) is not None:
                return ended
        self._advance(Step.MOVED, {"from": self._record.from_version, "to": self._record.to_version})
        return None

    def _take_stage(self, way: Descent, stage: Stage) -> Ended | None:
        record, began = self._record, self._parts.clock.now()
        self._report(f"{stage.share} % stay with version {record.from_version}")
        self._lever.split(way.challenger, stage.percent)

        split = Split(way.challenger, stage.percent, record.id)

        def look(beats: Sequence[Beat]) -> Applied:
            return split_applied(beats, record.model, split, began)

        if isinstance(seen := self._lever.wait(look), Ended):
            return seen
        if (ended := self._lever.hold(look, stage_seconds(record))) is not None:
            return ended
        self._advance(stage.step, {"seen": str(seen)})
        return None

    def _move(self, way: Descent) -> Ended | None:
        if not way.champion_moves:
            self._lever.clear_challenger()
            return None
        move = self._lever.move_champion()
        if move.verdict is not Written.SUPERSEDED:
            return None
        self._lever.lift(move.reason)
        self._lever.clear_challenger()
        return Ended(State.SUPERSEDED, f"alias champion was not moved: {move.reason}")

    def _see_applied(self) -> Ended | None:
        record = self._record

        def look(beats: Sequence[Beat]) -> Applied:
            seen = applied(beats, record.model, record.to_version, record.updated_at)
            if seen.verdict is Seen.APPLIED and _still_splits(beats, record):
                return Applied(Seen.WAITING, ("a worker still sends traffic to the version that is left",))
            return seen

        if isinstance(seen := self._lever.wait(look), Ended):
            return seen
        self._lever.clear_challenger()
        self._lever.lift(f"the registry names {record.to_version}")
        self._advance(Step.APPLIED, {"seen": str(seen)})
        return None

    def _restore_rest(self) -> None:
        record = self._record
        point = self._point()
        if point is None or not point.is_intact:
            self._advance(Step.RESTORED, {} if point is None else {"left": ["the restore point is damaged"]})
            return
        restored = restore(
            point,
            left_version=record.from_version,
            engine=self._parts.engine,
            registry=self._parts.registry,
            guard=self._parts.guard,
            lease=lambda: self._keeper.lease,
            settings=self._parts.settings,
            actor=record.actor,
            now=self._parts.clock.now(),
        )
        for sentence in restored.changed:
            self._report(f"restored {sentence}")
        self._advance(Step.RESTORED, restored.as_json())

    def _point(self) -> RestorePoint | None:
        wanted = self._record.restore_point
        return None if wanted is None else restore_points.get(self._parts.engine, wanted)

    def _is_at(self, step: Step) -> bool:
        return self._record.step == step

    def _advance(self, step: str, evidence: Mapping[str, JsonValue]) -> None:
        self._report(f"rollback {self._record.id[:8]}: {step.replace('_', ' ')}")
        self._record = rollbacks.advance(
            self._parts.engine, self._record, step, self._keeper.lease, self._parts.clock.now(), evidence
        )


def _still_splits(beats: Sequence[Beat], record: RollbackRecord) -> bool:
    served = (beat.models.get(record.model) for beat in beats)
    return any(m is not None and m.percent and m.challenger == record.from_version for m in served)


def waits_for_serving(record: RollbackRecord) -> bool:
    """Whether serving is to tell the registry first: taking its lease away would only delay that."""
    return record.strategy is not Strategy.GRADUAL and record.step == Step.MOVED
