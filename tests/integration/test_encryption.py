"""A server with a certificate: HTTP and gRPC speak TLS and nothing else."""

import ssl
from pathlib import Path

import httpx
import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException

from flows.cli.decision import Answer
from flows.cli.probe import probe_serving
from flows.settings import FlowSettings
from tests.certificates import self_signed
from tests.mlflow_double import MlflowDouble
from tests.mlflow_server import free_port
from tests.models import onnx_adder
from tests.serving_process import ServingProcess, request_body

pytestmark = pytest.mark.integration


def test_both_transports_are_encrypted_when_a_certificate_is_set(
    double: MlflowDouble, tmp_path: Path
) -> None:
    """Clients that trust it are answered; those that speak in the clear are not."""
    double.add("m", onnx_adder(tmp_path / "1", 1.0))
    double.point("m", "1")
    made, port = self_signed(tmp_path), free_port()
    settings = {"tls_certificate": made.certificate, "tls_key": made.key, "grpc_port": port}
    serving = ServingProcess(tmp_path / "home", double.url, "*", settings)
    trusting = ssl.create_default_context(cafile=str(made.certificate))
    url = f"https://localhost:{serving.port}"
    serving.start()
    try:
        with httpx.Client(base_url=url, verify=trusting, trust_env=False, timeout=30) as client:

            def is_served() -> bool:
                try:
                    return client.get("/v2/models/m/ready").status_code == httpx.codes.OK
                except httpx.TransportError:
                    return False

            serving.wait(is_served, "the model is served", 60)
            assert client.post("/v2/models/m/infer", json=request_body(1.0)).status_code == 200
        ours = FlowSettings(home=serving.home, port=serving.port, tls_certificate=made.certificate)
        assert probe_serving(ours).answer is Answer.HEALTHY
        stranger = FlowSettings(home=serving.home, serving_url=url)
        assert probe_serving(stranger).answer is Answer.NOTHING
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://localhost:{serving.port}/v2/health/live", trust_env=False, timeout=10)
        given = InferInput("x", [1, 3], "FP32")
        given.set_data_from_numpy(np.array([[1.0, 2.0, 3.0]], np.float32))
        with InferenceServerClient(
            f"localhost:{port}", ssl=True, root_certificates=str(made.certificate)
        ) as client:
            assert client.infer("m", [given]).as_numpy("y")[0, 0] == 2.0
        with InferenceServerClient(f"localhost:{port}") as client, pytest.raises(InferenceServerException):
            client.infer("m", [given], client_timeout=10)
        assert serving.terminate() == 0, serving.explain()
        assert "Traceback" not in serving.log.read_text()
    finally:
        serving.kill()
