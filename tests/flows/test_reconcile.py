"""What reconcile does by itself, without a worker to hand promotions to: sightings, tidying, rollbacks.

Starting promotions is tested with a real Prefect in tests/integration/test_promotion.py.
"""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from flows.reconcile import reconciled
from flows.rollout.outcome import Verdict
from flows.settings import FlowSettings
from flows.wiring import Wiring
from serving.core.clock import ManualClock
from serving.core.errors import RegistryUnavailable
from serving.core.model import Tag, VersionRef
from serving.store import changes, overrides, sightings
from serving.store.database import open_engine
from serving.store.leases import Lease
from serving.store.registry import connect
from tests.flows.rollout.line import MODEL, WORSE, Line, registry_of
from tests.flows.rollout.registrar import Registrar
from tests.mlflow_double import Fault

NOTHING: list[str] = []


@pytest.fixture
def registrar(tmp_path: Path) -> Iterator[Registrar]:
    with Registrar() as registrar:
        registrar.add(MODEL, tmp_path, tmp_path, tmp_path)
        registrar.point(MODEL, "1")
        yield registrar


@pytest.fixture
def wiring(home: Path, registrar: Registrar, store_template: Path) -> Iterator[Wiring]:
    home.mkdir()
    shutil.copy(store_template, home / "signalbox.db")
    settings = FlowSettings(mlflow_url=registrar.url)
    engine = open_engine(settings.database_url)
    with connect(settings) as client:
        registry = registry_of(client)
        line = Line(engine, registry, ManualClock())
        yield Wiring(settings, line.clock, engine, client, registry, line.leases, line.guard)
    engine.dispose()


@pytest.fixture
def line(wiring: Wiring) -> Line:
    """A promotion's surroundings, on the same store, registry and clock."""
    assert isinstance(wiring.clock, ManualClock)
    return Line(wiring.engine, wiring.registry, wiring.clock)


def test_nothing_is_done_when_nothing_is_left_undone(wiring: Wiring, registrar: Registrar) -> None:
    assert reconciled(wiring) == NOTHING
    assert registrar.writes() == []


def test_challenger_is_noted_when_no_server_saw_it(wiring: Wiring, registrar: Registrar) -> None:
    """Since when it waits decides when it counts as missed; gone, it is forgotten."""
    registrar.point(MODEL, "2", "challenger")
    assert reconciled(wiring) == NOTHING
    sighting = sightings.current(wiring.engine, MODEL, "challenger")
    assert sighting is not None
    assert (sighting.version, sighting.seen_at) == ("2", wiring.clock.now())
    registrar.point(MODEL, None, "challenger")
    assert reconciled(wiring) == NOTHING
    assert sightings.current(wiring.engine, MODEL, "challenger") is None


def test_rollout_under_way_is_left_alone(wiring: Wiring, line: Line, registrar: Registrar) -> None:
    registrar.point(MODEL, "2", "challenger")
    line.enter("2")
    line.clock.advance(60)
    assert reconciled(wiring) == NOTHING


@pytest.fixture
def refused(line: Line, registrar: Registrar) -> Line:
    """A refused challenger whose alias the registry would not give up."""
    registrar.point(MODEL, "2", "challenger")
    sightings.see(line.engine, MODEL, "challenger", "2", line.clock.now())
    line.judgement = WORSE
    registrar.fault = Fault(500, where="registered-models/alias")
    line.clock.advance(1)
    outcome = line.promote(None)
    assert (outcome.verdict, len(outcome.warnings)) == (Verdict.REFUSED, 1)
    return line


@pytest.mark.fault("F26")
def test_alias_of_a_refused_challenger_is_taken_away_and_nothing_started(
    wiring: Wiring, refused: Line, registrar: Registrar
) -> None:
    """However long the registry refuses to forget it, the version is judged once."""
    for _ in range(3):
        refused.clock.advance(60)
        [sentence] = reconciled(wiring)
        assert sentence.startswith("digits: alias challenger outlived its verdict; alias challenger was not")
    registrar.fault = None
    assert reconciled(wiring) == ["digits: alias challenger outlived its verdict; taken away"]
    assert registrar.named(MODEL, "challenger") is None
    assert registrar.tags("2")[Tag.VERDICT] == f"refused: {WORSE.reason}"
    assert reconciled(wiring) == NOTHING
    assert len(refused.rollouts()) == 1


def test_alias_waits_when_another_holds_the_model(
    wiring: Wiring, refused: Line, registrar: Registrar
) -> None:
    """The holder is named; the next minute tries again."""
    registrar.fault = None
    held = refused.leases.acquire(f"model:{MODEL}", "serving:here:1")
    assert isinstance(held, Lease)
    assert reconciled(wiring) == ["digits: 'digits' is being changed by serving:here:1"]
    refused.leases.release(held)
    assert reconciled(wiring) == ["digits: alias challenger outlived its verdict; taken away"]


@pytest.mark.parametrize(("waited_seconds", "is_due"), [(29.999, False), (30, True)])
def test_rollback_is_written_when_its_server_did_not_live_to_do_so(
    wiring: Wiring, line: Line, registrar: Registrar, waited_seconds: float, is_due: bool
) -> None:
    registrar.point(MODEL, "2")
    overrides.save(wiring.engine, line.override())
    line.clock.wall += timedelta(seconds=waited_seconds)
    written = ["digits: rollback to 1: registry write applied"]
    assert reconciled(wiring) == (written if is_due else NOTHING)
    assert registrar.named(MODEL) == ("1" if is_due else "2")


