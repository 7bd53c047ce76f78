"""What a promotion works with, for tests: a real store, a registry double, a serving worker written by hand.

Time is a `ManualClock` that runs on when the promotion pauses, so nothing here takes any.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

import httpx
from sqlalchemy import Engine

from flows.rollout.evidence import EvidenceSource
from flows.rollout.keeper import holder_of
from flows.rollout.outcome import Outcome
from flows.rollout.parts import Parts
from flows.rollout.promotion import Asked, record, work
from serving.core.clock import ManualClock
from serving.core.errors import RegistryUnavailable
from serving.core.model import Alias, Tag
from serving.core.traffic import Split, read_tag, wanted_split
from serving.store import audit, changes, outbox, overrides, rollouts, workers
from serving.store.guard import Guard
from serving.store.leases import Leases
from serving.store.overrides import Override
from serving.store.registry import Registry
from serving.store.rollouts import Entry, Rollout
from serving.store.text import JsonValue
from serving.store.workers import Beat, Proof, WorkerModel

MODEL = "digits"
WORKER = "serving:here:1"


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the validator or the benchmark of a test says."""

    passed: bool = True
    reason: str = "validation passed"

    def as_json(self) -> Mapping[str, JsonValue]:
        verdict = "passed" if self.passed else "failed"
        check = {"name": "finite_outputs", "verdict": verdict, "message": self.reason}
        return {"verdict": verdict, "checks": [check]}


WORSE = Judgement(passed=False, reason="accuracy: 0.62 against 0.97")
SLOWER = Judgement(passed=False, reason="against champion: p95 is 2.10 times that of version 1")


