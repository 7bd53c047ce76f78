"""The overrides in force: durable before they hold, shared through the store, ended for good reasons only."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

from serving.core.clock import ManualClock
from serving.core.errors import StoreUnavailable
from serving.core.model import VersionRef
from serving.ledger import Ledger
from serving.overrides import Overrides
from serving.store import overrides as stored
from serving.store.database import open_engine
from serving.store.journal import Journal
from serving.store.overrides import Override, OverrideFile
from serving.store.registry import RegisteredModel
from serving.store.trail import Trail
from tests.homes import prepare_home
from tests.story import story

CLOCK = ManualClock()
NOW = CLOCK.now()
BACK = Override("a", "m", "champion", "4", "3", "ann", "it fails", NOW)


@dataclass
class Replica:
    """The overrides of one server, its file and the store it shares."""

    overrides: Overrides
    file: OverrideFile
    engine: Engine

    def forced(self) -> list[str]:
        return [override.id for override in self.overrides.of("m")]

    def on_disk(self) -> list[str]:
        return [override.id for override in self.file.read()]

    def in_store(self) -> list[str]:
        return [override.id for override in stored.active(self.engine)]

    async def sees(self, **aliases: str) -> None:
        """One turn in which the registry names these."""
        await self.overrides.refresh({"m": RegisteredModel("m", 1, aliases, tags={}, description="")})


@asynccontextmanager
async def replica(home: Path, name: str = "one", *, has_store: bool = True) -> AsyncIterator[Replica]:
    """Without a store, its folder is missing: every call fails at once."""
    folder = home / name
    store = home / "signalbox.db" if has_store else home / "nowhere" / "signalbox.db"
    engine = open_engine(f"sqlite:///{store}")
    ledger = Ledger(engine, Trail(engine, Journal(folder / "journal.jsonl"), CLOCK), CLOCK)
    file = OverrideFile(folder / "overrides.json")
    try:
        yield Replica(Overrides(file, ledger, CLOCK), file, engine)
    finally:
        ledger.close()
        engine.dispose()


@story
async def test_override_is_on_disk_and_in_the_store_when_it_was_laid(home: Path) -> None:
    """In this order, so that it holds across a crash of anything."""
    async with replica(home) as one:
        await one.overrides.lay(BACK)
        assert one.forced() == one.on_disk() == one.in_store() == ["a"]
        assert one.overrides.own("m") == [BACK]


@story
async def test_override_holds_after_a_restart_without_the_store(home: Path) -> None:
    """The file alone is enough."""
    async with replica(home, has_store=False) as one:
        await one.overrides.lay(BACK)
        assert one.forced() == one.on_disk() == ["a"]
    async with replica(home, has_store=False) as one:
        await one.sees(champion="4")
        assert one.overrides.laid_for("m", "champion") == BACK
        assert one.overrides.left_for("m", "3") == "4"


@story
async def test_store_gets_its_copy_when_it_is_back(home: Path) -> None:
    """Also of one that was replaced meanwhile: only the last counts."""
    async with replica(home, has_store=False) as one:
        await one.overrides.lay(BACK)
        await one.overrides.lay(replace(BACK, id="b", answer_with="2", laid_at=NOW + timedelta(seconds=1)))
        await one.sees(champion="4")
        assert one.on_disk() == ["b"]
    async with replica(home) as one:
        await one.sees(champion="4")
        assert one.forced() == one.in_store() == ["b"]


@pytest.mark.parametrize("aliases", [{"champion": "5"}, {"champion": "3"}, {}])
@story
async def test_override_ends_when_its_role_names_another_version(home: Path, aliases: dict[str, str]) -> None:
    """Whoever moved it, and wherever to."""
    async with replica(home) as one:
        await one.overrides.lay(BACK)
        await one.sees(champion="4")
        assert one.forced() == ["a"]
        await one.sees(**aliases)
        assert one.forced() == one.on_disk() == one.in_store() == []


@story
async def test_override_that_ended_while_the_store_was_down_is_not_revived_by_it(home: Path) -> None:
    """The store still has it as active when it comes back."""
    async with replica(home) as one:
        await one.overrides.lay(BACK)
        store = home / "signalbox.db"
        store.rename(home / "away.db")
        one.engine.dispose()
        store.mkdir()
        await one.sees(champion="5")
        assert one.forced() == one.on_disk() == []
        store.rmdir()
        (home / "away.db").rename(store)
        await one.sees(champion="4")
        assert one.forced() == one.in_store() == []


@story
async def test_explicit_promotion_ends_our_own_override_through_the_store(home: Path) -> None:
    """Somebody chose the version again while the alias never moved."""
    async with replica(home) as one:
        await one.overrides.lay(BACK)
        stored.end(one.engine, BACK, "promoted by ann")
        await one.sees(champion="4")
        assert one.forced() == one.on_disk() == []
    async with replica(home) as one:
        await one.sees(champion="4")
        assert one.forced() == []


@story
async def test_own_override_survives_when_the_store_lost_it(home: Path) -> None:
    """A store that was created anew knows nothing of it; that ends nothing."""
    async with replica(home) as one:
        await one.overrides.lay(BACK)
    with_nothing = prepare_home(home / "fresh", home / "signalbox.db") / "signalbox.db"
    engine = open_engine(f"sqlite:///{with_nothing}")
    with engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM overrides")
    engine.dispose()
    (home / "fresh" / "one").mkdir()
    (home / "one" / "overrides.json").rename(home / "fresh" / "one" / "overrides.json")
    async with replica(home / "fresh") as one:
        await one.sees(champion="4")
        assert one.forced() == one.in_store() == one.on_disk() == ["a"]


@story
async def test_override_of_another_replica_is_learned_and_forgotten(home: Path) -> None:
    """It holds here too, but the registry is told by whoever laid it."""
    async with replica(home) as one, replica(home, "other") as other:
        await one.overrides.lay(BACK)
        await other.sees(champion="4")
        assert other.forced() == ["a"]
        assert other.overrides.own("m") == other.file.read() == []
        await one.sees(champion="3")
        await other.sees(champion="4")
        assert other.forced() == []


@story
async def test_later_override_of_another_replica_takes_the_place_of_ours(home: Path) -> None:
    """One per role: the registry is then told by the other one."""
    later = replace(BACK, id="b", answer_with="2", laid_at=NOW + timedelta(seconds=1))
    async with replica(home) as one, replica(home, "other") as other:
        await one.overrides.lay(BACK)
        await other.overrides.lay(later)
        await one.sees(champion="4")
        assert one.forced() == ["b"]
        assert one.overrides.own("m") == []
        assert other.overrides.own("m") == [later]


@story
async def test_nothing_is_laid_when_the_disk_refuses_it(home: Path) -> None:
    """Neither here nor in the store; what held before still does."""
    async with replica(home) as one:
        await one.overrides.lay(BACK)
        (home / "one" / "overrides.json").unlink()
        (home / "one" / "overrides.json").mkdir()
        with pytest.raises(StoreUnavailable, match="override could not be written"):
            await one.overrides.lay(replace(BACK, id="b"))
        assert one.forced() == one.in_store() == ["a"]


@story
async def test_roles_and_models_do_not_touch_one_another(home: Path) -> None:
    """An ejected challenger is no rolled-back champion."""
    async with replica(home) as one:
        ejected = replace(BACK, id="e", role="challenger", not_version="5", answer_with=None)
        await one.overrides.lay(BACK)
        await one.overrides.lay(ejected)
        await one.overrides.lay(replace(BACK, id="o", model="other"))
        assert sorted(one.on_disk()) == ["a", "e", "o"]
        assert one.overrides.laid_for("m", "challenger") == ejected
        assert one.overrides.laid_for("m", "shadow") is None
        await one.sees(champion="4")
        assert one.forced() == ["a"]


@pytest.mark.parametrize(
    ("left", "version", "since_seconds", "expected"),
    [
        pytest.param("4", "3", -1, "4", id="it-was-a-rollback"),
        pytest.param("4", "3", 1, None, id="promoted-again-since"),
        pytest.param("4", "2", -1, None, id="to-another"),
        pytest.param("5", "3", -1, None, id="from-another"),
    ],
)
@story
async def test_rollback_elsewhere_is_known_from_the_store_when_it_is_over_already(
    home: Path, left: str, version: str, since_seconds: float, expected: str | None
) -> None:
    """The registry was told before this replica looked."""
    async with replica(home) as one, replica(home, "other") as other:
        await one.overrides.lay(BACK)
        await one.sees(champion="3")
        ref, since = VersionRef("m", left), NOW + timedelta(seconds=since_seconds)
        assert await other.overrides.left_elsewhere(ref, version, since=since) == expected
        assert await other.overrides.left_elsewhere(VersionRef("x", left), version, since=since) is None


@story
async def test_rollback_elsewhere_is_unknown_when_the_store_is_down(home: Path) -> None:
    """Then a move counts as a hand's."""
    async with replica(home, has_store=False) as one:
        assert await one.overrides.left_elsewhere(VersionRef("m", "4"), "3", since=NOW) is None


