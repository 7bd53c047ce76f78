"""`signalbox register` as a user runs it: one file to one version, one sentence for everything else."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from serving.core.model import Tag
from serving.store.database import upgrade
from serving.store.registry import Registry
from tests.mlflow_server import MlflowServer
from tests.models import onnx_adder, onnx_wrong_shape

ROOT = Path(__file__).parents[3]
Run = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.integration


@pytest.fixture
def run(home: Path, mlflow_server: MlflowServer) -> Run:
    """Run `signalbox register` with the test's home and the session's MLflow."""
    upgrade(f"sqlite:///{home}/signalbox.db")
    ours = {"PYTHONPATH": str(ROOT), "SIGNALBOX_MLFLOW_URL": mlflow_server.url}

    def register(*arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-P", "-m", "flows.cli.main", "register", *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
            env={**os.environ, **ours},
        )

    return register


def test_file_is_registered_when_it_is_sound(run: Run, tmp_path: Path, mlflow_server: MlflowServer) -> None:
    """With what the options say; a second time it says which version it is already."""
    source = onnx_adder(tmp_path / "a") / "model.onnx"
    (tmp_path / "labels.txt").write_text("a\nb\nc\n")
    arrays: dict[str, Any] = {"input:x": np.ones((4, 3), np.float32), "labels": np.zeros(4, np.int64)}
    np.savez(tmp_path / "set.npz", allow_pickle=False, **arrays)
    said = ("--type", "classifier", "--description", "Adds.", "--author", "A", "--metric", "accuracy=0.5")
    files = ("--labels", tmp_path / "labels.txt", "--evaluation-set", tmp_path / "set.npz")
    done = run(source, "--name", "cli-taken", *said, *files, "--tag", "stage=trial", "--param", "epochs=3")
    assert done.returncode == 0, done.stderr
    first, *notes = done.stdout.splitlines()
    assert first == "'model.onnx' is version 1 of cli-taken"
    assert "first rows of the evaluation set (4 rows)" in notes[0]
    with httpx.Client(base_url=mlflow_server.url, trust_env=False) as client:
        registry = Registry(client, lambda model: True)
        [version] = registry.versions("cli-taken")
        model = registry.registered_model("cli-taken")
        run_of_it = registry.run(version.run_id)
    assert version.tags[Tag.AUTHOR] == "A"
    assert (version.tags[Tag.LABELS], version.tags["stage"]) == ("a, b, c", "trial")
    assert model.tags[Tag.MODEL_TYPE] == "classifier"
    assert (run_of_it.metrics["accuracy"], run_of_it.params["epochs"]) == (0.5, "3")
    again = run(source, "--name", "cli-taken")
    assert again.returncode == 0
    assert "version 1 of cli-taken" in again.stdout
    [told] = [json.loads(run(source, "--name", "cli-taken", "--json").stdout)]
    assert (told["version"], told["model"], told["reason"]) == ("1", "cli-taken", None)


def test_bad_file_is_refused_in_a_sentence(run: Run, tmp_path: Path) -> None:
    """Exit code 1, the reason on stderr, nothing on stdout; as JSON the reason is a field."""
    source = onnx_wrong_shape(tmp_path / "a") / "model.onnx"
    done = run(source, "--name", "cli-refused")
    assert (done.returncode, done.stdout) == (1, "")
    reason = "its self-test failed: output 'y' has shape [2, 9], declared [-1, 10]"
    assert f"error: 'model.onnx' was not registered: {reason}" in done.stderr
    told = run(source, "--name", "cli-refused", "--json")
    assert told.returncode == 1
    assert json.loads(told.stdout)["result"] == "refused"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("gone.onnx", "--name", "n"), "there is no model file"),
        (("a/model.onnx", "--name", "a/b"), "'a/b' is no name for a model"),
        (("a/model.onnx", "--name", "n", "--type", "kitten"), "key 'model_type'"),
        (("a/model.onnx", "--name", "n", "--metric", "accuracy"), "--metric 'accuracy' is no NAME=VALUE"),
        (("a/model.onnx", "--name", "n", "--metric", "accuracy=high"), "is no NAME=NUMBER"),
        (("a/model.onnx", "--name", "n", "--labels", "gone.txt"), "there is no file 'gone.txt'"),
    ],
)
def test_command_is_refused_when_an_argument_is_none(
    run: Run, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    onnx_adder(tmp_path / "a")
    done = run(*arguments)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
