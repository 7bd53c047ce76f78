"""A gradual rollback: down by stages that replicas follow, never to a broken version, and killed anywhere."""

import multiprocessing
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import Engine, event

from flows.rollout.retreating import work
from serving.core.clock import ManualClock
from serving.core.model import Alias, Tag
from serving.core.traffic import Split, read_tag, write_tag
from serving.store import audit, changes, outbox, overrides, policies, restore_points, rollbacks, rollouts
from serving.store.capture import Wanted, make
from serving.store.database import open_engine
from serving.store.guard import Guard
from serving.store.leases import Leases
from serving.store.registry import connect
from serving.store.restore_points import Kind
from serving.store.rollbacks import State
from serving.store.settings import StoreSettings
from tests.flows.rollout.doomed import Fuse
from tests.flows.rollout.line import MODEL, Line, registry_of
from tests.flows.rollout.registrar import Registrar
from tests.flows.rollout.road import Road
from tests.mlflow_double import Fault

# Commits and registry writes of an undisturbed gradual rollback; the last test keeps it right.
WRITES = 35
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload([__name__])


@pytest.fixture
def road(engine: Engine, registrar: Registrar, clock: ManualClock, tmp_path: Path) -> Iterator[Road]:
    """Version 2 is champion, 1 was before."""
    registrar.point(MODEL, "2")
    registrar.point(MODEL, "1", "previous")
    with connect(StoreSettings(home=tmp_path, mlflow_url=registrar.url)) as client:
        yield Road(engine, registry_of(client), clock)


def tag_of(registrar: Registrar) -> str | None:
    return registrar.models[MODEL].tags.get(Tag.TRAFFIC)


def assert_settled(road: Road, registrar: Registrar, champion: str = "1") -> None:
    """One champion, no split, no challenger, no override, an intact trail."""
    assert registrar.named(MODEL) == champion
    assert registrar.named(MODEL, "challenger") is None
    assert tag_of(registrar) is None
    assert overrides.active(road.engine) == []
    assert changes.open_intents(road.engine, MODEL) == []
    assert audit.verify(road.engine).verdict is audit.Verdict.INTACT


def test_traffic_goes_down_by_stages(road: Road, registrar: Registrar) -> None:
    """Each stage seen on the replica, then the champion moves; people hear of it, and it is on record."""
    outcome = road.work(road.ask())
    assert outcome.record.state is State.COMPLETED, outcome.reason
    assert road.seen == [("2", 0), ("2", 25), ("2", 50), ("2", 75), ("1", 0)]
    assert_settled(road, registrar)
    steps = ["requested", "verified", "saved", "stage_75", "stage_50", "stage_25", "moved", "applied"]
    found = [str(row.entry.details["step"]) for row in audit.tail(road.engine, 100, action="roll_back")]
    assert found == [*steps, "restored", "completed"]
    assert [row.notice.kind for row in outbox.recent(road.engine, 10)] == ["rolled_back"]
    point = restore_points.get(road.engine, outcome.record.id)
    assert (point.champion, point.kind) == ("2", Kind.AUTOMATIC)


def test_stages_are_those_asked_for(road: Road) -> None:
    road.work(road.ask(stages=[90, 10]))
    assert road.seen == [("2", 0), ("2", 10), ("2", 90), ("1", 0)]


def test_challenger_is_left_when_it_has_a_share(road: Road, registrar: Registrar) -> None:
    """The champion stays; the rollout under way ends as rolled back."""
    registrar.point(MODEL, "1")
    registrar.point(MODEL, "2", "challenger")
    registrar.models[MODEL].tags[Tag.TRAFFIC] = write_tag(Split("2", 60, "r"))
    request = rollouts.Request(model=MODEL, version="2", strategy="staged", requested_by="bob")
    rollouts.enter(road.engine, request, road.clock.now(), road.clock.now())
    outcome = road.work(road.ask("2", "1"))
    assert outcome.record.state is State.COMPLETED, outcome.reason
    assert road.seen == [("1", 60), ("1", 50), ("1", 25), ("1", 0)]
    assert rollouts.recent(road.engine, MODEL)[0].state is rollouts.State.ROLLED_BACK
    assert_settled(road, registrar)


def test_nothing_moves_when_the_target_is_broken(road: Road, registrar: Registrar) -> None:
    """Never to a broken version: the way ends before the first write to the registry."""
    road.broken = "its files are damaged"
    outcome = road.work(road.ask())
    assert (outcome.record.state, registrar.writes()) == (State.FAILED, [])
    assert "not one to go back to: its files are damaged" in outcome.reason
    assert [row.notice.kind for row in outbox.recent(road.engine, 10)] == ["rollback_failed"]


def test_traffic_returns_when_a_replica_refuses_the_target(road: Road, registrar: Registrar) -> None:
    road.refuses = {"1": "its digest differs"}
    outcome = road.work(road.ask())
    assert outcome.record.state is State.FAILED
    assert "its digest differs" in outcome.reason
    assert_settled(road, registrar, champion="2")


def test_traffic_returns_when_the_target_is_ejected(road: Road, registrar: Registrar) -> None:
    """It failed on real requests: what it got goes back to the champion."""
    road.ejects_at = 50
    outcome = road.work(road.ask())
    assert "serving ejected version 1: it raised" in outcome.reason
    assert registrar.named(MODEL) == "2"
    assert (registrar.named(MODEL, "challenger"), tag_of(registrar)) == (None, None)


def test_hands_choice_is_kept_when_the_champion_was_moved_meanwhile(road: Road, registrar: Registrar) -> None:
    record = road.ask()
    registrar.point(MODEL, "3")
    outcome = road.work(record)
    assert (outcome.record.state, registrar.named(MODEL)) == (State.SUPERSEDED, "3")
    assert "names 3 by now" in outcome.reason


