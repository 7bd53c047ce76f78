"""MLflow's deployments interface: found by its entry point, and every refusal an exception of MLflow's."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow.deployments import get_deploy_client, run_local
from mlflow.exceptions import MlflowException

from flows.cli.mlflow_options import payload
from flows.cli.mlflow_plugin import SignalboxClient, target_help
from tests.prefect_server import ROOT

ENTRY_POINT = 'signalbox = "flows.cli.mlflow_plugin"'


def installed(folder: Path) -> str:
    """A folder for the path that declares the entry point as an installed package does."""
    told = folder / "signalbox_plugin-1.0.dist-info"
    told.mkdir(parents=True)
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: signalbox-plugin\nVersion: 1.0\n")
    (told / "entry_points.txt").write_text("[mlflow.deployments]\nsignalbox = flows.cli.mlflow_plugin\n")
    return str(folder)


@pytest.fixture
def client(home: Path) -> SignalboxClient:
    """Nobody serves at its address."""
    return SignalboxClient("signalbox://127.0.0.1:9")


def test_package_declares_the_entry_point_when_built() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    assert f'[project.entry-points."mlflow.deployments"]\n{ENTRY_POINT}\n' in text


def test_client_is_found_by_mlflow_when_installed(home: Path, tmp_path: Path) -> None:
    """By its own command line, in a process of its own: the help is ours."""
    path = os.pathsep.join((installed(tmp_path / "site"), str(ROOT)))
    run = subprocess.run(
        [sys.executable, "-m", "mlflow", "deployments", "help", "-t", "signalbox"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert target_help().splitlines()[0] in run.stdout


@pytest.mark.parametrize(
    ("model_uri", "config", "problem"),
    [
        ("models:/other/2", {}, "is named models:/digits/VERSION, not 'models:/other/2'"),
        ("runs:/abc/model", {}, "is named models:/digits/VERSION"),
        ("models:/digits/2", {"speed": "1"}, "'speed' is no option; known are"),
        ("models:/digits/2", {"stages": "5,many"}, "an option cannot be used"),
        ("models:/digits/2", {"min_accuracy": "good"}, "an option cannot be used"),
    ],
)
def test_promotion_is_refused_when_it_cannot_be_meant(
    client: SignalboxClient, model_uri: str, config: dict[str, str], problem: str
) -> None:
    with pytest.raises(MlflowException, match=problem):
        client._promote("digits", model_uri, config, usual_strategy="staged")


def test_refusals_are_exceptions_of_mlflow_when_nobody_serves(client: SignalboxClient) -> None:
    """One sentence each, with the next step."""
    for call in (
        lambda: client.list_deployments(),
        lambda: client.get_deployment("digits"),
        lambda: client.predict("digits", [[1.0]]),
        lambda: run_local("signalbox://127.0.0.1:9", "digits", "models:/digits/1"),
    ):
        with pytest.raises(MlflowException):
            call()
    with pytest.raises(MlflowException, match=r"cannot be reached: .*; start it with 'signalbox up'"):
        client.list_deployments()


def test_flavour_and_endpoint_are_refused(client: SignalboxClient) -> None:
    with pytest.raises(MlflowException, match="the flavour is the version's own"):
        client.create_deployment("digits", "models:/digits/1", flavor="onnx")
    with pytest.raises(MlflowException, match="has no endpoints"):
        client.list_deployments(endpoint="blue")
    with pytest.raises(MlflowException, match="name one with -m"):
        client.update_deployment("digits")


@pytest.mark.parametrize(
    ("inputs", "sent"),
    [
        (
            pd.DataFrame({"a": [1, 2]}),
            {"dataframe_split": {"index": [0, 1], "columns": ["a"], "data": [[1], [2]]}},
        ),
        (np.array([[1.5]]), {"inputs": [[1.5]]}),
        ({"x": np.array([1.5])}, {"inputs": {"x": [1.5]}}),
        ({"inputs": {"x": [1]}}, {"inputs": {"x": [1]}}),
        ({"instances": [1]}, {"instances": [1]}),
    ],
)
def test_inputs_become_a_scoring_request(inputs: object, sent: object) -> None:
    assert json.loads(json.dumps(payload(inputs))) == sent


def test_client_is_one_class_when_mlflow_looks(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow refuses a module with several; it needs `run_local` and `target_help` beside."""
    monkeypatch.syspath_prepend(installed(tmp_path / "site"))
    from mlflow.deployments import interface

    interface.plugin_store.register_entrypoints()
    found = get_deploy_client("signalbox://127.0.0.1:9")
    assert isinstance(found, SignalboxClient)
