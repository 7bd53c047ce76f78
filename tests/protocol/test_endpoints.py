"""The Open Inference Protocol's other calls, over the whole application."""

from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

import pytest

from tests.mlflow_double import MlflowDouble
from tests.models import onnx_adder, onnx_wrong_shape
from tests.station import ADMIN, Station, station
from tests.story import eventually, story


@pytest.fixture
def double(double: MlflowDouble, tmp_path: Path) -> MlflowDouble:
    double.add("m", *[onnx_adder(tmp_path / "models" / str(n), float(n)) for n in (1, 2)])
    double.add("m", onnx_wrong_shape(tmp_path / "models" / "3"))
    double.add("idle", onnx_adder(tmp_path / "models" / "idle"))
    double.point("m", "2")
    double.point("m", "1", "shadow")
    return double


async def get(server: Station, path: str) -> tuple[int, Any]:
    answer = await server.http.get(path)
    return answer.status_code, answer.json()


@story
async def test_server_metadata_names_what_it_can(home: Path, double: MlflowDouble) -> None:
    """With and without the last slash."""
    async with station(home, double) as server:
        for path in ("/v2", "/v2/"):
            status, body = await get(server, path)
            assert status == 200
            assert body["name"] == "signalbox"
            assert body["extensions"] == [
                "binary_tensor_data",
                "classification",
                "model_configuration",
                "model_repository",
                "statistics",
            ]


