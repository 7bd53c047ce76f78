"""The flow on a real Prefect: on demand it registers what lies in the folder, and publishes what it found."""

from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from prefect.testing.utilities import prefect_test_harness

from flows.register_models import register_models
from flows.settings import FlowSettings
from flows.wiring import wired
from serving.core.model import VersionRef
from serving.store import outbox
from serving.store.database import upgrade
from serving.store.registry import Registry
from tests.mlflow_server import MlflowServer, free_port
from tests.models import onnx_adder
from tests.prefect_server import PrefectServer

_START_SECONDS = 120


@pytest.fixture
def folder(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The default folder of the home, with one good and one bad file, and settings that hurry."""
    monkeypatch.setenv("SIGNALBOX_MODEL_QUIET_SECONDS", "0.2")
    upgrade(FlowSettings().database_url)
    folder = home / "models"
    folder.mkdir(parents=True)
    _put(folder, tmp_path)
    return folder


def _put(folder: Path, made: Path, name: str = "flow-taken") -> None:
    good = (onnx_adder(made / "made") / "model.onnx").read_bytes()
    (folder / f"{name}.onnx").write_bytes(good)
    (folder / "flow-empty.onnx").write_bytes(b"")


@pytest.mark.integration
def test_run_registers_and_says_so_when_asked(prefect_server: PrefectServer, tmp_path: Path) -> None:
    """By Prefect's own command: the state counts, the artifact lists, the version is there."""
    folder = prefect_server.home / "models"
    folder.mkdir(exist_ok=True)
    _put(folder, tmp_path, "flow-on-demand")
    command = ("deployment", "run", "register-models/register-models", "-p", "requested_by=a-person")
    asked = prefect_server.command(*command)
    assert asked.returncode == 0, asked.stderr
    run = prefect_server.ended("register-models", requested_by="a-person")
    assert run["state_type"] == "COMPLETED", run["state"]
    assert run["state"]["message"] == "1 registered, 1 refused, 0 unchanged"
    tables = [found for found in prefect_server.artifacts("registration") if found["type"] == "table"]
    assert "is empty" in tables[0]["data"]
    assert "flow-on-demand" in tables[0]["data"]
    with httpx.Client(base_url=prefect_server.mlflow_url, trust_env=False) as client:
        found = Registry(client, lambda model: True).version(VersionRef("flow-on-demand", "1"))
    assert found.status == "READY"


@pytest.mark.integration
@pytest.mark.slow
def test_flow_says_what_it_did_when_run_by_hand(
    folder: Path, mlflow_server: MlflowServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unavailable while MLflow is away, with nothing refused; then completed; then nothing to do."""
    with prefect_test_harness(server_startup_timeout=_START_SECONDS):
        monkeypatch.setenv("SIGNALBOX_MLFLOW_URL", f"http://127.0.0.1:{free_port()}")
        away = register_models(return_state=True)
        assert (away.type.value, away.name) == ("FAILED", "Unavailable")
        assert "did not answer" in str(away.message)
        assert "tried again by the next run" in str(away.message)
        monkeypatch.setenv("SIGNALBOX_MLFLOW_URL", mlflow_server.url)
        done = register_models(return_state=True)
        assert (done.type.value, done.message) == ("COMPLETED", "1 registered, 1 refused, 0 unchanged")
        again = register_models(return_state=True)
        assert again.message == "2 unchanged"
    with wired() as wiring:
        [notice] = outbox.pending(wiring.engine, datetime.now(UTC), 10)
    assert notice.notice.title.startswith("'flow-empty.onnx' was not registered: 'flow-empty.onnx' is empty")


@pytest.mark.integration
def test_flow_is_unavailable_when_there_is_no_store(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sentence with the repair, not a stack of calls."""
    monkeypatch.setenv("SIGNALBOX_STORE_URL", f"sqlite:///{home}/missing/store.db")
    with prefect_test_harness(server_startup_timeout=_START_SECONDS):
        state = register_models(return_state=True)
    assert (state.type.value, state.name) == ("FAILED", "Unavailable")
    assert "state store" in str(state.message)
