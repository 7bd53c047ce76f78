"""`GET model-info`: wanted and served apart, and what is known of each version."""

from pathlib import Path

import pytest

from serving.core.clock import ManualClock
from tests.mlflow_double import Fault, MlflowDouble
from tests.models import onnx_adder
from tests.station import station
from tests.story import eventually, story


@pytest.fixture
def double(double: MlflowDouble, tmp_path: Path) -> MlflowDouble:
    double.add("m", *[onnx_adder(tmp_path / "models" / str(n), float(n)) for n in (1, 2, 3)])
    model = double.models["m"]
    model.tags = {"signalbox.model_type": "classifier", "signalbox.owner": "ann"}
    model.versions["2"].tags = {"signalbox.architecture": "adder", "signalbox.author": "bob"}
    model.versions["2"].run_id = "r"
    double.runs["r"] = {
        "data": {
            "metrics": [{"key": "accuracy", "value": 0.9}],
            "params": [{"key": "epochs", "value": "3"}],
        },
        "inputs": {"dataset_inputs": [{"dataset": {"name": "digits"}}]},
    }
    double.add("bare", tmp_path / "models" / "1")
    double.point("m", "1")
    return double


@story
async def test_info_tells_all_that_is_known(home: Path, double: MlflowDouble) -> None:
    """Of the model, and of every version, loaded or not."""
    async with station(home, double) as server:
        await server.serves("1")
        double.point("m", "2")
        await server.serves("2")
        await eventually(lambda: len(server.changes()) == 2, "both moves on record")
        entry = await server.info()
        assert (entry["name"], entry["type"], entry["owner"]) == ("m", "classifier", "ann")
        assert entry["aliases"]["champion"] == {"wanted": "2", "served": "2", "reason": None}
        assert entry["previous"] == "1"
        one, two, three = entry["versions"]
        assert (one["is_active"], two["is_active"], three["is_active"]) == (False, True, False)
        assert (one["loaded"], two["loaded"], three["loaded"]) == (True, True, False)
        assert two["training_metrics"] == {"accuracy": 0.9}
        assert two["training_params"] == {"epochs": "3"}
        assert (two["training_dataset"], two["architecture"], two["author"]) == ("digits", "adder", "bob")
        assert (two["format"], len(two["digest"])) == ("onnx", 64)
        assert two["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}]
        assert (two["self_test"]["verdict"], two["self_test"]["basis"]) == ("passed", "zeros")
        assert three["inputs"] is None
        newest = entry["history"][0]
        assert (newest["alias"], newest["by_hand"]) in (("champion", True), ("previous", False))


@story
async def test_info_answers_from_memory_while_the_registry_is_away(home: Path, double: MlflowDouble) -> None:
    """It says so, keeps what it knew, and does not wait for a time-out per model."""
    clock = ManualClock()
    async with station(home, double, clock=clock) as server:
        await server.serves("1")
        known = await server.info()
        double.fault = Fault(500)
        clock.advance(60)

        await server.turns(3)
        asked = [call for call in double.seen if "model-versions/search" in call]
        entry = await server.info()
        assert entry["registry_stale"]
        assert [v["version"] for v in entry["versions"]] == [v["version"] for v in known["versions"]]
        assert [call for call in double.seen if "model-versions/search" in call] == asked


@story
async def test_info_can_be_narrowed(home: Path, double: MlflowDouble) -> None:
    """By model, type and what is active."""
    async with station(home, double) as server:
        await server.serves("1")

        async def names(**params: str) -> list[tuple[str, list[str]]]:
            body = (await server.http.get("/api/v2/model-info", params=params)).json()
            return [(e["name"], [v["version"] for v in e["versions"]]) for e in body["models"]]

        assert await names() == [("bare", ["1"]), ("m", ["1", "2", "3"])]
        assert await names(model="bare") == [("bare", ["1"])]
        assert await names(type="classifier") == [("m", ["1", "2", "3"])]
        assert await names(type="router") == []
        assert await names(model="m", active="true") == [("m", ["1"])]
        assert await names(model="m", active="false") == [("m", ["2", "3"])]


@story
async def test_info_is_404_naming_what_exists_when_the_model_is_unknown(
    home: Path, double: MlflowDouble
) -> None:
    """And 400 for a question that is none."""
    async with station(home, double) as server:
        await server.serves("1")
        answer = await server.http.get("/api/v2/model-info", params={"model": "nope"})
        assert answer.status_code == 404
        assert "available: bare, m" in answer.json()["error"]
        assert (await server.http.get("/api/v2/model-info", params={"active": "maybe"})).status_code == 400
