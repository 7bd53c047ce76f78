"""Loading and unloading by hand: what aliases want stays, everything else comes and goes by number."""

from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest

from tests.mlflow_double import MlflowDouble
from tests.models import onnx_adder, onnx_wrong_shape
from tests.station import ADMIN, Station, station
from tests.story import eventually, story


@pytest.fixture
def double(double: MlflowDouble, tmp_path: Path) -> MlflowDouble:
    double.add("m", *[onnx_adder(tmp_path / "models" / str(n), float(n)) for n in (1, 2, 3)])
    double.add("m", onnx_wrong_shape(tmp_path / "models" / "4"))
    double.add("idle", *[onnx_adder(tmp_path / "models" / f"idle-{n}", float(n)) for n in (1, 2)])
    double.point("m", "2")
    return double


async def ask(
    server: Station,
    call: str,
    model: str = "m",
    version: str | None = None,
    parameters: Mapping[str, object] | None = None,
) -> httpx.Response:
    """`call` is load or unload, by the admin; 200 comes without a body."""
    place = f"/versions/{version}" if version is not None else ""
    body = {"parameters": dict(parameters)} if parameters else {}
    path = f"/v2/repository/models/{model}{place}/{call}"
    return await server.http.post(path, json=body, headers=ADMIN)


async def index(server: Station) -> list[tuple[str, str]]:
    answer = await server.http.post("/v2/repository/index", json={"ready": True})
    return [(entry["name"], entry["version"]) for entry in answer.json()]


@pytest.mark.parametrize("parameters", [{"version": "3"}, {"version": 3}, {}])
@story
async def test_version_without_alias_answers_when_it_was_loaded_until_it_is_unloaded(
    home: Path, double: MlflowDouble, parameters: Mapping[str, object]
) -> None:
    """By number only; the champion is not touched. Number in the path or among the parameters."""
    number = None if parameters else "3"
    async with station(home, double) as server:
        await server.serves("2")
        answer = await ask(server, "load", version=number, parameters=parameters)
        assert (answer.status_code, answer.content) == (200, b"")
        assert await server.version(address="3") == "3"
        assert await server.version() == "2"
        assert await index(server) == [("m", "2"), ("m", "3")]
        await server.turns()
        assert await server.version(address="3") == "3"
        assert (await ask(server, "unload", version=number, parameters=parameters)).status_code == 200
        assert await server.version(address="3") is None
        assert await server.version() == "2"
        await eventually(lambda: audited(server, "unload", "3"), "the version is released")
        assert [row["actor"] for row in await server.audit("repository_load")] == ["admin"]
        assert [row["actor"] for row in await server.audit("repository_unload")] == ["admin"]


async def audited(server: Station, action: str, version: str) -> bool:
    return any(row["version"] == version for row in await server.audit(action))


@story
async def test_newest_version_is_loaded_when_the_model_has_no_alias(home: Path, double: MlflowDouble) -> None:
    """And a whole model without aliases may be unloaded."""
    async with station(home, double) as server:
        await server.serves("2")
        assert (await ask(server, "load", "idle")).status_code == 200
        assert await server.version(model="idle", address="2") == "2"
        assert (await ask(server, "load", "idle", "1")).status_code == 200
        assert await index(server) == [("idle", "1"), ("idle", "2"), ("m", "2")]
        assert (await ask(server, "unload", "idle")).status_code == 200
        assert await index(server) == [("m", "2")]


@story
async def test_loaded_version_answers_again_after_a_restart(home: Path, double: MlflowDouble) -> None:
    """Without asking anybody; and is gone with its model."""
    async with station(home, double) as server:
        await server.serves("2")
        assert (await ask(server, "load", "idle", "1")).status_code == 200
    async with station(home, double) as server:
        assert await server.version(model="idle", address="1") == "1"
        del double.models["idle"]

        async def is_gone() -> bool:
            return await server.version(model="idle", address="1") is None

        await eventually(is_gone, "the deleted model is no longer served")


@pytest.mark.parametrize("version", [None, "2"])
@story
async def test_unload_is_refused_when_an_alias_names_the_version(
    home: Path, double: MlflowDouble, version: str | None
) -> None:
    """Aliases are the wanted state: 409 says which one, and where to change it."""
    async with station(home, double) as server:
        await server.serves("2")
        answer = await ask(server, "unload", version=version)
        assert answer.status_code == 409
        assert "champion names version 2" in answer.json()["error"]
        assert "MLflow" in answer.json()["error"]
        assert await server.version() == "2"