@pytest.mark.parametrize(
    ("place", "version"),
    [
        ("", "2"),
        ("/versions/2", "2"),
        ("/versions/champion", "2"),
        ("/versions/1", "1"),
        ("/versions/shadow", "1"),
    ],
)
@story
async def test_metadata_is_of_the_version_addressed(
    home: Path, double: MlflowDouble, place: str, version: str
) -> None:
    """By name, number and alias; so is ready."""
    async with station(home, double) as server:
        await server.serves("2")
        await server.serves("1", address="shadow")
        status, body = await get(server, f"/v2/models/m{place}")
        assert status == 200
        assert (body["name"], body["versions"], body["platform"]) == ("m", ["1", "2"], "onnx_onnxv1")
        assert body["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}]
        assert body["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [-1, 3]}]
        assert body["properties"]["version"] == version
        assert await get(server, f"/v2/models/m{place}/ready") == (200, {"name": "m", "ready": True})


@story
async def test_address_that_does_not_exist_is_404_naming_what_does(home: Path, double: MlflowDouble) -> None:
    """Every call alike."""
    async with station(home, double) as server:
        await server.serves("2")
        for address, exists in (
            ("nope", "available: m"),
            ("m/versions/9", "champion"),
            ("m/versions/v2", "champion"),
        ):
            for call in ("", "/ready", "/config", "/stats"):
                status, body = await get(server, f"/v2/models/{address}{call}")
                assert (status, exists in body["error"]) == (404, True), address


@story
async def test_index_tells_the_state_of_every_version_in_question(home: Path, double: MlflowDouble) -> None:
    """What is served is ready; what is wanted and refused is not, and says why."""
    async with station(home, double) as server:
        await server.serves("2")
        await server.serves("1", address="shadow")
        double.point("m", "3", "challenger")
        await server.refuses("3", "self-test", alias="challenger")

        async def index(content: bytes) -> Any:
            return (await server.http.post("/v2/repository/index", content=content)).json()

        async def is_told() -> bool:
            return [entry["state"] for entry in await index(b"")] == ["READY", "READY", "UNAVAILABLE"]

        await eventually(is_told, "the index is complete")
        entries = await index(b"")
        assert [(entry["name"], entry["version"]) for entry in entries] == [
            ("m", "1"),
            ("m", "2"),
            ("m", "3"),
        ]
        assert "self-test" in entries[2]["reason"]
        assert [entry["version"] for entry in await index(b'{"ready": true}')] == ["1", "2"]
        assert len(await index(b'{"ready": false}')) == 3


@story
async def test_index_answers_under_a_repository_name_too(home: Path, double: MlflowDouble) -> None:
    """There is one repository, whatever it is called; it needs no more than reading."""
    async with station(home, double) as server:
        await server.serves("2")
        answer = await server.http.post("/v2/repository/mine/index", content=b"")
        assert [entry["version"] for entry in answer.json()] == ["1", "2"]


@story
async def test_configuration_is_of_the_version_addressed(home: Path, double: MlflowDouble) -> None:
    """In Triton's shape: of a model whose rows may be joined, the dims leave out the batch axis."""
    async with station(home, double) as server:
        await server.serves("2")
        await server.serves("1", address="shadow")
        status, body = await get(server, "/v2/models/m/config")
        assert status == 200
        digest = body.pop("parameters")["digest"]["string_value"]
        assert body == {
            "name": "m",
            "platform": "onnx_onnxv1",
            "backend": "onnxruntime",
            "version_policy": {"specific": {"versions": [1, 2]}},
            "max_batch_size": 32,
            "dynamic_batching": {"max_queue_delay_microseconds": 0},
            "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [3]}],
            "output": [{"name": "y", "data_type": "TYPE_FP32", "dims": [3]}],
            "instance_group": [{"name": "m", "kind": "KIND_CPU", "count": 1}],
            "default_model_filename": "model.onnx",
        }
        _, other = await get(server, "/v2/models/m/versions/shadow/config")
        assert other["parameters"]["digest"]["string_value"] != digest


@story
async def test_statistics_count_what_was_answered(home: Path, double: MlflowDouble) -> None:
    """Of one version, of a model, of all; rows apart from requests, failures apart from answers."""
    async with station(home, double, probe_seconds=600) as server:
        await server.serves("2")
        await server.serves("1", address="shadow")
        await server.becomes_ready()  # its own probe is over then
        [before] = (await get(server, "/v2/models/m/versions/2/stats"))[1]["model_stats"]
        rows = {"name": "x", "shape": [4, 3], "datatype": "FP32", "data": [0.5] * 12}
        for _ in range(3):
            assert (await server.http.post("/v2/models/m/infer", json={"inputs": [rows]})).status_code == 200
        late = {"inputs": [rows], "parameters": {"timeout": 1}}
        assert (await server.http.post("/v2/models/m/infer", json=late)).status_code == 504
        [after] = (await get(server, "/v2/models/m/versions/champion/stats"))[1]["model_stats"]
        assert (after["name"], after["version"]) == ("m", "2")
        assert after["inference_count"] - before["inference_count"] == 12
        assert after["execution_count"] - before["execution_count"] == 3
        assert after["last_inference"] >= before["last_inference"] > 1_700_000_000_000
        spent = after["inference_stats"]
        assert spent["fail"]["count"] == 1
        for part in ("success", "queue", "compute_input", "compute_infer", "compute_output"):
            assert spent[part]["count"] - before["inference_stats"][part]["count"] == 3
        parts = sum(spent[p]["ns"] for p in ("queue", "compute_input", "compute_infer", "compute_output"))
        assert 0 < parts <= spent["success"]["ns"]
        [of_four] = [batch for batch in after["batch_stats"] if batch["batch_size"] == 4]
        assert of_four["compute_infer"]["count"] == of_four["compute_output"]["count"] == 3
        for path in ("/v2/models/m/stats", "/v2/models/stats"):
            told = (await get(server, path))[1]["model_stats"]
            assert [(entry["name"], entry["version"]) for entry in told] == [("m", "1"), ("m", "2")]


@pytest.mark.parametrize("content", [b"{", b"[]", b"7", b"\xff"])
@story
async def test_index_is_refused_when_its_options_are_no_object(
    home: Path, double: MlflowDouble, content: bytes
) -> None:
    """400, not 500."""
    async with station(home, double) as server:
        answer = await server.http.post("/v2/repository/index", content=content)
        assert answer.status_code == 400
        assert "the body must be empty or" in answer.json()["error"]


@story
async def test_server_answers_what_mlflows_own_does(home: Path, double: MlflowDouble) -> None:
    """Ping and health for its probes, the version its client asks for."""
    async with station(home, double) as server:
        await server.becomes_ready()
        for path in ("/ping", "/health"):
            answer = await server.http.get(path)
            assert (answer.status_code, answer.content) == (200, b"\n")
        assert (await server.http.get("/version")).text == installed_version("mlflow")
        server.server.readiness.is_draining = True
        assert (await server.http.get("/ping")).status_code == 503


@story
async def test_schema_describes_what_passes_the_framework_by(home: Path, double: MlflowDouble) -> None:
    """Inference and predictions, beside everything the framework routes; all paths are POSTed to."""
    async with station(home, double) as server:
        schema = (await server.http.get("/openapi.json")).json()
        again = (await server.http.get("/openapi.json")).json()
    assert schema == again
    for path in ("/v2/models/{model}/infer", "/v2/models/{model}/versions/{version}/infer", "/invocations"):
        operation = schema["paths"][path]["post"]
        assert "application/json" in operation["requestBody"]["content"]
        placed = {entry["name"] for entry in operation["parameters"] if entry["in"] == "path"}
        assert placed == {name for name in ("model", "version") if f"{{{name}}}" in path}
    assert "/v2/models/{model}/stats" in schema["paths"]


ERRORS = (
    ("GET", "/nope", 404),
    ("GET", "/v2/nope", 404),
    ("GET", "/v2/models/m/nope", 404),
    ("GET", "/api/v2/nope", 404),
    ("POST", "/v2/health/live", 405),
    ("DELETE", "/v2/models/m", 405),
    ("GET", "/v2/repository/index", 405),
    ("GET", "/v2/models/m/infer", 405),
    ("PUT", "/v2/models/m/infer", 405),
    ("GET", "/api/v2/rollback", 405),
    ("GET", "/api/v2/webhooks/mlflow", 405),
    ("GET", "/api/v2/audit?limit=0", 400),
    ("GET", "/api/v2/audit?limit=many", 400),
    ("GET", "/api/v2/rollback/nope", 404),
)


@story
async def test_every_error_has_its_status_and_one_form(home: Path, double: MlflowDouble) -> None:
    """Unknown routes and wrong methods included."""
    async with station(home, double) as server:
        for method, path, status in ERRORS:
            answer = await server.http.request(method, path, headers=ADMIN)
            assert (answer.status_code, list(answer.json())) == (status, ["error"]), (method, path)
            assert isinstance(answer.json()["error"], str)
            assert answer.headers["x-request-id"]


MISTYPED = (
    ("GET", "/nope", 404),
    ("POST", "/api/v2/nope", 404),
    ("POST", "/v2", 405),
    ("DELETE", "/v2/models/m", 405),
    ("PUT", "/api/v2/audit", 405),
    ("GET", "/v2/repository/models/m/load", 405),
)
NEEDING_A_KEY = (
    ("GET", "/api/v2/audit"),
    ("PUT", "/api/v2/traffic/m"),
    ("POST", "/api/v2/rollouts/1/abort"),
    ("POST", "/v2/repository/models/m/load"),
)


@story
async def test_mistyped_address_is_told_as_one_on_loopback(home: Path, double: MlflowDouble) -> None:
    """Without a key and with a wrong one; what is there and needs a key says so."""
    async with station(home, double) as server:
        for headers in ({}, {"X-API-Key": "another"}):
            for method, path, status in MISTYPED:
                answer = await server.http.request(method, path, headers=headers)
                assert (answer.status_code, list(answer.json())) == (status, ["error"]), (method, path)
                assert status == 404 or answer.headers["allow"], (method, path)
            for method, path in NEEDING_A_KEY:
                answer = await server.http.request(method, path, headers=headers)
                assert answer.status_code == 401, (method, path)


@story
async def test_mistyped_address_needs_a_key_like_any_other_off_loopback(
    home: Path, double: MlflowDouble
) -> None:
    """A stranger is not told what is there; whoever has a key is told of the mistake."""
    async with station(home, double, host="0.0.0.0") as server:
        for method, path, status in MISTYPED:
            assert (await server.http.request(method, path)).status_code == 401, (method, path)
            answer = await server.http.request(method, path, headers=ADMIN)
            assert (answer.status_code, list(answer.json())) == (status, ["error"]), (method, path)


@story
async def test_reading_about_the_server_is_open_and_what_was_done_needs_a_key(
    home: Path, double: MlflowDouble
) -> None:
    """On loopback; 401 in the one form."""
    async with station(home, double) as server:
        for path in ("/metrics", "/docs", "/openapi.json"):
            assert (await server.http.get(path)).status_code == 200
        for path in ("/api/v2/audit", "/api/v2/rollback/1"):
            answer = await server.http.get(path)
            assert (answer.status_code, list(answer.json())) == (401, ["error"])
