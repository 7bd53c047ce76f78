"""Which benchmark tend asks for, by a store and a registry that say what is there."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from flows.baselines import SETTLED_AFTER, TRY_AGAIN_AFTER, Orders, kept_fresh
from flows.catalog.baseline import MAX_AGE, record, record_declared
from flows.catalog.host import this_host
from flows.catalog.performance import Findings, Performance
from flows.settings import FlowSettings
from flows.wiring import Wiring
from serving.core.clock import ManualClock
from serving.core.model import VersionRef
from serving.store import changes
from serving.store.database import open_engine
from serving.store.registry import connect
from tests.flows.catalog.figures_of import ELSEWHERE, report
from tests.flows.rollout.line import MODEL, Line, registry_of
from tests.flows.rollout.registrar import Registrar

NOTHING: list[str] = []


@dataclass
class Desk:
    """What was asked for. A key counts once; `busy` says that a benchmark is under way."""

    asked: list[VersionRef] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    busy: bool = False

    @property
    def orders(self) -> Orders:
        return Orders(lambda: self.busy, self._start)

    def _start(self, ref: VersionRef, key: str) -> bool:
        if key in self.keys:
            return False
        self.keys.add(key)
        self.asked.append(ref)
        return True


@pytest.fixture
def registrar(tmp_path: Path) -> Iterator[Registrar]:
    with Registrar() as registrar:
        registrar.add(MODEL, tmp_path, tmp_path)
        registrar.point(MODEL, "1")
        yield registrar


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def wiring(home: Path, registrar: Registrar, store_template: Path, clock: ManualClock) -> Iterator[Wiring]:
    home.mkdir()
    shutil.copy(store_template, home / "signalbox.db")
    settings = FlowSettings(mlflow_url=registrar.url)
    engine = open_engine(settings.database_url)
    with connect(settings) as client:
        registry = registry_of(client)
        line = Line(engine, registry, clock)
        yield Wiring(settings, clock, engine, client, registry, line.leases, line.guard)
    engine.dispose()


@pytest.fixture
def desk() -> Desk:
    return Desk()


def measure(wiring: Wiring, version: str = "1", **different: object) -> None:
    here: dict[str, Any] = {"host": this_host(), "created_at": wiring.clock.now()} | different
    record(wiring.engine, report(version=version, model=MODEL, **here), "anna")


def test_benchmark_is_asked_for_when_the_champion_has_no_baseline(wiring: Wiring, desk: Desk) -> None:
    said = kept_fresh(wiring, desk.orders)
    assert said == [f"{MODEL}: benchmark of version 1 asked for, there is none"]
    assert desk.asked == [VersionRef(MODEL, "1")]


def test_nothing_is_asked_for_when_the_baseline_is_fresh(
    wiring: Wiring, desk: Desk, clock: ManualClock
) -> None:
    """Until it is older than seven days."""
    measure(wiring)
    clock.advance(MAX_AGE.total_seconds())
    assert kept_fresh(wiring, desk.orders) == NOTHING
    clock.advance(1)
    assert kept_fresh(wiring, desk.orders) == [
        f"{MODEL}: benchmark of version 1 asked for, it is older than 7 days"
    ]


def test_benchmark_is_asked_for_when_the_baseline_is_of_another_host(
    wiring: Wiring, desk: Desk, clock: ManualClock
) -> None:
    """Not within a day: two workers on two hosts must not send it to and fro."""
    measure(wiring, host=ELSEWHERE)
    assert kept_fresh(wiring, desk.orders) == NOTHING
    clock.advance(TRY_AGAIN_AFTER.total_seconds())
    assert kept_fresh(wiring, desk.orders) == [
        f"{MODEL}: benchmark of version 1 asked for, it was measured on another host"
    ]


def test_benchmark_is_asked_for_when_the_baseline_is_only_declared(wiring: Wiring, desk: Desk) -> None:
    record_declared(wiring.engine, MODEL, "1", {"latency_ms": 3.0}, "anna", wiring.clock.now())
    assert kept_fresh(wiring, desk.orders) == [
        f"{MODEL}: benchmark of version 1 asked for, it was declared, never measured"
    ]


def test_benchmark_is_tried_once_a_day_when_nothing_can_be_measured(
    wiring: Wiring, desk: Desk, clock: ManualClock
) -> None:
    """Whether the attempt left a report without figures, or none at all."""
    nothing = report(Findings(Performance("1")), version="1", created_at=clock.now())
    record(wiring.engine, nothing, "tend")
    assert kept_fresh(wiring, desk.orders) == NOTHING
    clock.advance(TRY_AGAIN_AFTER.total_seconds())
    assert len(kept_fresh(wiring, desk.orders)) == 1
    clock.advance(60)
    assert kept_fresh(wiring, desk.orders) == NOTHING
    assert len(desk.asked) == 1


def test_benchmarks_come_one_at_a_time_when_several_are_due(
    wiring: Wiring, registrar: Registrar, desk: Desk, tmp_path: Path
) -> None:
    """The next when the one before is over; one that had its run today holds up no other."""
    registrar.add("zebra", tmp_path)
    registrar.point("zebra", "1")
    registrar.add("unused", tmp_path)
    assert len(kept_fresh(wiring, desk.orders)) == 1
    desk.busy = True
    assert kept_fresh(wiring, desk.orders) == NOTHING
    desk.busy = False
    assert len(kept_fresh(wiring, desk.orders)) == 1
    assert kept_fresh(wiring, desk.orders) == NOTHING
    assert desk.asked == [VersionRef(MODEL, "1"), VersionRef("zebra", "1")]


def test_model_is_left_alone_when_a_rollout_is_open(wiring: Wiring, desk: Desk, clock: ManualClock) -> None:
    Line(wiring.engine, wiring.registry, clock).enter("2")
    assert kept_fresh(wiring, desk.orders) == NOTHING


def test_champion_is_left_alone_when_it_has_just_come(wiring: Wiring, desk: Desk, clock: ManualClock) -> None:
    """It is being watched; after that it is measured like any other."""
    changes.record_out_of_band(wiring.engine, MODEL, "champion", None, "1", 0, None, now=clock.now())
    clock.advance(SETTLED_AFTER.total_seconds() - 1)
    assert kept_fresh(wiring, desk.orders) == NOTHING
    clock.advance(1)
    assert len(kept_fresh(wiring, desk.orders)) == 1
