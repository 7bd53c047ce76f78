"""Coming back after a restart: same versions, from local files alone, overrides honoured."""

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from serving.core.errors import StoreUnusable
from serving.store.overrides import Override, OverrideFile
from tests.homes import locked
from tests.mlflow_double import Fault, MlflowDouble
from tests.models import onnx_adder, onnx_raises_on_negative
from tests.station import Station, station
from tests.story import eventually, story

DOWN = Fault(500)


@pytest.fixture
def double(double: MlflowDouble, tmp_path: Path) -> MlflowDouble:
    double.add("m", *[onnx_adder(tmp_path / "models" / str(n), float(n)) for n in (1, 2, 3)])
    double.add("m", onnx_raises_on_negative(tmp_path / "models" / "4"))
    double.add("other", onnx_adder(tmp_path / "models" / "other", 9.0))
    double.point("m", "1")
    double.point("other", "1")
    return double


async def served_before(home: Path, double: MlflowDouble, *versions: str) -> None:
    """A first life in which the champions were `versions`; it ends with MLflow down."""
    async with station(home, double) as server:
        for version in versions:
            double.point("m", version)
            await server.serves(version)
        await server.serves("1", model="other")
    double.fault = DOWN


def lay(home: Path, not_version: str, answer_with: str | None) -> None:
    """What a crash between the override's fsync and everything after it leaves behind."""
    at = datetime.now(UTC)
    override = Override("o", "m", "champion", not_version, answer_with, "ann", "it fails", at)
    OverrideFile(home / "serving" / "overrides.json").write([override])


def champions_on_disk(home: Path) -> list[str]:
    record = json.loads((home / "serving" / "served.json").read_bytes())["models"]["m"]
    return [champion["version"] for champion in record["champions"]]


def copies(home: Path, model: str, version: str) -> list[Path]:
    return [path for path in (home / "cache" / model).glob(f"{version}-*") if path.is_dir()]


@story
async def test_same_versions_answer_at_once_while_mlflow_is_down(home: Path, double: MlflowDouble) -> None:
    """Ready from the first moment, every alias and the stand-in included."""
    double.point("m", "3", "nightly")
    await served_before(home, double, "1", "2")
    async with station(home, double, poll_seconds=60) as server:
        assert await server.version() == "2"
        assert await server.version(address="nightly") == "3"
        assert await server.version(model="other") == "1"
        assert (await server.http.get("/v2/health/ready")).status_code == 200
        assert (await server.info())["previous"] == "1"
        assert (await server.info())["watched_until"] is not None


@story
async def test_what_was_missed_is_followed_when_mlflow_is_back(home: Path, double: MlflowDouble) -> None:
    """The record is where to begin, the registry what is wanted."""
    await served_before(home, double, "1")
    async with station(home, double) as server:
        double.point("m", "2")
        await server.turns()
        assert await server.version() == "1"
        double.fault = None
        await server.serves("2")
        assert (await server.info())["previous"] == "1"


@pytest.mark.parametrize("is_down", [True, False])
@story
async def test_override_is_honoured_when_the_crash_came_before_the_record(
    home: Path, double: MlflowDouble, is_down: bool
) -> None:
    """The failed version answers nobody, stands in for nobody, and the registry is told."""
    await served_before(home, double, "1", "2", "3")
    lay(home, "3", "2")
    double.fault = DOWN if is_down else None
    async with station(home, double) as server:
        assert await server.version() == "2"
        await server.turns(3)
        assert await server.version() == "2"
        assert (await server.info())["previous"] == "1"
        double.fault = None
        await server.names("2")
        await server.names("1", "previous")
    assert champions_on_disk(home) == ["1", "2", "3"] or champions_on_disk(home) == ["1", "2"]


@story
async def test_override_is_honoured_when_it_was_laid_against_another_wish(
    home: Path, double: MlflowDouble
) -> None:
    """The registry named a refused 9 while 3 answered and failed: 3 must not come back either."""
    await served_before(home, double, "1", "2", "3")
    lay(home, "9", "2")
    async with station(home, double, poll_seconds=60) as server:
        assert await server.version() == "2"


@story
async def test_history_is_in_order_when_the_override_went_further_back(
    home: Path, double: MlflowDouble
) -> None:
    """From 3 to 1: the last good one before is then 2."""
    await served_before(home, double, "1", "2", "3")
    lay(home, "3", "1")
    async with station(home, double, poll_seconds=60) as server:
        assert await server.version() == "1"
        assert (await server.info())["previous"] == "2"


@story
async def test_failed_version_does_not_return_when_a_second_rollback_followed_the_restart(
    home: Path, double: MlflowDouble
) -> None:
    """The registry, never read in this life, still names the first one that failed."""
    await served_before(home, double, "1", "2", "3")
    lay(home, "3", "2")
    async with station(home, double) as server:
        assert (await server.roll_back(strategy="emergency")).json()["to"] == "1"
        assert await server.version() == "1"
        double.fault = None
        await server.names("1")
        assert await server.version() == "1"


@story
async def test_rollback_survives_the_restart(home: Path, double: MlflowDouble) -> None:
    """The next poll still names the bad version; the override holds until the registry is told."""
    async with station(home, double) as server:
        for version in ("1", "2"):
            double.point("m", version)
            await server.serves(version)
        double.fault = DOWN
        await server.roll_back(strategy="emergency")
    async with station(home, double) as server:
        assert await server.version() == "1"
        double.fault = Fault(500, where="registered-models/alias")
        await server.turns(4)
        assert await server.version() == "1"
        assert double.named("m") == "2"
        double.fault = None
        await server.names("1")
        await eventually(
            lambda: not OverrideFile(home / "serving" / "overrides.json").read(), "the override ended"
        )
        assert await server.version() == "1"