@dataclass
class Line:
    """`at` holds what happens right before a step is noted, `meanwhile` what happens at every pause."""

    engine: Engine
    registry: Registry
    clock: ManualClock
    judgement: Judgement | Exception = field(default_factory=Judgement)
    cost: Judgement | Exception = field(default_factory=lambda: Judgement(reason="benchmark passed"))
    follows: bool = True
    refuses: Mapping[str, str] = field(default_factory=dict)
    at: dict[str, Callable[[], object]] = field(default_factory=dict)
    meanwhile: Callable[[], object] = lambda: None
    evidence: EvidenceSource | None = None
    refuses_challenger: Mapping[str, str] = field(default_factory=dict)
    asked_of_validator: list[str | None] = field(default_factory=list)
    asked_of_benchmark: list[str | None] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    _runs: int = 0
    _answers_with: str | None = None
    _named_last: str | None = None
    _split_last: Split | None = None

    def __post_init__(self) -> None:
        self.leases = Leases(self.engine, self.clock)
        self.guard = Guard(self.registry, self.engine, self.leases)

    @property
    def parts(self) -> Parts:
        return Parts(
            self.engine,
            self.registry,
            self.guard,
            self.clock,
            self._validate,
            self._benchmark,
            self.pause,
            self.evidence,
        )

    def ask(self, version: str | None = "2", *, asked_at: datetime | None = None, by: str = "anna") -> Asked:
        return Asked(model=MODEL, version=version, asked_at=asked_at or self.clock.now(), by=by)

    def enter(self, version: str | None = "2") -> Rollout:
        entry = record(self.engine, self.registry, self.ask(version), self.clock)
        assert isinstance(entry, Entry), entry
        return entry.rollout

    def promote(self, version: str | None = "2") -> Outcome:
        """One run of the flow: enters the rollout or joins it, and works on it."""
        return self.carry_on(self.enter(version))

    def carry_on(self, rollout: Rollout) -> Outcome:
        """Another run that works on a rollout, as tend starts one."""
        self._runs += 1
        if self.follows:
            self.beat()
        return work(
            rollout, self.parts, self.leases, holder_of(f"run-{self._runs}"), self._report, self.pause
        )

    def pause(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.meanwhile()
        if self.follows:
            self.beat()

    def beat(self) -> None:
        """The worker's next heartbeat: it follows the alias, except to what it refuses."""
        named = self._named_last = self._named()
        refused = {version: why for version, why in self.refuses.items() if version == named}
        if not refused:
            self._answers_with = named
        now = self.clock.now()
        proof = Proof(self._answers_with, "d" * 64, now) if self._answers_with is not None else None
        split = self._split()
        trial = Proof(split.challenger, "e" * 64, now) if split is not None else None
        models = {
            MODEL: WorkerModel(
                self._answers_with,
                proof,
                refused,
                challenger=split.challenger if split else None,
                percent=split.percent if split else 0,
                rollout=split.rollout if split else None,
                challenger_proof=trial,
                challenger_refused=self.refuses_challenger,
            )
        }
        workers.beat(self.engine, Beat(WORKER, "http://127.0.0.1:8080", now, now, models))

    def roll_back(self, *, from_version: str = "2", to: str = "1") -> None:
        """What serving does first: the override, and the lease taken from anybody."""
        self.leases.preempt(f"model:{MODEL}", WORKER)
        overrides.save(self.engine, self.override(from_version, to))

    def override(self, from_version: str = "2", to: str = "1") -> Override:
        return Override("o1", MODEL, Alias.CHAMPION, from_version, to, "bob", "wrong sums", self.clock.now())

    # What is on record

    def rollouts(self) -> list[Rollout]:
        """Oldest first."""
        return rollouts.recent(self.engine, MODEL)[::-1]

    def steps(self) -> list[str]:
        """The audited steps of all promotions."""
        return [str(row.entry.details["step"]) for row in audit.tail(self.engine, 500, action="promote")]

    def moves(self) -> list[tuple[str | None, str | None, str | None]]:
        """Guarded moves of `champion`, oldest first: from, to, outcome."""
        rows = changes.recent(self.engine, MODEL, 100)[::-1]
        return [(r.from_version, r.to_version, r.outcome) for r in rows if r.alias == Alias.CHAMPION]

    def made(self) -> list[tuple[str | None, str | None, str | None]]:
        """Those moves that did not come to nothing: nobody's write failed, and nobody died before it."""
        nothing = (changes.Outcome.FAILED, changes.Outcome.ABANDONED)
        return [move for move in self.moves() if move[2] not in nothing]

    def notices(self) -> list[tuple[str, str | None]]:
        rows = outbox.recent(self.engine, 100)
        return [(row.notice.kind, row.notice.version) for row in reversed(rows)]

    def assert_intact(self) -> None:
        assert audit.verify(self.engine).verdict is audit.Verdict.INTACT

    def _validate(self, rollout: Rollout, champion: str | None) -> Judgement:
        self.asked_of_validator.append(champion)
        if isinstance(self.judgement, Exception):
            raise self.judgement
        return self.judgement

    def _benchmark(self, rollout: Rollout, champion: str | None) -> Judgement:
        self.asked_of_benchmark.append(champion)
        if isinstance(self.cost, Exception):
            raise self.cost
        return self.cost

    def _report(self, sentence: str) -> None:
        self.said.append(sentence)
        step = sentence.rpartition(": ")[2]
        if (happens := self.at.pop(step, None)) is not None:
            happens()

    def _split(self) -> Split | None:
        """The split in effect; while the registry is away, the last one."""
        try:
            model = self.registry.registered_model(MODEL)
        except RegistryUnavailable:
            return self._split_last
        wanted = wanted_split(read_tag(model.tags.get(Tag.TRAFFIC)), model.aliases)
        self._split_last = wanted if isinstance(wanted, Split) else None
        return self._split_last

    def _named(self) -> str | None:
        try:
            return self.registry.alias(MODEL, Alias.CHAMPION)
        except RegistryUnavailable:  # the last good state holds
            return self._named_last


def registry_of(client: httpx.Client) -> Registry:
    return Registry(client, serves=lambda name: not name.startswith("foreign"))
