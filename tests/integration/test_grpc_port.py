"""The gRPC server's port: what happens when somebody else has it."""

from pathlib import Path

import pytest

from tests.integration.conftest import StartServing
from tests.mlflow_registry import MlflowRegistry
from tests.mlflow_server import free_port
from tests.serving_process import ServingProcess
from tests.waiting import until

pytestmark = pytest.mark.integration


def test_serving_ends_naming_the_setting_when_the_chosen_grpc_port_is_taken(
    registry: MlflowRegistry, start_serving: StartServing, tmp_path: Path
) -> None:
    """Instead of sharing the port with another server, or leaving out what was asked for."""
    model = registry.model("onnx:1", prefix="port")
    model.point("1")
    first = start_serving(model.name, grpc_port=free_port())
    chosen = ServingProcess(
        tmp_path / "chosen", registry.server.url, model.name, {"grpc_port": first.settings["grpc_port"]}
    )
    chosen.start()
    try:
        until(lambda: not chosen.is_running, "it has ended", context=chosen.explain)
        assert "SIGNALBOX_GRPC_PORT" in chosen.log.read_text()
    finally:
        chosen.kill()
