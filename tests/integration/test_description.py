"""A version registered by hand, described by validate-model: what model-info and `models diff` then tell."""

import json
from collections.abc import Iterator

import pytest

from tests.integration.conftest import StartServing
from tests.integration.promotions import Promotions, promoting
from tests.mlflow_registry import MlflowRegistry, log_models
from tests.mlflow_server import MlflowServer
from tests.prefect_server import PrefectServer

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture
def stack(
    mlflow_server: MlflowServer, prefect_server: PrefectServer, start_serving: StartServing
) -> Iterator[Promotions]:
    registry = MlflowRegistry(mlflow_server, log_models(mlflow_server, "net:4", "net:8"))
    with promoting(registry, prefect_server, start_serving) as stack:
        yield stack


def test_hand_registered_versions_are_described_when_validated(stack: Promotions) -> None:
    """Also the one that is not loaded; serving reads the record and downloads nothing for it."""
    model = stack.registry.model("net:4", "net:8", prefix="flow-described")
    for version in ("1", "2"):
        run = stack.ended(stack.run("validate-model", model=model.name, version=version)["id"])
        assert run["state_name"] == "Passed", run["state"]["message"]
    model.point("1")
    serving = stack.start_serving(model.name, store_url=stack.prefect.settings.database_url)
    serving.wait(lambda: serving.model(model.name)["versions"][0]["loaded"], "version 1 is loaded")
    one, two = serving.model(model.name)["versions"]
    assert (one["loaded"], two["loaded"]) == (True, False)
    assert (one["parameter_count"], two["parameter_count"]) == (690, 1370)
    assert two["architecture"] == "5 layers: Conv 1, Flatten 1, Gemm 1, MaxPool 1, Relu 1; 1,370 parameters"
    assert two["inputs"] == one["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 1, 8, 8]}]
    assert "onnxruntime" in two["dependencies"]
    changed = {(row["area"], row["name"]): row["ratio"] for row in two["changes"]["changes"]}
    assert changed["size", "parameter_count"] == round(1370 / 690, 4)
    told = json.loads(stack.signalbox("models", "diff", model.name, "champion", "2", "--json").stdout)
    assert {row["name"] for row in told["rows"] if row["changed"]} >= {"parameter_count", "size_bytes"}
    assert told["notes"] == []
