"""What serving tells the registry and the store: `champion` after a rollback, `previous`, moves by hand."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

import pytest

from serving.core.clock import SystemClock
from serving.store import changes
from serving.store.changes import ChangeIntent, Outcome
from serving.store.guard import Guard, Verdict, Wish
from serving.store.leases import Leases
from serving.store.outbox import recent
from serving.store.registry import Registry, connect
from serving.store.settings import StoreSettings
from tests.mlflow_double import Fault, MlflowDouble
from tests.models import onnx_adder
from tests.station import Station, station
from tests.story import eventually, story


@dataclass
class Promotions:
    """A flow of promotions by hand."""

    server: Station

    async def to(self, *versions: str) -> None:
        for version in versions:
            self.server.double.point("m", version)
            await self.server.serves(version)


@pytest.fixture
def double(double: MlflowDouble, tmp_path: Path) -> MlflowDouble:
    double.add("m", *[onnx_adder(tmp_path / "models" / str(n), float(n)) for n in (1, 2, 3)])
    double.point("m", "1")
    return double


@story
async def test_previous_is_kept_in_the_registry(home: Path, double: MlflowDouble) -> None:
    """The copy of our own record: the last good champion before the present one."""
    async with station(home, double) as server:
        await Promotions(server).to("1")
        await server.turns()
        assert double.named("m", "previous") is None
        await Promotions(server).to("2")
        await server.names("1", "previous")
        await Promotions(server).to("3")
        await server.names("2", "previous")
        await Promotions(server).to("2")
        await server.names("3", "previous")


@story
async def test_previous_is_put_right_when_a_hand_moved_it(home: Path, double: MlflowDouble) -> None:
    """Serving's record is the truth, the alias its copy."""
    async with station(home, double) as server:
        await Promotions(server).to("1", "2")
        await server.names("1", "previous")
        double.point("m", "3", "previous")
        await server.names("1", "previous")


@story
async def test_move_by_hand_is_recorded_once_with_where_it_came_from(
    home: Path, double: MlflowDouble
) -> None:
    """A promotion in MLflow's UI is a feature; it is audited and told as information."""
    async with station(home, double) as server:
        await Promotions(server).to("1", "2")
        await eventually(lambda: len(server.changes()) == 2, "both moves on record")
        await server.turns(4)
        assert server.changes() == [(None, "1", True), ("1", "2", True)]
        assert server.notices().count("out_of_band") == 2
        observed = [row for row in await server.audit("alias") if row["details"].get("out_of_band")]
        assert [(row["actor"], row["version"]) for row in observed] == [("registry", "1"), ("registry", "2")]


@story
async def test_move_is_recorded_again_when_the_hand_goes_back(home: Path, double: MlflowDouble) -> None:
    """Each choice is one, whatever was recorded before it."""
    async with station(home, double) as server:
        for count, version in enumerate(("1", "2", "1", "2"), 1):
            await Promotions(server).to(version)
            await eventually(lambda n=count: len(server.changes()) == n, "the move on record")  # type: ignore[misc]
        assert [to for _, to, _ in server.changes()] == ["1", "2", "1", "2"]


@story
async def test_same_move_is_not_recorded_again_after_a_restart(home: Path, double: MlflowDouble) -> None:
    """Nor by a second replica: the store has one record per move."""
    for _ in range(2):
        async with station(home, double) as server:
            await server.serves("1")
            await eventually(lambda: len(server.changes()) == 1, "the move on record")
            await server.turns(3)
            assert len(server.changes()) == 1


@story
async def test_rollback_is_written_as_ours_and_not_recorded_as_a_hands(
    home: Path, double: MlflowDouble
) -> None:
    """Intent and outcome, with the actor who asked for it."""
    async with station(home, double) as server:
        await Promotions(server).to("1", "2")
        await eventually(lambda: len(server.changes()) == 2, "both moves on record")
        await server.roll_back()
        await server.names("1")
        await server.turns(3)
        assert server.changes()[-1] == ("2", "1", False)
        assert len(server.changes()) == 3


@story
async def test_rollback_pre_empts_whoever_holds_the_lease(home: Path, double: MlflowDouble) -> None:
    """A promotion under way does not keep a bad version in the registry."""
    async with station(home, double) as server:
        await Promotions(server).to("1", "2")
        await server.names("1", "previous")
        Leases(server.engine, SystemClock()).acquire("model:m", "flow:promote")
        await server.roll_back()
        await server.names("1")


