"""SIGTERM under load: not ready at once, everything accepted is answered, then the process ends well."""

from queue import Queue
from time import monotonic
from typing import Any

import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException

from tests.integration.conftest import StartServing
from tests.mlflow_registry import MlflowRegistry
from tests.mlflow_server import free_port
from tests.traffic import Traffic, failed, wrong

pytestmark = [pytest.mark.integration, pytest.mark.fault("F6")]

SENT_SECONDS = 0.01  # after which a request has reached the server


def test_serving_answers_what_it_accepted_when_told_to_stop(
    registry: MlflowRegistry, start_serving: StartServing
) -> None:
    """Requests in flight at SIGTERM are answered; later ones find no connection, none gets half an answer."""
    model = registry.model("slow:1", prefix="stop")
    model.point("1")
    serving = start_serving(model.name)
    with Traffic(serving.url, model.name, rate_per_second=8) as traffic:
        serving.wait(lambda: traffic.answers_of("1") >= 8, "traffic flows")
        serving.wait(lambda: traffic.in_flight_seconds > SENT_SECONDS, "a request is in flight")
        told = monotonic()
        code = serving.terminate()
    samples = traffic.samples
    in_flight = [s for s in samples if s.started < told - SENT_SECONDS and s.ended > told]
    assert in_flight, "nothing was in flight: the test shows nothing"
    assert failed(in_flight) == []
    assert wrong(samples, model.constants) == []
    refused = failed(samples)
    assert {sample.status for sample in refused} <= {0}
    assert all("ConnectError" in str(s.problem) for s in refused if s.started > told + 0.2), refused[:5]
    assert code == 0, serving.explain()
    assert "Traceback" not in serving.log.read_text()
    serving.start_ready()
    assert serving.infer(model.name).version == "1"
    serving.assert_nothing_lost()


def test_serving_keeps_what_it_did_when_told_to_stop_right_after(
    registry: MlflowRegistry, start_serving: StartServing
) -> None:
    """What it audited last is in the trail when the process has ended."""
    model = registry.model("onnx:1", "onnx:2", prefix="stop")
    model.point("1")
    serving = start_serving(model.name)
    model.point("2")
    serving.wait_for(model.name, "2")
    rollback = serving.roll_back(model.name)
    serving.terminate()
    [entry] = serving.audited("roll_back", model.name)
    assert entry.details["rollback_id"] == rollback["rollback_id"]
    serving.assert_nothing_lost()


def test_serving_answers_grpc_calls_it_accepted_when_told_to_stop(
    registry: MlflowRegistry, start_serving: StartServing
) -> None:
    """Those in flight at SIGTERM are answered beside HTTP's; the port is closed to new ones."""
    model = registry.model("slow:1", prefix="stop")
    model.point("1")
    port = free_port()
    serving = start_serving(model.name, grpc_port=port)
    row = np.array([[1.0, 2.0, 3.0]], np.float32)
    given = InferInput("x", [1, 3], "FP32")
    given.set_data_from_numpy(row)
    answers: Queue[tuple[Any, Any]] = Queue()
    with InferenceServerClient(f"127.0.0.1:{port}") as client:
        [output] = [entry.name for entry in client.get_model_metadata(model.name).outputs]
        for _ in range(4):
            client.async_infer(model.name, [given], lambda result, error: answers.put((result, error)))

        def begun() -> bool:
            [stats] = client.get_inference_statistics(model.name, "1").model_stats
            return bool(stats.execution_count > 0)

        serving.wait(begun, "a call was answered, the others are in flight")
        assert serving.terminate() == 0, serving.explain()
        for _ in range(4):
            result, error = answers.get(timeout=20)
            assert error is None
            np.testing.assert_array_equal(result.as_numpy(output), row + 1)
        with pytest.raises(InferenceServerException):
            client.infer(model.name, [given])
    assert "Traceback" not in serving.log.read_text()
