"""`GET model-info`: wanted and served apart, and what is known of each version."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from serving.core.clock import ManualClock
from serving.store import reports
from tests.mlflow_double import Fault, MlflowDouble
from tests.models import onnx_adder, onnx_raises_on_negative
from tests.station import Station, station
from tests.story import eventually, story

MEASURED_AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


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


def keep(
    server: Station, kind: str, body: Mapping[str, Any], version: str, *, verdict: str = "passed"
) -> None:
    """A report as the flows leave it in the store."""
    reports.save(
        server.engine,
        reports.Report(
            id=f"{kind}-{version}",
            kind=kind,
            model="m",
            version=version,
            verdict=verdict,
            created_at=MEASURED_AT,
            body=body,
        ),
    )


def description(**different: Any) -> dict[str, Any]:
    tensor = {"name": "x", "datatype": "FP32", "shape": ["batch", 3]}
    body = {
        "format": "onnx",
        "architecture": "1 layer: Add 1; 1 parameters",
        "size_bytes": 150,
        "parameter_count": 1,
        "layer_count": 1,
        "operators": {"Add": 1},
        "inputs": [tensor],
        "outputs": [tensor | {"name": "y"}],
        "runtimes": {"onnxruntime": ">=1.15", "iOS": ">=15"},
        "told": {"author": "Ann", "licence": "MIT", "labels": ["a", "b"], "metrics": {"loss": 0.2}},
    }
    return body | different


@story
async def test_info_tells_statistics_when_reports_are_in_the_store(home: Path, double: MlflowDouble) -> None:
    """Of the newest benchmark and validation; what nobody measured is null."""
    async with station(home, double) as server:
        await server.serves("1")
        latency = {"mean": 2.0, "p50": 1.5, "p90": 3.0, "p95": 4.0, "p99": 6.0, "p999": 9.0}
        measured = {"latency_ms": latency, "throughput_per_second": 800.0, "cpu_ratio": 0.8}
        keep(server, "benchmark", measured | {"memory_mb": {"load": 20.0, "resident": 31.5}}, "1")
        scores = {"accuracy": 0.97, "precision": 0.96, "recall": 0.95, "f1": 0.955}
        keep(server, "validation", {"checks": [{"name": "accuracy", "evidence": scores}]}, "1")
        one, two, _ = (await server.info())["versions"]
        told = one["statistics"]
        assert {name: told[name] for name in scores} == scores
        assert told["mean_latency_ms"] == 2.0
        assert told["latency_quantiles_ms"] == {n: v for n, v in latency.items() if n != "mean"}
        assert (told["throughput"], told["cpu"], one["memory_mb"]) == (800.0, 0.8, 31.5)
        assert told["last_benchmark"] == MEASURED_AT.isoformat()
        assert two["memory_mb"] is None
        assert {value for value in two["statistics"].values() if value != 0} == {None}


@story
async def test_info_tells_the_description_when_one_is_on_record(home: Path, double: MlflowDouble) -> None:
    """Also of a version that is not loaded; what the registry says goes first."""
    async with station(home, double) as server:
        await server.serves("1")
        keep(server, "description", description(), "2")
        keep(server, "description", description(told={"dependencies": ["torch==2.13"]}), "3")
        one, two, three = (await server.info())["versions"]
        assert (two["architecture"], two["author"]) == ("adder", "bob")
        assert three["architecture"] == "1 layer: Add 1; 1 parameters"
        assert (three["format"], three["size_bytes"], three["parameter_count"]) == ("onnx", 150, 1)
        assert two["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}]
        assert (two["licence"], two["labels"]) == ("MIT", ["a", "b"])
        assert two["training_metrics"] == {"loss": 0.2, "accuracy": 0.9}
        assert two["dependencies"] == ["onnxruntime>=1.15"]
        assert three["dependencies"] == ["torch==2.13"]
        # What is loaded but not described is measured on the spot.
        assert one["size_bytes"] == sum(
            f.stat().st_size for f in double.local("m/1/model.onnx").parent.iterdir()
        )
        assert (one["dependencies"], one["operators"]) == (None, None)


@story
async def test_info_tells_what_changed_since_the_version_before(home: Path, double: MlflowDouble) -> None:
    """Every known area; what is known of one side only is named as unknown."""
    async with station(home, double) as server:
        await server.serves("1")
        keep(server, "description", description(), "1")
        keep(server, "description", description(size_bytes=300, operators={"Add": 1, "Mul": 2}), "2")
        one, two, three = (await server.info())["versions"]
        assert one["changes"] is None
        assert two["changes"]["since"] == "1"
        assert {
            (row["area"], row["name"]): (row["before"], row["after"]) for row in two["changes"]["changes"]
        } == {
            ("size", "size_bytes"): (150, 300),
            ("operators", "Mul"): (0, 2),
            ("tags", "signalbox.author"): (None, "bob"),
        }
        assert two["changes"]["changed"] == 3
        assert "latency" in two["changes"]["unknown"]
        assert {"signature", "size", "operators"} <= set(three["changes"]["unknown"])


@story
async def test_info_tells_a_versions_own_moves_and_failures(
    home: Path, double: MlflowDouble, tmp_path: Path
) -> None:
    """Its history is the part of the model's that names it; its error rate is what serving counted."""
    double.add("failing", onnx_raises_on_negative(tmp_path / "failing"))
    double.point("failing", "1")
    async with station(home, double) as server:
        await server.serves("1")
        await server.serves("1", model="failing")
        double.point("m", "2")
        await server.serves("2")
        await eventually(lambda: len(server.changes()) == 2, "both moves on record")
        one, two, three = (await server.info())["versions"]
        assert [(row["from"], row["to"]) for row in two["history"] if row["alias"] == "champion"] == [
            ("1", "2")
        ]
        assert (one["history"] != [], three["history"]) == (True, [])
        before = (await server.info("failing"))["versions"][0]["statistics"]
        assert (before["error_rate"], before["answers"] > 0) == (0.0, True)
        assert (await server.infer(-1.0, 1.0, 1.0, model="failing")).status_code == 500
        after = (await server.info("failing"))["versions"][0]["statistics"]
        assert after["answers"] == before["answers"] + 1
        assert after["error_rate"] == 1 / after["answers"]


