"""`GET` and `PUT /api/v2/traffic/{model}`: what requests meet, and every way a wish can end."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.core.clock import SystemClock
from serving.store import rollouts, workers
from serving.store.leases import Leases
from serving.store.rollouts import Request, State
from serving.store.workers import Beat, WorkerModel
from tests.mlflow_double import Fault, MlflowDouble
from tests.models import onnx_adder, onnx_wrong_shape
from tests.station import ADMIN, Station, station
from tests.story import story

TAG = "signalbox.traffic"


@pytest.fixture
def double(double: MlflowDouble, tmp_path: Path) -> MlflowDouble:
    """Champion 1, challenger 2; version 4 is refused."""
    double.add("m", *[onnx_adder(tmp_path / "models" / str(n), float(n)) for n in (1, 2, 3)])
    double.add("m", onnx_wrong_shape(tmp_path / "models" / "bad"))
    double.point("m", "1")
    double.point("m", "2", "challenger")
    return double


async def put(server: Station, model: str = "m", **wish: object) -> httpx.Response:
    return await server.http.put(f"/api/v2/traffic/{model}", json=wish, headers=ADMIN)


async def state(server: Station, model: str = "m") -> dict[str, Any]:
    told: dict[str, Any] = (await server.http.get(f"/api/v2/traffic/{model}", headers=ADMIN)).json()
    return told


def split(percent: int, challenger: str | None = "2", rollout: str | None = None) -> dict[str, Any]:
    return {"model": "m", "champion": "1", "challenger": challenger, "percent": percent, "rollout": rollout}


@story
async def test_split_is_met_when_the_change_is_answered(home: Path, double: MlflowDouble) -> None:
    """Written to the registry as an intended change of the key that asked."""
    async with station(home, double) as server:
        await server.serves("2", address="challenger")
        assert await state(server) == split(0)
        answer = await put(server, percent=100)
        assert (answer.status_code, answer.json()) == (200, split(100))
        assert await server.version() == "2"
        assert json.loads(double.models["m"].tags[TAG]) == {
            "challenger": "2",
            "percent": 100,
            "rollout": None,
        }
        answer = await put(server, percent=0, challenger=2)
        assert (answer.status_code, answer.json()) == (200, split(0))
        assert await server.version() == "1"
        assert await state(server) == split(0)
        rows = [row for row in await server.audit("traffic") if row["details"]["step"] == "intent"]
        assert [row["actor"] for row in rows] == ["admin", "admin"]


@story
async def test_same_split_again_changes_nothing(home: Path, double: MlflowDouble) -> None:
    async with station(home, double) as server:
        await server.serves("2", address="challenger")
        for _ in range(2):
            assert (await put(server, percent=50)).json() == split(50)
        steps = [row["details"]["step"] for row in await server.audit("traffic")]
        assert sorted(steps) == ["applied", "intent", "outcome"]


@story
async def test_share_of_copies_that_the_tag_asked_for_stays(home: Path, double: MlflowDouble) -> None:
    """A person moves the split, not what is compared."""
    double.models["m"].tags[TAG] = '{"challenger": "2", "percent": 5, "compare_percent": 50}'
    async with station(home, double) as server:
        await server.serves("2", address="challenger")
        await put(server, percent=10)
        assert json.loads(double.models["m"].tags[TAG])["compare_percent"] == 50


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"{", "not JSON"),
        (b"[]", "must be an object"),
        (b"{}", "'percent' must be a whole number from 0 to 100"),
        (b'{"percent": 101}', "'percent'"),
        (b'{"percent": -1}', "'percent'"),
        (b'{"percent": 2.5}', "'percent'"),
        (b'{"percent": "25"}', "'percent'"),
        (b'{"percent": true}', "'percent'"),
        (b'{"percent": 5, "challenger": "two"}', "'challenger' must be a version number"),
        (b'{"percent": 5, "challenger": []}', "'challenger'"),
        (b'{"percent": 5, "rollout": "x"}', "'rollout' is not known here"),
    ],
)
@story
async def test_wish_is_refused_when_it_cannot_be_understood(
    home: Path, double: MlflowDouble, body: bytes, problem: str
) -> None:
    async with station(home, double) as server:
        await server.serves("1")
        answer = await server.http.put("/api/v2/traffic/m", content=body, headers=ADMIN)
        assert answer.status_code == 400
        assert problem in answer.json()["error"]


@story
async def test_model_must_be_followed(home: Path, double: MlflowDouble) -> None:
    async with station(home, double) as server:
        await server.serves("1")
        for answer in (
            await put(server, "nope", percent=5),
            await server.http.get("/api/v2/traffic/nope", headers=ADMIN),
        ):
            assert answer.status_code == 404
            assert "model 'nope' is not followed; available: m" in answer.json()["error"]


@story
async def test_keys_are_asked_for(home: Path, double: MlflowDouble) -> None:
    """Reading needs one, changing an admin's."""
    async with station(home, double) as server:
        assert (await server.http.get("/api/v2/traffic/m")).status_code == 401
        assert (await server.http.put("/api/v2/traffic/m", json={"percent": 5})).status_code == 401


