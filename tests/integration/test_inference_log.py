"""The inference log of a real serving process: every answer is there once it has stopped, and no probe."""

import httpx
import pytest

from serving.core.model import Variant
from serving.store.inference_log import log_folder, read
from tests.integration.conftest import StartServing
from tests.mlflow_registry import MlflowRegistry
from tests.serving_process import request_body

pytestmark = pytest.mark.integration


def test_answers_are_logged_when_serving_stops(registry: MlflowRegistry, start_serving: StartServing) -> None:
    """Inputs, outputs, version and request id, one row per request, also of a request that failed."""
    model = registry.model("onnx:1", "raises")
    model.point("1")
    model.point("2", "challenger")
    serving = start_serving(model.name)
    with httpx.Client(base_url=serving.url, trust_env=False) as client:
        for x in range(20):
            headers = {"X-Request-Id": f"asked-{x:02}"}
            path = f"/v2/models/{model.name}/infer"
            assert client.post(path, json=request_body(x), headers=headers).status_code == httpx.codes.OK
        second = f"/v2/models/{model.name}/versions/2"
        serving.wait(lambda: client.get(second).status_code == httpx.codes.OK, "version 2 served")
        refused = client.post(f"{second}/infer", json=request_body(-1.0))
        assert refused.status_code == httpx.codes.INTERNAL_SERVER_ERROR
        assert "signalbox_inference_log_dropped_total" in client.get("/metrics").text
    serving.terminate()
    folder = log_folder(serving.home)
    answered = read(folder, model.name, version="1").to_pylist()
    assert [(row["request_id"], row["x.0"], row["y.0"]) for row in answered] == [
        (f"asked-{x:02}", float(x), float(x + 1)) for x in range(20)
    ]
    assert {(row["variant"], row["status"]) for row in answered} == {(Variant.CHAMPION, "ok")}
    [failed] = read(folder, model.name, version="2").to_pylist()
    assert (failed["x.0"], failed["status"]) == (-1.0, "failed")