@story
async def test_previous_waits_its_turn_when_somebody_holds_the_lease(
    home: Path, double: MlflowDouble
) -> None:
    """Keeping a copy right is no emergency."""
    leases = None
    async with station(home, double) as server:
        await Promotions(server).to("1")
        leases = Leases(server.engine, SystemClock())
        lease = leases.preempt("model:m", "flow:promote")
        await Promotions(server).to("2")
        await server.turns(4)
        assert double.named("m", "previous") is None
        leases.release(lease)
        await server.names("1", "previous")


@story
async def test_write_is_tried_again_until_the_registry_takes_it(home: Path, double: MlflowDouble) -> None:
    """In the background, and in the meantime the override holds."""
    async with station(home, double) as server:
        await Promotions(server).to("1", "2")
        await server.names("1", "previous")
        double.fault = Fault(500, where="registered-models/alias")
        await server.roll_back()
        await eventually(lambda: len(server.changes()) >= 3, "a first try on record")
        assert await server.version() == "1"
        assert double.named("m") == "2"
        double.fault = None
        await server.names("1")


@story
@pytest.mark.parametrize("alias", ["challenger", "shadow"])
async def test_every_alias_moved_by_hand_is_recorded_with_its_removal(
    home: Path, double: MlflowDouble, alias: str
) -> None:
    """Setting it again after that is another choice."""
    async with station(home, double) as server:
        await Promotions(server).to("1")
        for count, version in enumerate(("2", "3", None, "3"), 1):
            double.point("m", version, alias)
            await eventually(lambda n=count: len(server.changes(alias)) == n, "the move on record")  # type: ignore[misc]
        await server.turns(3)
        assert server.changes(alias) == [
            (None, "2", True),
            ("2", "3", True),
            ("3", None, True),
            (None, "3", True),
        ]
        titles = [row.notice.title for row in recent(server.engine, 100)]
        assert f"{alias} of m was moved by hand from 3 to nothing" in titles
        history = (await server.info())["history"]
        assert [row["to"] for row in history if row["alias"] == alias] == ["3", None, "3", "2"]


@story
async def test_removal_of_the_champion_is_recorded_and_told_by_the_alert_alone(
    home: Path, double: MlflowDouble
) -> None:
    async with station(home, double) as server:
        await Promotions(server).to("1")
        await eventually(lambda: len(server.changes()) == 1, "the first on record")
        double.point("m", None)
        await eventually(lambda: len(server.changes()) == 2, "the removal on record")
        double.point("m", "1")
        await eventually(lambda: len(server.changes()) == 3, "the return on record")
        assert server.changes()[1:] == [("1", None, True), (None, "1", True)]
        assert server.notices().count("out_of_band") == 2


@story
async def test_challenger_set_and_deleted_by_a_rollout_is_no_hands_move(
    home: Path, double: MlflowDouble
) -> None:
    """Neither what is seen before its outcome is on record, nor what was read before a deletion."""
    async with station(home, double) as server:
        await Promotions(server).to("1")
        leases = Leases(server.engine, SystemClock())
        with connect(StoreSettings(home=home, mlflow_url=double.url)) as client:
            guard = Guard(Registry(client, serves=lambda name: True), server.engine, leases)
            with guard.holding("m", "promote:1") as lease:
                for version in ("2", None) * 4:
                    wish = Wish("m", "challenger", version, "ann", "rollout r")
                    move = await asyncio.to_thread(guard.move, wish, lease)
                    assert move.verdict is Verdict.APPLIED
                await server.turns(3)
        assert server.changes("challenger") == [(None, "2", False), ("2", None, False)] * 4


@story
async def test_late_write_of_a_dead_process_is_put_right_and_no_hands_choice(
    home: Path, double: MlflowDouble
) -> None:
    """The rollout it belonged to was given up before it arrived."""
    async with station(home, double) as server:
        await Promotions(server).to("1", "2")
        await server.names("1", "previous")
        leases = Leases(server.engine, SystemClock())
        lease = leases.preempt("model:m", "dead")
        intent = ChangeIntent("m", "champion", "2", "3", lease.epoch, "ann", "rollout r")
        change_id = changes.intend(server.engine, intent, lease)
        changes.settle(server.engine, change_id, Outcome.ABANDONED, "found open")
        double.point("m", "3")
        await server.turns(2)
        assert double.named("m") == "3"  # whoever holds the lease is to put it right
        leases.release(lease)
        await server.names("2")
        await server.serves("2")
        assert server.changes()[-1] == ("3", "2", False)
        assert [move for move in server.changes() if move[1:] == ("3", True)] == []
        [late] = [row for row in await server.audit("alias") if row["details"]["step"] == "late"]
        assert late["details"]["change_id"] == change_id
