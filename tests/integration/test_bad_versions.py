"""Versions that raise, hang, answer NaN or outside their declaration, or need more memory than there is.

Each is put behind the champion alias of a model under traffic: callers get the right answer throughout,
and the version is refused or gone within seconds.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from time import monotonic

import httpx
import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException

from tests.mlflow_double import MlflowDouble
from tests.mlflow_server import free_port
from tests.models import (
    describe,
    onnx_adder,
    onnx_nan,
    onnx_raises_on_negative,
    onnx_wrong_shape,
    torch_adder,
    torch_hangs_on_negative,
    torch_slow,
)
from tests.serving_process import ServingProcess, request_body
from tests.traffic import Traffic, failed, wrong

pytestmark = [pytest.mark.integration, pytest.mark.fault("F12")]

REAL = -1.0  # the self-test sees zeros
STUCK_SECONDS = 5.0


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., ServingProcess]]:
    replicas: list[ServingProcess] = []

    def start(double: MlflowDouble, **settings: object) -> ServingProcess:
        serving = ServingProcess(tmp_path / f"home-{len(replicas)}", double.url, "*", settings)
        replicas.append(serving)
        serving.start_ready()
        return serving

    yield start
    for replica in replicas:
        replica.kill()


def wrong_dtype(folder: Path) -> Path:
    """Answers FP32 where its signature promises FP64."""
    spec = [("x", "float32", (-1, 3))]
    return describe(torch_adder(folder), inputs=spec, outputs=[("y", "float64", (-1, 3))])


def first_refusal(call: Callable[[], httpx.Response]) -> httpx.Response:
    """Of callers that ask one after the other; one may find a place just left."""
    for _ in range(10):
        if (answer := call()).status_code == 503:
            return answer
    raise AssertionError("the queue was never full")


def first_grpc_refusal(port: int) -> InferenceServerException:
    given = InferInput("x", [1, 3], "FP32")
    given.set_data_from_numpy(np.array([[1.0, 2.0, 3.0]], np.float32))
    with InferenceServerClient(f"127.0.0.1:{port}") as client:
        for _ in range(10):
            try:
                client.infer("m", [given])
            except InferenceServerException as refusal:
                return refusal
    raise AssertionError("the queue was never full")


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(onnx_raises_on_negative, id="raises"),
        pytest.param(onnx_nan, id="nan"),
        pytest.param(torch_hangs_on_negative, id="hangs"),
    ],
)
def test_version_is_rolled_back_when_it_fails_on_real_input(
    double: MlflowDouble, serve: Callable[..., ServingProcess], tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    """It passes its self-test; the version before it answers in its place, and then instead of it."""
    double.add("m", onnx_adder(tmp_path / "1", 1.0), make(tmp_path / "2"))
    double.point("m", "1")
    serving = serve(double, request_timeout_seconds=2)
    with Traffic(serving.url, "m", rate_per_second=10, x=REAL) as traffic:
        serving.wait(lambda: traffic.answers_of("1") >= 5, "traffic flows")
        double.point("m", "2")
        serving.wait(lambda: serving.audited("roll_back", "m"), "it is rolled back", 30)
        serving.wait(lambda: double.named("m") == "1", "the alias is put back", 30)
        answered = len(traffic.samples)
        serving.wait(lambda: len(traffic.samples) > answered + 10, "version 1 answers on")
    assert failed(traffic.samples) == []
    assert wrong(traffic.samples, {"1": 1.0}) == []
    assert {sample.version for sample in traffic.samples} == {"1"}
    assert traffic.samples[-1].variant == "champion"
    serving.assert_nothing_lost()


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        pytest.param(onnx_wrong_shape, "shape", id="wrong-shape"),
        pytest.param(wrong_dtype, "FP64", id="wrong-dtype"),
    ],
)
def test_version_never_reaches_traffic_when_its_self_test_fails(
    double: MlflowDouble,
    serve: Callable[..., ServingProcess],
    tmp_path: Path,
    make: Callable[[Path], Path],
    reason: str,
) -> None:
    """Refused with the reason, reported once; the version before it answers on."""
    double.add("m", onnx_adder(tmp_path / "1", 1.0), make(tmp_path / "2"))
    double.point("m", "1")
    serving = serve(double)
    with Traffic(serving.url, "m", rate_per_second=20) as traffic:
        double.point("m", "2")
        serving.wait(lambda: serving.notices("version_refused", "m"), "it is refused", 30)
    [notice] = serving.notices("version_refused", "m")
    assert reason in str(notice.facts["reason"])
    assert failed(traffic.samples) == []
    assert {sample.version for sample in traffic.samples} == {"1"}
    serving.assert_nothing_lost()


@pytest.mark.fault("F25")
def test_version_is_refused_when_it_needs_more_memory_than_there_is(
    double: MlflowDouble, serve: Callable[..., ServingProcess], tmp_path: Path
) -> None:
    """Two versions do not fit together: the refusal names the budget needed, and the old one answers on."""
    double.add("m", onnx_adder(tmp_path / "1", 1.0))
    double.add("m", onnx_adder(tmp_path / "2", 2.0), **{"signalbox.memory_mb": "300"})
    double.point("m", "1")
    serving = serve(double, memory_mb=200, memory_overflow_mb=50)
    with Traffic(serving.url, "m", rate_per_second=20) as traffic:
        double.point("m", "2")
        serving.wait(lambda: serving.notices("version_refused", "m"), "it is refused", 30)
    [notice] = serving.notices("version_refused", "m")
    assert "needs about 300 MB" in str(notice.facts["reason"])
    assert "set SIGNALBOX_MEMORY_MB to 250 or more" in str(notice.facts["reason"])
    assert failed(traffic.samples) == []
    assert {sample.version for sample in traffic.samples} == {"1"}
    serving.assert_nothing_lost()


def test_callers_are_refused_at_once_when_a_version_hangs_and_nothing_stands_in(
    double: MlflowDouble, serve: Callable[..., ServingProcess], tmp_path: Path
) -> None:
    """Two inputs eat both threads; one notice, 503 without a wait, and a trial brings the version back."""
    double.add("m", torch_hangs_on_negative(tmp_path / "1"))
    double.point("m", "1")
    serving = serve(double, request_timeout_seconds=1)
    assert [serving.infer("m", REAL).status for _ in range(2)] == [504, 504]

    def is_refused() -> bool:
        return serving.infer("m", REAL).status == 503

    serving.wait(is_refused, "the circuit opens", 30)
    began = monotonic()
    answer = serving.call("POST", "/v2/models/m/infer", json=request_body(1.0))
    took_seconds = monotonic() - began
    assert (answer.status_code, answer.headers["retry-after"].isdigit()) == (503, True)
    assert "all its threads are stuck" in answer.json()["error"]
    print(f"refused after {took_seconds * 1000:.0f} ms; a wait would have taken 1 s")
    metrics = serving.call("GET", "/metrics").text
    assert 'signalbox_stuck_threads{model="m",version="1"} 2.0' in metrics
    assert 'signalbox_circuit_open{model="m",version="1"} 1.0' in metrics
    assert len(serving.notices("version_stuck", "m")) == 1
    serving.wait(lambda: serving.infer("m", 1.0).status == 200, "a trial with good input brings it back", 30)
    assert [serving.infer("m", 1.0).added for _ in range(5)] == [1.0] * 5
    assert 'signalbox_circuit_open{model="m",version="1"} 0.0' in serving.call("GET", "/metrics").text
    assert serving.terminate() == 0, serving.explain()
    serving.assert_nothing_lost()


@pytest.mark.fault("F19")
def test_full_queue_is_told_over_every_transport(
    double: MlflowDouble, serve: Callable[..., ServingProcess], tmp_path: Path
) -> None:
    """503 with a time to come back, over gRPC UNAVAILABLE; those in the queue are answered."""
    double.add("m", torch_slow(tmp_path / "1", 200_000))
    double.point("m", "1")
    port = free_port()
    serving = serve(double, max_waiting=2, max_batch_rows=1, grpc_port=port)
    with Traffic(serving.url, "m", rate_per_second=20) as traffic:
        serving.wait(lambda: any(s.status == 503 for s in traffic.samples), "the queue is full")
        ways = {
            "/v2/models/m/infer": request_body(1.0),
            "/invocations": {"inputs": [[1.0, 2.0, 3.0]]},
        }
        for path, body in ways.items():
            answer = first_refusal(partial(serving.call, "POST", path, json=body))
            assert answer.headers["retry-after"] == "1"
            assert "2 requests wait for this model already" in answer.json()["error"]
        refusal = first_grpc_refusal(port)
    assert refusal.status() == "StatusCode.UNAVAILABLE"
    assert "2 requests wait" in refusal.message()
    assert {s.status for s in traffic.samples} == {200, 503}
    assert serving.infer("m").status == httpx.codes.OK


def test_request_is_not_computed_when_its_caller_hung_up(
    double: MlflowDouble, serve: Callable[..., ServingProcess], tmp_path: Path
) -> None:
    """Ten callers who give up cost no more than what was being computed for them."""
    double.add("m", torch_slow(tmp_path / "1", 200_000))
    double.point("m", "1")
    serving = serve(double, max_batch_rows=1)
    for _ in range(10):
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(
                f"{serving.url}/v2/models/m/infer", json=request_body(1.0), timeout=0.05, trust_env=False
            )
    assert serving.infer("m").status == 200
    [stats] = serving.get("/v2/models/m/stats")["model_stats"]
    assert stats["inference_stats"]["success"]["count"] == 1
    text = serving.call("GET", "/metrics").text
    cancelled = 'model="m",status="cancelled",variant="champion",version="1"} 10.0'
    assert cancelled in text