@story
async def test_load_of_a_model_follows_its_aliases_at_once(home: Path, double: MlflowDouble) -> None:
    """Without waiting for the next poll; what is served already is left as it is."""
    async with station(home, double, poll_seconds=30) as server:
        await server.serves("2")
        assert (await ask(server, "load")).status_code == 200
        double.point("m", "3")
        assert (await ask(server, "load")).status_code == 200
        assert await server.version() == "3"


@story
async def test_load_says_why_when_what_an_alias_names_is_refused(home: Path, double: MlflowDouble) -> None:
    """422, by alias and by number; the old version answers on."""
    async with station(home, double) as server:
        await server.serves("2")
        double.point("m", "4", "challenger")
        for version in (None, "4"):
            answer = await ask(server, "load", version=version)
            assert answer.status_code == 422
            assert "self-test" in answer.json()["error"]
        assert await server.version() == "2"


@pytest.mark.parametrize(
    ("call", "model", "version", "parameters", "status", "problem"),
    [
        ("load", "nope", None, {}, 404, "nope"),
        ("load", "m", "9", {}, 404, "9"),
        ("unload", "nope", None, {}, 404, "available: m"),
        ("unload", "m", "3", {}, 404, "version 3 of 'm' is not loaded"),
        ("load", "m", None, {"config": "{}"}, 400, "'config' is refused"),
        ("load", "m", None, {"config": "{}", "file:1/m.onnx": "eA=="}, 400, "is refused"),
        ("load", "m", None, {"file:1/m.onnx": "eA=="}, 400, "'file:1/m.onnx' is refused"),
        ("load", "m", None, {"color": "red"}, 400, "'color' is not known"),
        ("load", "m", "champion", {}, 400, "not a version number"),
        ("load", "m", None, {"version": 1.5}, 400, "not a version number"),
        ("load", "m", "1", {"version": "2"}, 400, "the path names version 1"),
        ("unload", "m", None, {"unload_dependents": True}, 409, "aliases"),
    ],
)
@story
async def test_call_is_refused_when_it_asks_for_what_is_not_there(
    home: Path,
    double: MlflowDouble,
    call: str,
    model: str,
    version: str | None,
    parameters: dict[str, object],
    status: int,
    problem: str,
) -> None:
    """In one sentence; nothing changes."""
    async with station(home, double) as server:
        await server.serves("2")
        answer = await ask(server, call, model, version, parameters)
        assert answer.status_code == status
        assert problem in answer.json()["error"]
        assert await index(server) == [("m", "2")]


@pytest.mark.parametrize("content", [b"{", b"[]", b"7", b'{"parameters": []}', b"\xff"])
@story
async def test_call_is_refused_when_its_body_is_no_such_object(
    home: Path, double: MlflowDouble, content: bytes
) -> None:
    """400, not 500."""
    async with station(home, double) as server:
        answer = await server.http.post("/v2/repository/models/m/load", content=content, headers=ADMIN)
        assert answer.status_code == 400
        assert "the body must be empty or" in answer.json()["error"]


@story
async def test_model_outside_of_the_settings_is_not_loaded(home: Path, double: MlflowDouble) -> None:
    """Its name is no way around them."""
    async with station(home, double, models="m") as server:
        answer = await ask(server, "load", "idle", "1")
        assert answer.status_code == 404
        assert "SIGNALBOX_MODELS" in answer.json()["error"]


@story
async def test_load_is_503_when_the_registry_is_away(home: Path, double: MlflowDouble) -> None:
    """What is served stays."""
    from tests.mlflow_double import Fault

    async with station(home, double) as server:
        await server.serves("2")
        double.fault = Fault(500)
        assert (await ask(server, "load", version="3")).status_code == 503
        assert await server.version() == "2"


@pytest.mark.parametrize("call", ["load", "unload"])
@story
async def test_changes_need_the_admin_key(home: Path, double: MlflowDouble, call: str) -> None:
    """Also for a name that looks like another call."""
    async with station(home, double) as server:
        for path in (f"models/m/{call}", f"models/m/versions/3/{call}", f"models/index/{call}"):
            assert (await server.http.post(f"/v2/repository/{path}")).status_code == 401