@story
async def test_watch_goes_on_after_the_restart(home: Path, double: MlflowDouble) -> None:
    """A restart is no way out of it."""
    await served_before(home, double, "1", "4")
    async with station(home, double) as server:
        for _ in range(5):
            assert (await server.infer(-1.0, 1.0, 1.0)).status_code == 200
        await server.serves("1")


@story
async def test_others_answer_when_one_copy_is_damaged(home: Path, double: MlflowDouble) -> None:
    """The damaged one is fetched again as soon as MLflow answers."""
    await served_before(home, double, "1", "2")
    for copy in copies(home, "m", "2"):
        (copy / "files" / "model.onnx").write_bytes(b"rot")
    async with station(home, double) as server:
        assert await server.version(model="other") == "1"
        assert await server.version() is None
        double.fault = None
        await server.serves("2")


@story
async def test_stand_in_is_loaded_later_when_its_copy_is_gone(home: Path, double: MlflowDouble) -> None:
    """The way back must be warm again as soon as that is possible."""
    await served_before(home, double, "1", "2")
    for copy in copies(home, "m", "1"):
        shutil.rmtree(copy)
    async with station(home, double) as server:
        assert await server.version() == "2"
        double.fault = None

        await stood_in_for_by(server, "1")


@story
async def test_grace_of_an_orphan_is_not_begun_anew(home: Path, double: MlflowDouble) -> None:
    """When the alias was lost is on record."""
    async with station(home, double) as server:
        await server.serves("1")
        double.point("m", None)
        await eventually(lambda: "champion_orphaned" in server.notices(), "the alert")
        double.point("m", "2", "nightly")
        await server.serves("2", address="nightly")
    since = json.loads((home / "serving" / "served.json").read_bytes())["models"]["m"]["orphaned_since"]
    assert since is not None
    async with station(home, double) as server:
        await server.turns()
        assert await server.version() == "1"
        assert server.notices().count("champion_orphaned") == 1


@pytest.mark.parametrize("file", ["served.json", "overrides.json"])
@story
async def test_server_does_not_start_when_a_local_file_is_damaged(
    home: Path, double: MlflowDouble, file: str
) -> None:
    """Starting from nothing could put a failed version back: a person decides."""
    (home / "serving").mkdir()
    (home / "serving" / file).write_bytes(b"{")
    with pytest.raises(StoreUnusable, match="is damaged"):
        async with station(home, double):
            pass


async def both(one: Station, other: Station, version: str) -> None:
    for server in (one, other):
        await server.serves(version)


async def stood_in_for_by(server: Station, version: str) -> None:
    """Wait until `version` is the one that answers in place of a failing champion."""

    async def is_so() -> bool:
        return bool((await server.info())["previous"] == version)

    await eventually(is_so, f"{version} stands in")


@pytest.fixture
def replica(home: Path, tmp_path: Path) -> dict[str, Any]:
    """Settings of a second server on the same store."""
    (tmp_path / "replica").mkdir()
    shutil.copy(home / "admin.key", tmp_path / "replica" / "admin.key")
    return {"home": tmp_path / "replica", "store_url": f"sqlite:///{home / 'signalbox.db'}", "port": 8081}


@pytest.mark.parametrize("fault", [None, DOWN], ids=["mlflow-up", "mlflow-down"])
@story
async def test_rollback_reaches_the_other_replica_as_a_rollback(
    home: Path, double: MlflowDouble, replica: dict[str, Any], fault: Fault | None
) -> None:
    """By the store, or by the registry if that was quicker: the failed version is nobody's stand-in."""
    other_home = replica.pop("home")
    async with station(home, double) as one, station(other_home, double, **replica) as other:
        for version in ("1", "2", "3"):
            double.point("m", version)
            await both(one, other, version)
        double.fault = fault
        assert (await one.roll_back()).status_code == 202
        await both(one, other, "2")
        double.fault = None
        await one.names("2")
        await one.names("1", "previous")
        for server in (one, other):
            await stood_in_for_by(server, "1")
        await other.turns(4)
        assert double.named("m", "previous") == "1"
        assert (await other.info())["watched_until"] is None


@story
async def test_rollback_is_learnt_late_when_the_registry_moved_before_the_store_heard_why(
    home: Path, double: MlflowDouble, replica: dict[str, Any]
) -> None:
    """Until then it looks like a hand's move, and the failed version like a stand-in."""
    other_home = replica.pop("home")
    async with station(home, double) as one, station(other_home, double, **replica) as other:
        for version in ("1", "2", "3"):
            double.point("m", version)
            await both(one, other, version)
        with locked(home):
            assert (await one.roll_back()).status_code == 202
            double.point("m", "2")
            await both(one, other, "2")
            assert (await other.info())["previous"] == "3"
        for server in (one, other):
            await stood_in_for_by(server, "1")
        assert (await other.info())["watched_until"] is None
        await one.names("1", "previous")
        await other.turns(4)
        assert double.named("m", "previous") == "1"


@story
async def test_later_override_of_another_replica_wins(
    home: Path, double: MlflowDouble, replica: dict[str, Any]
) -> None:
    """Two rollbacks while the registry cannot be written: all follow the last, and so does the registry."""
    other_home = replica.pop("home")
    async with station(home, double) as one, station(other_home, double, **replica) as other:
        for version in ("1", "2", "3"):
            double.point("m", version)
            await both(one, other, version)
        double.fault = Fault(500, where="registered-models/alias")
        await one.roll_back(version="2")
        await both(one, other, "2")
        await other.roll_back(version="1")
        await both(one, other, "1")
        await one.turns(4)
        assert await one.version() == "1"
        double.fault = None
        await one.names("1")
        await both(one, other, "1")