@pytest.mark.parametrize(
    ("aliases", "wish", "problem"),
    [
        pytest.param({"challenger": None}, {"percent": 5}, "names no version: set it first", id="nobody"),
        pytest.param({}, {"percent": 5, "challenger": "3"}, "names version 2, not 3", id="another"),
        pytest.param({"challenger": "1"}, {"percent": 5}, "is the champion already", id="same"),
        pytest.param({"champion": None}, {"percent": 5}, "has no champion beside it", id="no-champion"),
    ],
)
@story
async def test_split_is_refused_when_there_is_nothing_to_split(
    home: Path, double: MlflowDouble, aliases: dict[str, str | None], wish: dict[str, object], problem: str
) -> None:
    """Nothing is written."""
    async with station(home, double) as server:
        await server.serves("1")
        for alias, version in aliases.items():
            double.point("m", version, alias)
        answer = await server.http.put("/api/v2/traffic/m", json=wish, headers=ADMIN)
        assert answer.status_code == 409
        assert problem in answer.json()["error"]
        assert TAG not in double.models["m"].tags


@story
async def test_split_is_the_open_rollouts_until_it_ends(home: Path, double: MlflowDouble) -> None:
    """The refusal names it; what a rollout that ended left behind is overwritten."""
    async with station(home, double) as server:
        await server.serves("2", address="challenger")
        now = datetime.now(UTC)
        asked = Request(model="m", version="2", strategy="staged", requested_by="ann")
        rollout = rollouts.enter(server.engine, asked, now, now).rollout
        double.models["m"].tags[TAG] = json.dumps({"challenger": "2", "percent": 5, "rollout": rollout.id})
        answer = await put(server, percent=50)
        assert answer.status_code == 409
        assert f"rollout {rollout.id} of version 2, asked for by ann, owns" in answer.json()["error"]
        rollouts.finish(server.engine, rollout, State.FAILED, "gone", "test", now, None)
        assert (await put(server, percent=50)).json() == split(50)


@story
async def test_split_is_refused_naming_the_holder_while_the_model_is_being_changed(
    home: Path, double: MlflowDouble
) -> None:
    async with station(home, double) as server:
        await server.serves("2", address="challenger")
        await server.turns(2)
        Leases(server.engine, SystemClock()).preempt("model:m", "flow:promote")
        answer = await put(server, percent=5)
        assert answer.status_code == 409
        assert "is being changed by flow:promote" in answer.json()["error"]


@pytest.mark.parametrize("where", ["registered-models/get", "set-tag"])
@story
async def test_change_says_so_when_the_registry_does_not_take_it(
    home: Path, double: MlflowDouble, where: str
) -> None:
    """503, and requests meet what they met."""
    async with station(home, double) as server:
        await server.serves("2", address="challenger")
        double.fault = Fault(500, where=where)
        answer = await put(server, percent=100)
        assert answer.status_code == 503
        assert await server.version() == "1"


@pytest.mark.parametrize(("percent", "status"), [(50, 200), (5, 202)])
@story
async def test_change_is_done_when_every_worker_reports_it(
    home: Path, double: MlflowDouble, percent: int, status: int
) -> None:
    """A replica that lags is waited for, and the answer says so where that is in vain."""
    async with station(home, double) as server:
        await server.serves("2", address="challenger")
        lags = WorkerModel("1", None, {}, challenger="2", percent=percent)
        ahead = datetime.now(UTC) + timedelta(seconds=30)  # a beat that stays young
        workers.beat(server.engine, Beat("other", "http://x", ahead, ahead, {"m": lags}))
        answer = await put(server, percent=50)
        assert (answer.status_code, answer.json()) == (status, split(50))
        assert await state(server) == split(50)


@story
async def test_change_is_accepted_only_when_requests_do_not_meet_it_yet(
    home: Path, double: MlflowDouble
) -> None:
    """202 with what was asked for: the challenger is not served here."""
    double.point("m", "4", "challenger")
    async with station(home, double) as server:
        await server.refuses("4", "failed its self-test", "challenger")
        answer = await put(server, percent=25)
        assert (answer.status_code, answer.json()) == (202, split(25, "4"))
        assert await state(server) == split(0, None)
