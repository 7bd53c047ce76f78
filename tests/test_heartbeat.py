"""A worker's heartbeat: what it answers with, proven since the last change, whatever a model does."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

from sqlalchemy import Engine, text

from serving.core.clock import ManualClock
from serving.core.traffic import Split
from serving.followed import FollowedModel
from serving.heartbeat import Heartbeat, Identity
from serving.ledger import Ledger
from serving.readiness import Readiness
from serving.reconcile import Refusal
from serving.store import workers
from serving.store.database import open_engine
from serving.store.journal import Journal
from serving.store.levels import StoredLevel
from serving.store.trail import Trail
from serving.store.workers import Beat, Proof, WorkerModel
from tests.mlflow_double import MlflowDouble
from tests.models import onnx_adder
from tests.station import station
from tests.story import eventually, story
from tests.versions import key, loaded

WORKER = "serving:here:1"


@dataclass
class FakeHealth:
    """Proves at once what does not hang."""

    clock: ManualClock
    hanging: set[str] = field(default_factory=set)
    broken: set[str] = field(default_factory=set)
    proofs: dict[str, Proof] = field(default_factory=dict)
    challenger_proofs: dict[str, Proof] = field(default_factory=dict)
    probed: list[str] = field(default_factory=list)

    async def probe(self, model: FollowedModel) -> None:
        self.probed.append(model.name)
        if model.name in self.hanging:
            await asyncio.Event().wait()
        if model.name in self.broken:
            raise RuntimeError("of the probe")
        if model.champion is not None:
            self.proofs[model.name] = Proof(model.champion.ref.version, "d", self.clock.now())

    async def probe_challenger(self, model: FollowedModel) -> None:
        self.probed.append(f"challenger of {model.name}")
        if model.challenger is not None:
            self.challenger_proofs[model.name] = Proof(model.challenger.ref.version, "c", self.clock.now())

    def learn(self, stored: Iterable[StoredLevel]) -> None:
        pass


@dataclass
class FakeFollower:
    """Has read the registry once a test says so."""

    registry_read_at: datetime | None = None
    registry_problem: str = "not read yet"


@dataclass
class Place:
    engine: Engine
    clock: ManualClock
    health: FakeHealth
    models: dict[str, FollowedModel]
    follower: FakeFollower
    readiness: Readiness

    def serve(self, version: str, model: str = "digits") -> FollowedModel:
        followed = self.models.setdefault(model, FollowedModel(model))
        followed.served["champion"] = loaded(version, model=model)
        followed.swapped_at = self.clock.now()
        return followed

    def beats(self) -> list[Beat]:
        return workers.live(self.engine, self.clock.now())

    def reported(self, model: str = "digits") -> WorkerModel | None:
        beats = self.beats()
        return beats[0].models.get(model) if beats else None


def rename(engine: Engine, table: str, to: str) -> None:
    with engine.begin() as connection:
        connection.execute(text(f"ALTER TABLE {table} RENAME TO {to}"))


@asynccontextmanager
async def beating(home: Path) -> AsyncIterator[Place]:
    """A worker that beats until the block ends, and leaves then."""
    clock = ManualClock()
    engine = open_engine(f"sqlite:///{home / 'signalbox.db'}")
    ledger = Ledger(engine, Trail(engine, Journal(home / "journal.jsonl"), clock), clock)
    models: dict[str, FollowedModel] = {}
    follower = FakeFollower()
    readiness = Readiness(models, cast(Any, follower))
    place = Place(engine, clock, FakeHealth(clock), models, follower, readiness)
    identity = Identity(WORKER, "http://127.0.0.1:8080", clock.now())
    heartbeat = Heartbeat(identity, models, cast(Any, place.health), readiness, ledger, clock)
    task: asyncio.Task[None] | None = None
    try:
        task = asyncio.create_task(heartbeat.run())
        yield place
    finally:
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await heartbeat.leave()
        assert workers.live(engine, clock.now()) == [], "it has left"
        ledger.close()
        engine.dispose()


@story
async def test_beat_reports_a_champion_with_its_proof_when_it_is_fresh(home: Path) -> None:
    """Proven within the same beat: a promotion does not wait for the next regular probe."""
    async with beating(home) as place:
        place.serve("2")
        await eventually(lambda: place.reported() is not None, "the first beat")
        report = place.reported()
        assert report == WorkerModel("2", Proof("2", "d", place.clock.now()), {})


@story
async def test_beat_proves_again_when_the_champion_changed(home: Path) -> None:
    """A proof from before the change says nothing; one from after it is not repeated."""
    async with beating(home) as place:
        place.serve("2")
        await eventually(lambda: place.reported() is not None, "the first beat")
        place.clock.advance(1)
        place.serve("2")  # as after a rollback and a new promotion: the same version, swapped anew
        swapped_at = place.clock.now()

        def proven_anew() -> bool:
            report = place.reported()
            return report is not None and report.proof is not None and report.proof.started_at == swapped_at

        await eventually(proven_anew, "a proof from after the change")
        assert place.health.probed == ["digits"] * 2


@story
async def test_beat_reports_a_split_with_its_challengers_proof(home: Path) -> None:
    """Proven anew for each split: a promotion waits for a proof begun after its write."""
    async with beating(home) as place:
        model = place.serve("2")
        model.served["challenger"] = loaded("3")
        await eventually(lambda: place.reported() is not None, "the first beat")
        assert place.reported() == WorkerModel(
            "2",
            Proof("2", "d", place.clock.now()),
            {},
            challenger="3",
            challenger_proof=Proof("3", "c", place.clock.now()),
        )
        place.clock.advance(1)
        model.shown_split, model.split_since = Split("3", 25, "r-1"), place.clock.now()

        def is_proven_anew() -> bool:
            told = place.reported()
            proof = told.challenger_proof if told is not None else None
            return proof is not None and proof.started_at == place.clock.now()

        await eventually(is_proven_anew, "a proof from after the change")
        told = place.reported()
        assert told is not None
        assert (told.percent, told.rollout) == (25, "r-1")
        model.served.pop("challenger")
        model.shown_split = None
        gone = WorkerModel("2", Proof("2", "d", place.clock.now() - timedelta(seconds=1)), {})
        await eventually(lambda: place.reported() == gone, "nothing of it is left")


@story
async def test_beat_goes_on_when_a_model_hangs_in_its_probe(home: Path) -> None:
    """The worker is alive, and so are its other models: a silent one would not be waited for."""
    async with beating(home) as place:
        place.health.hanging.add("stuck")
        place.serve("1", model="stuck")
        place.serve("2")
        await eventually(lambda: place.reported() is not None, "a beat")
        assert place.reported("stuck") == WorkerModel("1", None, {})
        assert place.reported() == WorkerModel("2", Proof("2", "d", place.clock.now()), {})
        assert place.health.probed.count("stuck") == 1


@story
async def test_beat_goes_on_when_a_probe_fails(home: Path) -> None:
    async with beating(home) as place:
        place.health.broken.add("digits")
        place.serve("2")
        await eventually(lambda: place.reported() == WorkerModel("2", None, {}), "a beat without proof")


@story
async def test_beat_reports_a_refusal_when_the_version_is_at_fault(home: Path) -> None:
    """One that only could not be fetched is tried again: no promotion may end for that."""
    async with beating(home) as place:
        model = place.serve("1")
        model.refusals["champion"] = Refusal(key("2"), "no answer of MLflow", 1, 0.0)
        await eventually(lambda: place.reported() is not None, "the first beat")
        report = place.reported()
        assert report is not None
        assert (report.champion, report.refused) == ("1", {})
        model.refusals["champion"] = Refusal(key("2"), "wrong shape", 1, 0.0)
        model.reported["champion"] = "wrong shape"

        def refused() -> bool:
            told = place.reported()
            return told is not None and told.refused == {"2": "wrong shape"}

        await eventually(refused, "the refusal")


@story
async def test_worker_is_ready_when_it_is_on_record_as_it_serves(home: Path) -> None:
    """Whoever waits for all workers of the store must not miss one that answers already."""
    async with beating(home) as place:
        await eventually(lambda: place.reported() is None and bool(place.beats()), "a beat of what it lacks")
        assert place.readiness.own_wait() == ["the registry: not read yet"]
        place.serve("2")
        place.follower.registry_read_at = place.clock.now()
        assert place.readiness.own_wait() == ["this worker's first report to the store"]
        await eventually(lambda: not place.readiness.own_wait(), "ready")
        assert place.reported() == WorkerModel("2", Proof("2", "d", place.clock.now()), {})


@story
async def test_worker_is_ready_when_nobody_can_be_told(home: Path) -> None:
    """Requests are answered without the store."""
    async with beating(home) as place:
        rename(place.engine, "workers", "away")
        place.serve("2")
        place.follower.registry_read_at = place.clock.now()
        await eventually(lambda: not place.readiness.own_wait(), "ready")
        rename(place.engine, "away", "workers")


@story
async def test_beat_shows_an_alias_applied_when_a_real_server_follows_it(
    home: Path, double: MlflowDouble, tmp_path: Path
) -> None:
    """Through probe, swap and store; a server that stops is not waited for."""
    double.add("m", *[onnx_adder(tmp_path / "models" / str(n), float(n)) for n in (1, 2)])
    double.point("m", "1")
    async with station(home, double) as server:
        await server.serves("1")
        double.point("m", "2")

        def applied() -> bool:
            beats = workers.live(server.engine, datetime.now(UTC))
            model = beats[0].models.get("m") if beats else None
            return model is not None and model.champion == "2" and model.proof is not None

        await eventually(applied, "version 2 is proven")
        engine = open_engine(f"sqlite:///{home / 'signalbox.db'}")
    try:
        assert workers.live(engine, datetime.now(UTC)) == []
    finally:
        engine.dispose()
