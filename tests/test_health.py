"""`GET model-health`: always 200, from what probes and the follower left behind."""

from pathlib import Path
from typing import Any

import pytest

from serving.core.clock import ManualClock
from tests.mlflow_double import Fault, MlflowDouble
from tests.models import onnx_adder, onnx_raises_on_negative, onnx_wrong_shape
from tests.station import Station, station
from tests.story import eventually, story


@pytest.fixture
def double(double: MlflowDouble, tmp_path: Path) -> MlflowDouble:
    double.add("m", onnx_adder(tmp_path / "models" / "1"), onnx_wrong_shape(tmp_path / "models" / "2"))
    double.add("m", onnx_raises_on_negative(tmp_path / "models" / "3"))
    double.point("m", "1")
    return double


async def health(server: Station, model: str = "m") -> dict[str, Any]:
    answer = await server.http.get("/api/v2/model-health", params={"model": model})
    assert answer.status_code == 200
    [entry] = answer.json()["models"]
    return dict(entry)


async def becomes(server: Station, level: str, status: str) -> dict[str, Any]:
    async def met() -> bool:
        return bool((await health(server))["levels"][level]["status"] == status)

    await eventually(met, f"{level} is {status}")
    return await health(server)


@story
async def test_model_is_healthy_when_its_champion_answers_a_probe(home: Path, double: MlflowDouble) -> None:
    """With all four levels, of which nobody has reported two yet."""
    async with station(home, double, probe_seconds=0.05) as server:
        await server.serves("1")
        entry = await becomes(server, "basic", "healthy")
        assert (entry["model"], entry["version"], entry["alias"]) == ("m", "1", "champion")
        assert entry["status"] == "healthy"
        assert entry["recommendations"] == []
        assert {level: report["status"] for level, report in entry["levels"].items()} == {
            "basic": "healthy",
            "functional": "unknown",
            "operational": "healthy",
            "predictive": "unknown",
        }
        assert "answered a probe in" in entry["levels"]["basic"]["message"]


@story
async def test_level_is_unknown_when_it_is_older_than_three_intervals(
    home: Path, double: MlflowDouble
) -> None:
    """An old verdict says nothing any more."""
    clock = ManualClock()
    async with station(home, double) as server:
        await server.serves("1")
    async with station(home, double, clock=clock, probe_seconds=60) as server:
        await becomes(server, "basic", "healthy")
        clock.advance(180)
        await becomes(server, "basic", "healthy")
        clock.advance(1)
        entry = await becomes(server, "basic", "unknown")
        assert entry["levels"]["basic"]["message"] == "last checked 181 s ago"


@story
async def test_operational_warns_of_a_refused_version_and_says_what_to_do(
    home: Path, double: MlflowDouble
) -> None:
    """The old one answers on, so it is no crisis."""
    async with station(home, double, probe_seconds=0.05) as server:
        await server.serves("1")
        double.point("m", "2")
        entry = await becomes(server, "operational", "warning")
        assert entry["status"] == "warning"
        assert "champion: " in entry["levels"]["operational"]["message"]
        assert "alias champion names version 2, which was refused" in entry["recommendations"][0]


@story
async def test_model_is_critical_when_its_only_version_was_refused(home: Path, double: MlflowDouble) -> None:
    """Nothing answers."""
    double.point("m", "2")
    async with station(home, double, probe_seconds=0.05) as server:
        await server.refuses("2", "self-test")
        entry = await becomes(server, "basic", "critical")
        assert (entry["version"], entry["status"]) == (None, "critical")


@story
async def test_operational_is_critical_while_the_champion_fails(home: Path, double: MlflowDouble) -> None:
    """Callers are answered by previous, but somebody should look."""
    async with station(home, double, rollback_by_hand=False) as server:
        await server.serves("1")
        double.point("m", "3")
        await server.serves("3")
        for _ in range(5):
            await server.infer(-1.0, 1.0, 1.0)
        entry = await becomes(server, "operational", "critical")
        assert "within 10 s failed" in entry["levels"]["operational"]["message"]


@story
async def test_operational_warns_while_the_registry_is_away(home: Path, double: MlflowDouble) -> None:
    """Named as such, and it passes."""
    async with station(home, double) as server:
        await server.serves("1")
        double.fault = Fault(500)
        entry = await becomes(server, "operational", "warning")
        assert "registry_stale" in entry["levels"]["operational"]["message"]
        double.fault = None
        await becomes(server, "operational", "healthy")


@story
async def test_operational_warns_of_an_orphan(home: Path, double: MlflowDouble) -> None:
    """It stops answering soon."""
    async with station(home, double) as server:
        await server.serves("1")
        double.point("m", None)
        entry = await becomes(server, "operational", "warning")
        assert "set alias champion again, or this model stops answering" in entry["recommendations"]


@story
async def test_answer_is_200_and_healthy_when_there_are_no_models(home: Path, double: MlflowDouble) -> None:
    """An empty server is not ill."""
    double.models.clear()
    async with station(home, double) as server:
        answer = await server.http.get("/api/v2/model-health")
        assert (answer.status_code, answer.json()) == (200, {"status": "healthy", "models": []})


@story
async def test_unknown_model_is_404_naming_what_exists(home: Path, double: MlflowDouble) -> None:
    """A registered model without alias is known, though nothing is known of it."""
    double.add("bare", Path("nowhere"))
    async with station(home, double) as server:
        await server.serves("1")
        answer = await server.http.get("/api/v2/model-health", params={"model": "nope"})
        assert answer.status_code == 404
        assert answer.json()["error"] == "model 'nope' is not followed; available: bare, m"
        assert (await health(server, "bare"))["version"] is None


@story
async def test_whole_is_as_bad_as_its_worst_model(home: Path, double: MlflowDouble, tmp_path: Path) -> None:
    """One critical model makes the server critical."""
    double.add("good", onnx_adder(tmp_path / "models" / "good"))
    double.point("good", "1")
    double.point("m", "2")
    async with station(home, double, probe_seconds=0.05) as server:
        await server.serves("1", model="good")
        await becomes(server, "basic", "critical")
        body = (await server.http.get("/api/v2/model-health")).json()
        assert body["status"] == "critical"
        assert [entry["model"] for entry in body["models"]] == ["good", "m"]