@story
async def test_info_is_bounded_when_a_model_has_hundreds_of_versions(
    home: Path, double: MlflowDouble
) -> None:
    """All are listed; the newest and those in use are told of in full; asking again asks nobody."""
    folder = double.models["m"].versions["1"].source
    double.add("m", *[folder] * 497)
    for number, version in double.models["m"].versions.items():
        version.run_id = f"r{number}"
        double.runs[version.run_id] = {"data": {"params": [{"key": "epochs", "value": number}]}}
    async with station(home, double) as server:
        await server.serves("1")
        entry = await server.info()
        assert len(entry["versions"]) == 500
        known = [v["version"] for v in entry["versions"] if v["training_params"]]
        assert known == ["1", *map(str, range(401, 501))]
        assert "newest 100 versions" in entry["notes"][0]
        assert entry["versions"][-1]["changes"]["since"] == "499"
        asked = [call for call in double.seen if "runs/get" in call or "model-versions/search" in call]
        await server.info()
        assert [c for c in double.seen if "runs/get" in c or "model-versions/search" in c] == asked


@story
async def test_info_answers_with_nulls_when_the_store_is_away(
    home: Path, double: MlflowDouble, tmp_path: Path
) -> None:
    """Status 200, and a note that says what is missing and why."""
    (tmp_path / "no folder").touch()
    async with station(home, double, store_url=f"sqlite:///{tmp_path}/no folder/store.db") as server:
        await server.serves("1")
        entry = await server.info()
        assert entry["versions"][0]["statistics"]["accuracy"] is None
        assert entry["history"] == []
        assert "statistics, descriptions and history are unknown" in entry["notes"][0]


@story
async def test_info_gives_up_on_runs_when_the_registry_goes_away_meanwhile(
    home: Path, double: MlflowDouble
) -> None:
    """The first failure ends the asking; versions are told of without their runs."""
    for number in ("1", "2", "3"):
        double.models["m"].versions[number].run_id = f"gone-{number}"
    async with station(home, double) as server:
        await server.serves("1")
        double.fault = Fault(500, where="runs/get")
        entry = await server.info()
        assert [version["training_params"] for version in entry["versions"]] == [{}, {}, {}]
