"""The way back for tests: a real store, the registry double, and a serving worker written by hand.

It follows aliases, split and overrides at once. Time runs on when the rollback pauses.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import uuid4

from sqlalchemy import Engine

from flows.rollout.retreat_parts import RetreatParts
from flows.rollout.retreating import Outcome, work
from serving.core.clock import ManualClock
from serving.core.model import Alias, Tag
from serving.core.traffic import Split, read_tag
from serving.store import overrides, rollbacks, workers
from serving.store.guard import Guard
from serving.store.leases import Leases
from serving.store.registry import Registry
from serving.store.rollbacks import RollbackRecord, State, Step, Strategy
from serving.store.workers import Beat, Proof, WorkerModel
from tests.flows.rollout.line import MODEL, WORKER


@dataclass
class Road:
    """`broken` is what the examination of the target says; `refuses` are challengers not served."""

    engine: Engine
    registry: Registry
    clock: ManualClock
    broken: str | None = None
    refuses: dict[str, str] = field(default_factory=dict)
    ejects_at: int | None = None
    seen: list[tuple[str | None, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.leases = Leases(self.engine, self.clock)
        self.guard = Guard(self.registry, self.engine, self.leases)

    def parts(self, guard: Guard | None = None, engine: Engine | None = None) -> RetreatParts:
        return RetreatParts(
            engine or self.engine,
            self.registry,
            guard or self.guard,
            self.clock,
            lambda record, digest: self.broken,
            self.pause,
        )

    def ask(
        self, left: str = "2", target: str = "1", *, restore_point: str | None = None, **options: object
    ) -> RollbackRecord:
        now = self.clock.now()
        record = RollbackRecord(
            id=uuid4().hex,
            model=MODEL,
            strategy=Strategy.GRADUAL,
            from_version=left,
            to_version=target,
            restore_point=restore_point,
            state=State.OPEN,
            step=Step.REQUESTED,
            actor="anna",
            reason="wrong sums",
            options={"stage_seconds": 5, **options},
            created_at=now,
            updated_at=now,
        )
        return rollbacks.enter(self.engine, record)

    def work(self, record: RollbackRecord, run: str = "run") -> Outcome:
        self.beat()
        return work(record, self.parts(), self.leases, f"rollback:{run}:{uuid4().hex[:6]}", lambda _: None)

    def carried_on(self) -> Outcome | None:
        """Whoever takes up what is open, an hour later; None where nothing is."""
        self.clock.advance(3600)
        found = rollbacks.under_way(self.engine)
        return self.work(found[0]) if found else None

    def pause(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.beat()

    def beat(self) -> None:
        """The worker's next heartbeat: it follows tag, aliases and overrides at once."""
        model = self.registry.registered_model(MODEL)
        champion, challenger = self._champion(model.aliases.get(Alias.CHAMPION)), None
        percent, rollout, now = 0, None, self.clock.now()
        split = read_tag(model.tags.get(Tag.TRAFFIC))
        named = model.aliases.get(Alias.CHALLENGER)
        if isinstance(split, Split) and split.challenger == named != champion and named not in self.refuses:
            challenger, percent, rollout = split.challenger, split.percent, split.rollout
        if not self.seen or self.seen[-1] != (champion, percent):
            self.seen.append((champion, percent))
        if self.ejects_at is not None and percent == self.ejects_at:
            self._eject(str(challenger), now)
        worker = WorkerModel(
            champion,
            Proof(champion, "d" * 64, now) if champion else None,
            {},
            challenger,
            percent,
            rollout,
            Proof(challenger, "e" * 64, now) if challenger else None,
            self.refuses,
        )
        workers.beat(self.engine, Beat(WORKER, "http://127.0.0.1:8080", now, now, {MODEL: worker}))

    def _champion(self, named: str | None) -> str | None:
        for override in overrides.active(self.engine):
            if override.role == Alias.CHAMPION and override.not_version == named:
                return override.answer_with
        return named

    def _eject(self, version: str, now: datetime) -> None:
        laid = now + timedelta(milliseconds=1)
        override = overrides.Override("e1", MODEL, Alias.CHALLENGER, version, None, WORKER, "it raised", laid)
        overrides.save(self.engine, override)
        self.ejects_at = None