def test_rollback_stays_open_when_the_registry_takes_nothing(road: Road, registrar: Registrar) -> None:
    """The next run carries on when it does."""
    from serving.core.errors import RegistryUnavailable

    record = road.ask()
    registrar.fault = Fault(500, where="alias")
    with pytest.raises(RegistryUnavailable):
        road.work(record)
    assert rollbacks.get(road.engine, record.id).state is State.OPEN
    registrar.fault = None
    outcome = road.carried_on()
    assert outcome is not None
    assert outcome.record.state is State.COMPLETED
    assert_settled(road, registrar)


def test_restore_point_brings_back_the_rest(road: Road, registrar: Registrar) -> None:
    """Shadow, policies, evaluation set; a challenger of then comes back from a point made by hand only."""
    registrar.point(MODEL, "1")
    registrar.point(MODEL, "3", "shadow")
    registrar.models[MODEL].tags[Tag.EVALUATION_SET] = "runs:/a/set.npz"
    now = road.clock.now()
    policies.put(road.engine, MODEL, policies.PROMOTION, {"min_accuracy": 0.9}, "anna", now)
    settings = {"poll_seconds": 1.0, "only_then": 1}
    wanted = Wanted("p1", MODEL, Kind.BY_HAND, "good", "anna", settings)
    make(road.engine, road.registry, wanted, now)
    registrar.point(MODEL, "2")
    registrar.point(MODEL, None, "shadow")
    registrar.point(MODEL, "4", "nightly")
    registrar.models[MODEL].tags[Tag.EVALUATION_SET] = "runs:/b/set.npz"
    policies.put(road.engine, MODEL, policies.PROMOTION, None, "bob", now)
    outcome = road.work(road.ask(restore_point="p1"))
    assert outcome.record.state is State.COMPLETED, outcome.reason
    assert (registrar.named(MODEL), registrar.named(MODEL, "shadow")) == ("1", "3")
    assert registrar.named(MODEL, "nightly") == "4"
    assert registrar.models[MODEL].tags[Tag.EVALUATION_SET] == "runs:/a/set.npz"
    assert policies.of_model(road.engine, MODEL) == {"promotion": {"min_accuracy": 0.9}}
    told = outcome.record.evidence["restored"]
    assert told["left"] == ["alias nightly was not there then and stays"]


def test_promotion_is_refused_when_a_rollback_is_under_way(road: Road, line: Line) -> None:
    """The alias challenger that a stage sets must not start a rollout of the target."""
    record = road.ask()
    from flows.rollout.outcome import Outcome as Ended
    from flows.rollout.promotion import record as recorded

    found = recorded(road.engine, road.registry, line.ask("1"), road.clock)
    assert isinstance(found, Ended)
    assert f"is being rolled back to version 1 by anna (rollback {record.id})" in found.reason


def retreat_and_die(store_url: str, registry_url: str, writes: int) -> int | None:
    """Begin a gradual rollback in a process that dies at a write; its exit code."""
    process = _PROCESSES.Process(target=_retreat, args=(store_url, registry_url, writes), daemon=True)
    process.start()
    process.join(60.0)
    assert process.exitcode is not None, "the rollback hangs"
    return process.exitcode


def _retreat(store_url: str, registry_url: str, writes: int) -> None:
    fuse, clock = Fuse(writes), ManualClock()
    watched, engine = open_engine(store_url), open_engine(store_url)
    with (
        httpx.Client(base_url=registry_url, event_hooks={"request": [fuse.burn_on_request]}) as client,
        httpx.Client(base_url=registry_url) as unwatched,
    ):
        road = Road(engine, registry_of(unwatched), clock)
        record = rollbacks.under_way(engine)[0]
        road.beat()
        event.listen(watched, "commit", fuse.burn)
        leases = Leases(watched, clock)
        parts = road.parts(Guard(registry_of(client), watched, leases), watched)
        outcome = work(record, parts, leases, "rollback:doomed", lambda _: None)
        assert outcome.record.state is State.COMPLETED


@pytest.mark.fault("F7")
@pytest.mark.parametrize("writes", range(WRITES))
def test_rollback_comes_to_its_end_when_the_first_run_was_killed(
    road: Road, registrar: Registrar, store_url: str, writes: int
) -> None:
    """After each durable write: the champion is one of the two at every moment, and the next run ends it."""
    record = road.ask()
    assert retreat_and_die(store_url, registrar.url, writes) == -signal.SIGKILL
    assert registrar.named(MODEL) in ("1", "2")
    split = read_tag(tag_of(registrar))
    assert split is None or (isinstance(split, Split) and split.challenger == "1")
    road.carried_on()
    found = rollbacks.get(road.engine, record.id)
    assert found.state is State.COMPLETED, found.message
    assert_settled(road, registrar)
    made = [c for c in changes.recent(road.engine, MODEL, 100) if c.alias == Alias.CHAMPION]
    applied = [(c.from_version, c.to_version) for c in made if c.outcome is changes.Outcome.APPLIED]
    assert applied == [("2", "1")]
    assert [row.notice.kind for row in outbox.recent(road.engine, 10)] == ["rolled_back"]


def test_writes_are_counted_right(road: Road, registrar: Registrar, store_url: str) -> None:
    """One write less than a whole run makes is killed, the whole run is not."""
    record = road.ask()
    assert retreat_and_die(store_url, registrar.url, WRITES) == 0
    assert rollbacks.get(road.engine, record.id).state is State.COMPLETED
