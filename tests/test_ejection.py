"""A challenger that fails on traffic is sent away at once, and stays away whatever restarts or polls."""

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from serving.core.clock import SystemClock
from serving.ejection import ACTOR
from serving.store import changes, overrides
from serving.store.changes import Outcome
from serving.store.leases import Leases
from serving.store.overrides import Override, OverrideFile
from tests.mlflow_double import Fault, MlflowDouble
from tests.models import onnx_adder, onnx_raises_on_negative
from tests.station import ADMIN, Station, station
from tests.story import eventually, story

TAG = "signalbox.traffic"
SPLIT = {"challenger": "2", "percent": 100, "rollout": "r-1"}
NO_DELETES = Fault(500, where="registered-models/delete-tag")


@pytest.fixture
def double(double: MlflowDouble, tmp_path: Path) -> MlflowDouble:
    """Champion 1 and 3 add their number; challenger 2 fails on negative input, and has all the traffic."""
    double.add("m", onnx_adder(tmp_path / "models" / "1", 1.0))
    double.add("m", onnx_raises_on_negative(tmp_path / "models" / "2"))
    double.add("m", onnx_adder(tmp_path / "models" / "3", 3.0))
    double.point("m", "1")
    double.point("m", "2", "challenger")
    double.models["m"].tags[TAG] = json.dumps(SPLIT)
    return double


@dataclass
class Callers:
    """Who asks with input that the challenger cannot take, and what they were told."""

    server: Station
    told: list[tuple[int, str | None, str | None]] = field(default_factory=list)

    async def ask(self, count: int = 1, x: float = -1.0) -> None:
        for _ in range(count):
            answer = await self.server.infer(x, x, x)
            headers = answer.headers
            self.told.append(
                (answer.status_code, headers.get("x-model-version"), headers.get("x-model-variant"))
            )

    async def until_ejected(self) -> None:
        async def gone() -> bool:
            await self.ask()
            return self.told[-1] == (200, "1", "champion")

        await eventually(gone, "the challenger is gone")


async def divided(server: Station) -> Callers:
    async def met() -> bool:
        answer = await server.infer(1.0, 1.0, 1.0)
        return bool(answer.headers.get("x-model-variant") == "challenger")

    await eventually(met, "the challenger answers")
    return Callers(server)


async def answers(server: Station, version: str) -> bool:
    return bool((await server.infer()).headers.get("x-model-version") == version)


def failed_writes(server: Station) -> int:
    """Tries to delete the tag that the registry did not take."""
    rows = changes.recent(server.engine, "m")
    return sum(row.alias == TAG and row.outcome is Outcome.FAILED for row in rows)


def laid(home: Path) -> list[tuple[str, str, str | None]]:
    file = home / "serving" / "overrides.json"
    entries = json.loads(file.read_text())["overrides"] if file.exists() else []
    return [(entry["role"], entry["not_version"], entry["answer_with"]) for entry in entries]


@story
async def test_failing_challenger_is_ejected_without_a_failed_caller(
    home: Path, double: MlflowDouble
) -> None:
    """Five answers decide; alias and tag go from the registry, told, audited and counted once."""
    async with station(home, double) as server:
        callers = await divided(server)
        await callers.until_ejected()
        assert set(callers.told) == {(200, "1", "fallback"), (200, "1", "champion")}
        assert sum(variant == "fallback" for _, _, variant in callers.told) >= 4
        await server.names(None, "challenger")
        assert TAG not in double.models["m"].tags
        await eventually(lambda: laid(home) == [], "the override ends with the alias")
        [row] = await server.audit("eject")
        assert (row["version"], row["details"]["rollout"], row["details"]["percent"]) == ("2", "r-1", 100)
        steps = {row["details"]["step"] for row in await server.audit("traffic")}
        assert steps == {"applied", "intent", "outcome"}
        assert server.notices().count("challenger_ejected") == 1
        metrics = (await server.http.get("/metrics")).text
        assert 'signalbox_ejections_total{model="m"} 1.0' in metrics
        assert 'signalbox_traffic_percent{model="m"} 0.0' in metrics


@story
async def test_ejection_holds_over_polls_and_a_restart_while_the_registry_cannot_be_written(
    home: Path, double: MlflowDouble
) -> None:
    """Each poll still names it; nobody meets it. Then the registry is put right."""
    async with station(home, double) as server:
        callers = await divided(server)
        double.fault = NO_DELETES
        await callers.until_ejected()
        await server.turns(4)
        assert laid(home) == [("challenger", "2", None)]
        assert await answers(server, "1")
        assert double.named("m", "challenger") == "2"
    double.fault = Fault(500)
    async with station(home, double) as server:
        assert await answers(server, "1")
        double.fault = None
        await server.names(None, "challenger")
        assert TAG not in double.models["m"].tags
        await eventually(lambda: laid(home) == [], "the override ends")