@asynccontextmanager
async def two_workers(home: Path, *, has_store: bool = True) -> AsyncIterator[tuple[Replica, Replica]]:
    """Two workers of one server: they share the file."""
    async with replica(home, has_store=has_store) as one, replica(home, has_store=has_store) as other:
        yield one, other


@story
async def test_override_holds_for_another_worker_when_it_looks(home: Path) -> None:
    """Through the file alone; it is then that worker's as much as the other's."""
    async with two_workers(home, has_store=False) as (one, other):
        assert not await other.overrides.look()
        await one.overrides.lay(BACK)
        assert other.forced() == []
        assert await other.overrides.look()
        assert other.forced() == ["a"]
        assert other.overrides.own("m") == [BACK]
        assert not await other.overrides.look()


@story
async def test_same_way_back_is_laid_once_when_two_workers_find_it(home: Path) -> None:
    """Both watch the same version fail; the second learns that it was second."""
    async with two_workers(home) as (one, other):
        assert (await one.overrides.lay(BACK)).id == "a"
        assert (await other.overrides.lay(replace(BACK, id="b", actor="serving:watch"))).id == "a"
        assert other.on_disk() == other.in_store() == ["a"]
        elsewhere = replace(BACK, id="c", answer_with="2", laid_at=NOW + timedelta(seconds=1))
        assert (await other.overrides.lay(elsewhere)).id == "c"
        assert one.on_disk() == ["c"]


@story
async def test_override_ended_by_one_worker_is_not_revived_for_another_by_the_store(home: Path) -> None:
    """The store still has it when the other worker asks, because it was not told yet."""
    async with two_workers(home) as (one, other):
        await one.overrides.lay(BACK)
        await other.overrides.look()
        await one.overrides.end(BACK, "ann went back to 4")
        assert await other.overrides.look()
        assert other.forced() == []
        assert stored.active(one.engine) == [BACK]
        await other.sees(champion="4")
        assert other.forced() == other.in_store() == []
        await one.sees(champion="4")
        assert one.forced() == one.on_disk() == []


@story
async def test_end_reaches_the_store_when_who_ended_it_was_killed_before(home: Path) -> None:
    """The file keeps what the store is still to be told."""
    async with replica(home) as one:
        await one.overrides.lay(BACK)
        await one.overrides.end(BACK, "ann went back to 4")
        assert one.in_store() == ["a"]
    async with replica(home) as one:
        assert one.forced() == []
        await one.sees(champion="4")
        assert one.forced() == one.in_store() == []