def test_rollback_is_written_also_against_the_holder_of_the_lease(
    wiring: Wiring, line: Line, registrar: Registrar
) -> None:
    """A rollback waits for no promotion."""
    registrar.point(MODEL, "2")
    overrides.save(wiring.engine, line.override())
    line.leases.acquire(f"model:{MODEL}", "promote:run")
    line.clock.advance(30)
    assert reconciled(wiring) == ["digits: rollback to 1: registry write applied"]


def test_rollback_is_not_written_when_a_hand_chose_otherwise(
    wiring: Wiring, line: Line, registrar: Registrar
) -> None:
    registrar.point(MODEL, "3")
    overrides.save(wiring.engine, line.override())
    line.clock.advance(600)
    assert reconciled(wiring) == NOTHING
    assert registrar.named(MODEL) == "3"


def test_ejection_is_written_with_its_traffic_tag_when_its_server_did_not_live_to_do_so(
    wiring: Wiring, line: Line, registrar: Registrar
) -> None:
    """The tag first; and until then nobody promotes what serving sent away."""
    registrar.point(MODEL, "2", "challenger")
    registrar.models[MODEL].tags[Tag.TRAFFIC] = '{"challenger": "2", "percent": 25}'
    ejected = replace(line.override(), role="challenger", answer_with=None)
    overrides.save(wiring.engine, ejected)
    sightings.see(line.engine, MODEL, "challenger", "2", line.clock.now() - timedelta(hours=1))
    registrar.fault = Fault(500, where="registered-models/delete-tag")
    line.clock.advance(60)
    assert reconciled(wiring) == ["digits: challenger ejected: registry write failed"]
    assert (registrar.named(MODEL, "challenger"), line.rollouts()) == ("2", [])
    registrar.fault = None
    assert reconciled(wiring) == ["digits: challenger ejected: registry write applied"] * 2
    assert registrar.named(MODEL, "challenger") is None
    assert registrar.models[MODEL].tags == {}


def test_nothing_is_believed_when_the_registry_is_away(wiring: Wiring, registrar: Registrar) -> None:
    """No sighting is forgotten because MLflow answered garbage."""
    registrar.point(MODEL, "2", "challenger")
    reconciled(wiring)
    registrar.fault = Fault(200, b"<html>nginx</html>")
    with pytest.raises(RegistryUnavailable):
        reconciled(wiring)
    assert sightings.current(wiring.engine, MODEL, "challenger") is not None


@pytest.mark.parametrize(("is_failed", "expected"), [(False, "1"), (True, None)])
def test_previous_is_written_when_the_server_died_after_a_move_by_hand(
    wiring: Wiring, registrar: Registrar, line: Line, is_failed: bool, expected: str | None
) -> None:
    """The version before becomes `previous`, unless it is one that was rolled back."""
    changes.record_out_of_band(wiring.engine, MODEL, "champion", "1", "2", 0, None)
    registrar.point(MODEL, "2")
    registrar.point(MODEL, None, "previous")
    if is_failed:
        laid = line.override("1", "2")
        overrides.save(wiring.engine, laid)
        overrides.end(wiring.engine, laid, "over")
    done = reconciled(wiring)
    assert registrar.named(MODEL, "previous") == expected
    assert bool(done) is not is_failed
    assert reconciled(wiring) == NOTHING


def test_previous_stays_when_a_hand_removed_the_champion(
    wiring: Wiring, registrar: Registrar, line: Line
) -> None:
    """There is no champion that it could stand behind."""
    changes.record_out_of_band(wiring.engine, MODEL, "champion", "1", None, 0, None)
    for alias in ("champion", "previous"):
        registrar.point(MODEL, None, alias)
    assert reconciled(wiring) == NOTHING
    assert registrar.named(MODEL, "previous") is None


def test_shown_share_is_corrected_when_the_champion_moved_without_a_rollout(
    wiring: Wiring, registrar: Registrar
) -> None:
    """As after a rollback; a version that shows none is left as it is."""
    wiring.registry.set_version_tag(VersionRef(MODEL, "1"), Tag.TRAFFIC_PERCENT, "0")
    wiring.registry.set_version_tag(VersionRef(MODEL, "2"), Tag.TRAFFIC_PERCENT, "100")
    assert reconciled(wiring) == [
        "digits: version 1 shows 100 % of the traffic for 0 %",
        "digits: version 2 shows 0 % of the traffic for 100 %",
    ]
    shown = [registrar.tags(version).get(Tag.TRAFFIC_PERCENT) for version in ("1", "2", "3")]
    assert shown == ["100", "0", None]
    assert reconciled(wiring) == []


def test_shown_share_is_left_to_the_rollout_that_is_under_way(
    wiring: Wiring, line: Line, registrar: Registrar
) -> None:
    wiring.registry.set_version_tag(VersionRef(MODEL, "2"), Tag.TRAFFIC_PERCENT, "5")
    registrar.point(MODEL, "2", "challenger")
    line.enter("2")
    assert reconciled(wiring) == []
    assert registrar.tags("2")[Tag.TRAFFIC_PERCENT] == "5"
