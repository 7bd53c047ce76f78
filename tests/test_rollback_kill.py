"""An instant rollback whose server is killed around each durable write: it comes to its end all the same."""

import json
import signal
from pathlib import Path
from time import monotonic

import pytest

from serving.store import audit, changes, overrides, rollbacks
from serving.store.changes import Outcome
from serving.store.rollbacks import State
from tests.doomed_rollback import roll_back_and_die
from tests.mlflow_double import MlflowDouble
from tests.models import onnx_adder
from tests.station import Station, station
from tests.story import eventually, story

# The override on the disk and in the store; then what answers, the books, the registry. Threads make them
# in no fixed order; the last test keeps the number right.
MOMENTS = 24
LEAST = 10
# What a killed server held is taken over after half a minute.
_SETTLED_SECONDS = 90.0


@pytest.fixture
def double(double: MlflowDouble, tmp_path: Path) -> MlflowDouble:
    """Version 2 of `m` is champion, 1 was before."""
    double.add("m", *[onnx_adder(tmp_path / "models" / str(n), float(n)) for n in (1, 2)])
    return double


@pytest.fixture
def ready(home: Path, double: MlflowDouble) -> Path:
    """A home whose server has promoted 2 after 1 and told the registry so."""

    @story
    async def promote() -> None:
        async with station(home, double) as server:
            for version in ("1", "2"):
                double.point("m", version)
                await server.serves(version)
            await server.names("1", "previous")

    promote()
    return home


def laid(home: Path) -> list[object]:
    """The overrides on the server's disk."""
    file = home / "serving" / "overrides.json"
    return list(json.loads(file.read_bytes())["overrides"]) if file.exists() else []


async def assert_settled(server: Station) -> None:
    """Version 1 answers and is named; no override, no intent of its is open; an intact trail."""
    await server.serves("1")
    await server.names("1")

    def left() -> list[object]:
        # An intent of alias previous may stay open: the next write of that alias settles it by reading.
        return [*overrides.active(server.engine), *changes.open_intents(server.engine, "m", "champion")]

    # Read once per turn: a turn that had asked the registry before the write may write the same again.
    open_now, until = left(), monotonic() + _SETTLED_SECONDS
    while open_now and monotonic() < until:
        await server.turns(1)
        open_now = left()
    assert open_now == []
    moved = [
        (row.from_version, row.to_version)
        for row in changes.recent(server.engine, "m")
        if row.alias == "champion" and row.outcome is Outcome.APPLIED and not row.out_of_band
    ]
    assert moved == [("2", "1")]
    assert audit.verify(server.engine).verdict is audit.Verdict.INTACT
    await server.turns(3)
    assert await server.version() == "1"
    await eventually(lambda: "rolled_back" in server.notices(), "people are told")
    assert await server.audit("roll_back")


@pytest.mark.slow
@pytest.mark.fault("F7", "F24")
@pytest.mark.parametrize("moments", range(MOMENTS))
def test_rollback_comes_to_its_end_when_its_server_was_killed(
    ready: Path, double: MlflowDouble, moments: int
) -> None:
    """Before the override is on the disk nothing has happened; from then on the old version answers."""
    code = roll_back_and_die(ready, double.url, moments)
    assert code == -signal.SIGKILL or (code == 0 and moments >= LEAST)
    has_begun = bool(laid(ready)) or double.named("m") == "1"

    @story
    async def restarted() -> None:
        async with station(ready, double) as server:
            if not has_begun:
                await server.serves("2")
                assert overrides.active(server.engine) == []
                assert (await server.roll_back()).status_code == 202
            await assert_settled(server)

    restarted()


def test_moments_are_counted_right(ready: Path, double: MlflowDouble) -> None:
    """A whole rollback has no more of them, and its row says that it was completed."""
    assert roll_back_and_die(ready, double.url, MOMENTS) == 0

    @story
    async def restarted() -> None:
        async with station(ready, double) as server:
            await assert_settled(server)
            [found] = rollbacks.recent(server.engine, "m")
            assert found.state is State.COMPLETED

    restarted()
