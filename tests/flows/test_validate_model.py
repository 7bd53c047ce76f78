"""Flow `validate-model` on a real Prefect worker: parameters of any kind in, verdict and artifacts out."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import numpy as np
import pytest

from flows.catalog.report import KIND
from flows.cli.orchestration import orchestration
from serving.store import reports
from serving.store.database import open_engine
from tests.flows.catalog.folders import evaluation_file, one_hot_rows, onnx_row_sum, onnx_shifted_classes
from tests.flows.catalog.registered import Model
from tests.mlflow_server import MlflowServer
from tests.models import onnx_echo
from tests.prefect_server import PrefectServer

pytestmark = pytest.mark.integration

FLOW = "validate-model"


@pytest.fixture
def model(mlflow_server: MlflowServer, tmp_path: Path) -> Iterator[Model]:
    """Version 1 is champion and right, version 2 wrong about every row, version 3 of another signature."""
    with httpx.Client(base_url=mlflow_server.url, trust_env=False) as client:
        model = Model(client, f"flow-validated-{uuid4().hex[:8]}")
        model.point(model.add(onnx_echo(tmp_path / "one")))
        model.add(onnx_shifted_classes(tmp_path / "two"))
        model.add(onnx_row_sum(tmp_path / "three"))
        labelled = evaluation_file(tmp_path / "set", {"x": one_hot_rows(60)}, np.arange(60) % 3)
        model.declare(f"runs:/{model.run_with(labelled)}/sets/evaluation.npz", "2")
        yield model


def ended(prefect: PrefectServer, **parameters: Any) -> dict[str, Any]:
    """A run with these parameters, as an event or a form would give them, at its end."""
    with orchestration(prefect.settings) as client:
        client.start_run(f"{FLOW}/{FLOW}", parameters)
    return prefect.ended(FLOW, **parameters)


def test_run_is_refused_with_its_report_when_the_version_is_worse(
    prefect_server: PrefectServer, model: Model
) -> None:
    """The reason in the state, the checks as a table, the row in the store, the tag in the registry."""
    run = ended(prefect_server, model=model.name, version="2", max_accuracy_drop="0.05", replay_rows="10")
    assert (run["state_type"], run["state_name"]) == ("FAILED", "Refused")
    assert "clearly worse: a drop of 0.05 is allowed" in run["state"]["message"]
    [table] = prefect_server.artifacts(f"validation-{model.name}-checks")
    assert table["type"] == "table"
    assert '"accuracy"' in table["data"]
    assert "holds no rows of" in table["data"]
    assert model.tags("2")["signalbox.validation"] == "failed"
    engine = open_engine(prefect_server.settings.database_url)
    try:
        stored = reports.latest(engine, KIND, model.name, "2")
    finally:
        engine.dispose()
    assert stored is not None
    assert (stored.verdict, stored.body["policy"]["max_accuracy_drop"]) == ("failed", 0.05)  # type: ignore[index, call-overload]


def test_run_passes_when_the_change_of_signature_is_allowed(
    prefect_server: PrefectServer, model: Model
) -> None:
    """A truth value may arrive as text."""
    run = ended(prefect_server, model=model.name, version=3, allow_signature_change="true")
    assert (run["state_type"], run["state_name"]) == ("COMPLETED", "Passed"), run["state"]["message"]
    assert model.tags("3")["signalbox.validation"] == "passed"


def test_run_is_refused_in_a_sentence_when_a_parameter_is_none(
    prefect_server: PrefectServer, model: Model
) -> None:
    """Which one, and what it must be."""
    run = ended(prefect_server, model=model.name, version=2, min_accuracy="high")
    assert (run["state_type"], run["state_name"]) == ("FAILED", "Refused")
    assert (
        "a parameter cannot be used: min_accuracy: Input should be a valid number" in run["state"]["message"]
    )