@story
async def test_ejection_holds_when_the_server_died_between_the_override_and_the_swap(
    home: Path, double: MlflowDouble
) -> None:
    """The record still has the challenger and its split; the override is laid over both."""
    async with station(home, double) as server:
        await divided(server)
    assert (
        json.loads((home / "serving" / "served.json").read_text())["models"]["m"]["split"]["percent"] == 100
    )
    ejected = Override("o", "m", "challenger", "2", None, ACTOR, "it fails", SystemClock().now())
    OverrideFile(home / "serving" / "overrides.json").write([ejected])
    double.fault = Fault(500)
    async with station(home, double) as server:
        assert await answers(server, "1")
        assert (await server.info())["traffic"]["served"] is None
        double.fault = None
        await server.names(None, "challenger")
        assert TAG not in double.models["m"].tags


@story
async def test_ejection_reaches_the_other_replica(home: Path, double: MlflowDouble, tmp_path: Path) -> None:
    """Through the store, while the registry still names the challenger."""
    other_home = tmp_path / "replica"
    other_home.mkdir()
    shutil.copy(home / "admin.key", other_home / "admin.key")
    shared: dict[str, Any] = {"store_url": f"sqlite:///{home / 'signalbox.db'}", "port": 8081}
    async with station(home, double) as server, station(other_home, double, **shared) as other:
        callers = await divided(server)
        await divided(other)
        double.fault = NO_DELETES
        await callers.until_ejected()
        await eventually(lambda: answers(other, "1"), "the other replica follows")
        assert len(overrides.active(server.engine)) == 1
        double.fault = None
        await server.names(None, "challenger")


@story
async def test_ejection_ends_when_the_alias_names_another_version(home: Path, double: MlflowDouble) -> None:
    """A hand chose otherwise before the registry could be told; that choice is followed and kept."""
    async with station(home, double) as server:
        callers = await divided(server)
        double.fault = NO_DELETES
        await callers.until_ejected()
        await eventually(lambda: failed_writes(server), "a first try on record")
        double.point("m", "3", "challenger")
        double.models["m"].tags[TAG] = json.dumps(SPLIT | {"challenger": "3"})
        double.fault = None
        await eventually(lambda: answers(server, "3"), "version 3 is the challenger")
        await server.turns(3)
        assert double.named("m", "challenger") == "3"
        assert TAG in double.models["m"].tags
        assert laid(home) == []


@story
async def test_ejection_pre_empts_whoever_holds_the_lease(home: Path, double: MlflowDouble) -> None:
    """A rollout under way does not keep a failing challenger in the registry."""
    async with station(home, double) as server:
        callers = await divided(server)
        Leases(server.engine, SystemClock()).acquire("model:m", "flow:promote")
        await callers.until_ejected()
        await server.names(None, "challenger")


@story
async def test_split_cannot_be_asked_for_while_its_challenger_is_ejected(
    home: Path, double: MlflowDouble
) -> None:
    """The sentence says why and what to do."""
    async with station(home, double) as server:
        callers = await divided(server)
        double.fault = NO_DELETES
        await callers.until_ejected()
        answer = await server.http.put("/api/v2/traffic/m", json={"percent": 5}, headers=ADMIN)
        assert answer.status_code == 409
        assert "was ejected" in answer.json()["error"]


@story
async def test_input_that_the_champion_cannot_take_either_ejects_nobody(
    home: Path, double: MlflowDouble, tmp_path: Path
) -> None:
    """Not even twenty of them."""
    double.models["m"].versions["1"].source = onnx_raises_on_negative(tmp_path / "models" / "4")
    async with station(home, double) as server:
        callers = await divided(server)
        await callers.ask(20)
        assert {status for status, _, _ in callers.told} == {500}
        await callers.ask(1, x=1.0)
        assert callers.told[-1] == (200, "2", "challenger")


@story
async def test_challenger_is_left_where_it_is_when_the_override_cannot_be_written(
    home: Path, double: MlflowDouble
) -> None:
    """Callers are answered by the champion all the same; the ejection is tried again with every failure."""
    async with station(home, double) as server:
        callers = await divided(server)
        file = home / "serving" / "overrides.json"
        file.unlink(missing_ok=True)
        file.mkdir()
        await callers.ask(10)
        assert set(callers.told) == {(200, "1", "fallback")}
        file.rmdir()
        await callers.until_ejected()
