"""`mlflow deployments -t signalbox` from MLflow's own command line, on real MLflow, Prefect and serving."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serving.store.rollouts import State
from tests.flows.cli.test_mlflow_plugin import installed
from tests.integration.conftest import StartServing
from tests.integration.promotions import Promotions, promoting
from tests.mlflow_registry import MlflowRegistry
from tests.prefect_server import ROOT, PrefectServer
from tests.traffic import Traffic, failed, wrong

# MLflow's command line takes its time to begin, four times over.
pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]
SECONDS = 180


@pytest.fixture
def promotions(
    registry: MlflowRegistry, prefect_server: PrefectServer, start_serving: StartServing
) -> Iterator[Promotions]:
    with promoting(registry, prefect_server, start_serving) as promotions:
        yield promotions


def numbers(told: Any) -> Iterator[float]:
    """Every number of an answer, however MLflow nests them."""
    if isinstance(told, dict | list):
        for inner in told.values() if isinstance(told, dict) else told:
            yield from numbers(inner)
    else:
        yield float(told)


def test_update_promotes_by_stages_and_predict_answers(promotions: Promotions, tmp_path: Path) -> None:
    """The way a user of MLflow goes, under live traffic: update, get, predict, delete."""
    model, serving = promotions.serve("onnx:1", "onnx:2")
    path = os.pathsep.join((installed(tmp_path / "site"), str(ROOT)))
    environment = promotions.prefect.environment | {
        "PYTHONPATH": path,
        "SIGNALBOX_HOME": str(serving.home),
        "SIGNALBOX_STORE_URL": serving.store_url,
        "SIGNALBOX_SERVING_URL": serving.url,
    }

    def deployments(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "mlflow", "deployments", *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )

    target = ("-t", "signalbox", "--name", model.name)
    exists = deployments("create", *target, "-m", f"models:/{model.name}/2")
    assert exists.returncode != 0
    assert "exists already; change it with update" in exists.stderr
    plan = ("-C", "stages=50,100", "-C", "stage_seconds=3")
    with Traffic(serving.url, model.name, rate_per_second=40) as traffic:
        updated = deployments("update", *target, "-m", f"models:/{model.name}/2", *plan)
    assert updated.returncode == 0, updated.stderr
    rollout = promotions.finished(model)
    assert (rollout.state, rollout.requested_by) == (State.PROMOTED, "admin")
    assert [stage["percent"] for stage in (rollout.status or {})["passed"]] == [50, 100]
    assert (failed(traffic.samples), wrong(traffic.samples, model.constants)) == ([], [])
    shown = deployments("get", *target)
    assert f"model_uri: models:/{model.name}/2" in shown.stdout
    (tmp_path / "rows.json").write_text(json.dumps([{"0": 0.5, "1": 0.5, "2": 0.5}]))
    answered = deployments("predict", *target, "-I", "rows.json")
    assert answered.returncode == 0, answered.stderr
    told = json.loads(answered.stdout.strip().splitlines()[-1])["predictions"]
    assert list(numbers(told)) == pytest.approx([2.5, 2.5, 2.5]), told
    assert deployments("delete", *target).returncode == 0
    assert "champion" not in model.aliases()
    assert deployments("delete", *target).returncode == 0
