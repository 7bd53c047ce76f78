"""Whether this server should get traffic, and what it waits for."""

from pathlib import Path
from typing import Any

import pytest

from tests.mlflow_double import Fault, MlflowDouble
from tests.models import onnx_adder, onnx_wrong_shape
from tests.station import Station, station
from tests.story import eventually, story


@pytest.fixture
def double(double: MlflowDouble, tmp_path: Path) -> MlflowDouble:
    double.add("m", onnx_adder(tmp_path / "models" / "1"), onnx_wrong_shape(tmp_path / "models" / "2"))
    double.point("m", "1")
    return double


async def ready(server: Station) -> tuple[int, dict[str, Any]]:
    answer = await server.http.get("/v2/health/ready")
    return answer.status_code, answer.json()


@story
async def test_server_waits_for_the_registry_when_it_never_read_it(home: Path, double: MlflowDouble) -> None:
    """And says what is wrong with it; it is alive all the same."""
    double.fault = Fault(500)
    async with station(home, double) as server:
        await server.turns()
        status, body = await ready(server)
        assert (status, body["ready"]) == (503, False)
        assert "the registry: MLflow at" in body["waiting_for"][0]
        assert (await server.http.get("/v2/health/live")).json() == {"live": True}
        double.fault = None
        await server.becomes_ready()


@story
async def test_server_is_ready_only_when_every_champion_answers(home: Path, double: MlflowDouble) -> None:
    """Not for a moment before: whoever is sent here is answered."""
    async with station(home, double) as server:

        async def is_ready() -> bool:
            status, body = await ready(server)
            if status == 503:
                waits = ("the registry", "champion of m to load", "this worker's first report")
                assert body["waiting_for"][0].startswith(waits)
            return status == 200

        await eventually(is_ready, "ready")
        assert await server.version() == "1"


@story
async def test_server_is_ready_when_nothing_is_registered(home: Path, double: MlflowDouble) -> None:
    """An empty registry that was read is a state."""
    double.models.clear()
    async with station(home, double) as server:
        await server.becomes_ready()


@pytest.mark.parametrize("alias", ["champion", "challenger"])
@story
async def test_server_is_ready_when_a_version_was_refused(
    home: Path, double: MlflowDouble, alias: str
) -> None:
    """One bad version must not keep the other models from their traffic."""
    double.point("m", "2", alias)
    async with station(home, double) as server:
        await server.becomes_ready()


@story
async def test_server_stays_ready_whatever_comes_later(home: Path, double: MlflowDouble) -> None:
    """A background load or an outage of the registry never takes it back."""
    async with station(home, double) as server:
        await server.becomes_ready()
        double.fault = Fault(500)
        await server.turns()
        assert (await ready(server))[0] == 200
        double.fault = None
        double.add("new", Path("nowhere"))
        double.point("new", "1")
        await server.turns()
        assert (await ready(server))[0] == 200


@story
async def test_server_is_not_ready_when_it_drains(home: Path, double: MlflowDouble) -> None:
    """Not-ready first, while what was accepted is still answered."""
    async with station(home, double) as server:
        await server.becomes_ready()
        server.server.readiness.is_draining = True
        assert await ready(server) == (
            503,
            {"live": True, "ready": False, "waiting_for": ["the server is shutting down"]},
        )
        assert await server.version() == "1"
