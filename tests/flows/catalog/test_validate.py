"""A validation from the registry to the report, against a real MLflow server and on the command line."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from flows.catalog.validate import Validation, run
from flows.catalog.verdict import CheckName, Verdict
from flows.settings import FlowSettings, part_environment
from serving.core.errors import NotServed, RegistryUnavailable
from serving.core.model import VersionRef
from serving.store.database import upgrade
from serving.store.inference_log import log_folder
from tests.flows.catalog.folders import (
    QUICK,
    evaluation_file,
    one_hot_rows,
    onnx_projection,
    onnx_shifted_classes,
)
from tests.flows.catalog.registered import Model
from tests.flows.conftest import SettingsFactory
from tests.logged import write_log
from tests.mlflow_server import MlflowServer
from tests.models import describe, onnx_echo, save_onnx, torch_adder

pytestmark = pytest.mark.integration


@pytest.fixture
def model(mlflow_server: MlflowServer) -> Iterator[Model]:
    with httpx.Client(base_url=mlflow_server.url, trust_env=False) as client:
        yield Model(client)


@pytest.fixture
def settings(make_settings: SettingsFactory, mlflow_server: MlflowServer) -> FlowSettings:
    return make_settings(mlflow_url=mlflow_server.url)


@pytest.fixture
def evaluation(tmp_path: Path) -> Path:
    return evaluation_file(tmp_path / "set", {"x": one_hot_rows(60)}, np.arange(60) % 3)


def request(model: Model, version: str, **different: Any) -> Validation:
    return Validation(VersionRef(model.name, version), QUICK, **different)


def test_report_compares_with_the_champion_when_both_are_registered(
    model: Model, settings: FlowSettings, evaluation: Path, tmp_path: Path
) -> None:
    """Versions and set come through the artifact proxy; the worse one is refused for its accuracy."""
    good, worse = model.add(onnx_echo(tmp_path / "one")), model.add(onnx_shifted_classes(tmp_path / "two"))
    same = model.add(onnx_echo(tmp_path / "three"))
    model.point(good)
    uri = f"runs:/{model.run_with(evaluation)}/sets/evaluation.npz"
    model.declare(uri)
    refused = run(request(model, worse), settings)
    assert (refused.champion, refused.evaluation_set, refused.format) == (good, uri, "onnx")
    assert [reason.split(":")[0] for reason in refused.reasons] == ["accuracy"]
    assert refused.check(CheckName.ACCURACY).evidence["accuracy"] == 0.0
    passed = run(request(model, same), settings)
    assert passed.verdict is Verdict.PASSED
    assert passed.digest != refused.digest
    assert list(settings.home.glob("validation-*")) == []


def test_version_is_judged_alone_when_it_is_the_champion(
    model: Model, settings: FlowSettings, tmp_path: Path
) -> None:
    """Nothing is compared with itself; another version may be named instead."""
    one, two = model.add(onnx_echo(tmp_path / "one")), model.add(onnx_echo(tmp_path / "two"))
    model.point(one)
    assert run(request(model, one), settings).champion is None
    assert run(request(model, one, champion=two), settings).champion == two


def test_set_of_the_version_is_used_when_the_model_has_one_too(
    model: Model, settings: FlowSettings, evaluation: Path, tmp_path: Path
) -> None:
    """The version's tag wins, here over a set that does not exist."""
    version = model.add(onnx_echo(tmp_path / "one"))
    model.declare("runs:/nothing/here.npz")
    model.upload(evaluation, f"{model.name}/own.npz")
    model.declare(f"mlflow-artifacts:/{model.name}/own.npz", version)
    assert run(request(model, version), settings).check(CheckName.ACCURACY).verdict is Verdict.PASSED


@pytest.mark.parametrize(
    ("uri", "why"),
    [
        ("runs:/nothing/here.npz", "names run nothing, which MLflow does not have"),
        ("mlflow-artifacts:/nowhere/at-all.npz", "there is no evaluation set at"),
        ("s3://bucket/set.npz", "must be given as runs:/<run id>/<path>.npz"),
    ],
)
def test_version_fails_when_its_set_cannot_be_found(
    model: Model, settings: FlowSettings, tmp_path: Path, uri: str, why: str
) -> None:
    """A declared set that is not there is a refusal that names it, not a gap in the report."""
    version = model.add(onnx_echo(tmp_path / "one"))
    model.declare(uri)
    report = run(request(model, version), settings)
    assert report.verdict is Verdict.FAILED
    assert why in report.reason


def test_version_fails_to_load_when_its_files_are_gone(
    model: Model, settings: FlowSettings, mlflow_server: MlflowServer, tmp_path: Path
) -> None:
    """An artifact that the store lost is the version's failure; the registry itself answered."""
    empty = tmp_path / "empty"
    empty.mkdir()
    report = run(request(model, model.add(empty)), settings)
    assert [check.name for check in report.checks if check.verdict is Verdict.FAILED] == [CheckName.LOADS]


def test_validation_raises_when_there_is_nothing_to_judge(
    model: Model, make_settings: SettingsFactory, settings: FlowSettings
) -> None:
    """An unknown version and an unreachable registry are errors, no verdicts."""
    with pytest.raises(NotServed, match="no version 7"):
        run(request(model, "7"), settings)
    with pytest.raises(RegistryUnavailable):
        run(request(model, "1"), make_settings(mlflow_url="http://127.0.0.1:9"))


def _command(settings: FlowSettings, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "flows.cli.main", "validate", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=part_environment(settings),
    )


def test_command_prints_and_exits_by_verdict_when_run(
    model: Model, settings: FlowSettings, tmp_path: Path
) -> None:
    """0 and a table for a good version, 1 and the reason for a bad one, one sentence for none at all."""
    import onnx

    wrong = onnx.load(onnx_echo(tmp_path / "echo") / "model.onnx")
    wrong.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 4
    wrong.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 4
    good = model.add(describe(onnx_echo(tmp_path / "one"), flavor="onnx", example=[[1.0, 2.0, 3.0]]))
    bad = model.add(save_onnx(tmp_path / "two", wrong))
    model.point(good)
    upgrade(settings.database_url)
    shown = _command(settings, model.name, good)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert f"{model.name} version {good} passed validation" in shown.stdout
    refused = _command(settings, model.name, bad, "--json")
    assert refused.returncode == 1
    found = json.loads(refused.stdout)
    assert (found["verdict"], found["champion"]) == ("failed", good)
    missing = _command(settings, model.name, "99")
    assert missing.returncode == 1
    assert missing.stderr.startswith("error: the registry")


def test_command_warns_when_the_store_is_missing(
    model: Model, settings: FlowSettings, tmp_path: Path
) -> None:
    """The verdict stands, and what could not be kept is said."""
    shown = _command(settings, model.name, model.add(onnx_echo(tmp_path / "one")))
    assert shown.returncode == 0
    assert "warning: the report was not recorded" in shown.stderr


def test_siblings_are_found_by_their_tag_when_they_share_one(
    model: Model, settings: FlowSettings, tmp_path: Path
) -> None:
    """In any model: one that answers alike passes, one that does not refuses the claim."""
    name = f"{model.name}-network"
    onnx_version, script = model.add(onnx_echo(tmp_path / "onnx")), Model(model.client)
    pair = [("x", "float32", [-1, 3])]
    twin = script.add(describe(torch_adder(tmp_path / "twin", 0.0), inputs=pair, outputs=pair))
    assert run(request(model, onnx_version), settings).check(CheckName.PARITY).verdict is Verdict.NOT_MEASURED
    model.tag("signalbox.sibling", name, onnx_version)
    script.tag("signalbox.sibling", name, twin)
    alike = run(request(model, onnx_version), settings).check(CheckName.PARITY)
    assert alike.verdict is Verdict.PASSED
    assert f"answers as {script.name}/{twin} (torchscript) does" in alike.message
    unlike = describe(onnx_shifted_classes(tmp_path / "other"), flavor="onnx", example=[[1.0, 2.0, 3.0]])
    other = model.add(unlike)
    model.tag("signalbox.sibling", name, other)
    refused = run(request(model, other), settings)
    assert refused.check(CheckName.PARITY).verdict is Verdict.FAILED
    assert "output 'y' differs by up to 2, beside" in refused.reason


def test_recent_inputs_are_asked_again_when_a_replay_is_wanted(
    model: Model, settings: FlowSettings, tmp_path: Path
) -> None:
    """From the log under the home; without one the check says so and refuses nothing."""
    good, other = model.add(onnx_echo(tmp_path / "one")), model.add(onnx_shifted_classes(tmp_path / "two"))
    model.point(good)
    policy = replace(QUICK, replay_rows=50)
    wanted = Validation(VersionRef(model.name, other), policy)
    missing = run(wanted, settings)
    assert missing.check(CheckName.REPLAY).verdict is Verdict.NOT_MEASURED
    assert f"holds no rows of '{model.name}'" in missing.check(CheckName.REPLAY).message
    assert missing.passed
    write_log(log_folder(settings.home), {"x": one_hot_rows(60)}, ref=VersionRef(model.name, good))
    asked = run(wanted, settings).check(CheckName.REPLAY)
    assert (asked.verdict, asked.evidence["rows"], asked.evidence["agreement"]) == (Verdict.WARNING, 50, 0.0)
    shown = _command(settings, model.name, other, "--replay", "20", "--json")
    [replayed] = [each for each in json.loads(shown.stdout)["checks"] if each["name"] == "replay"]
    assert replayed["evidence"]["rows"] == 20


def test_command_refuses_a_limit_that_cannot_be_used(model: Model, settings: FlowSettings) -> None:
    """In one sentence, before anything is fetched."""
    shown = _command(settings, model.name, "1", "--max-accuracy-drop", "7")
    assert shown.returncode == 1
    assert shown.stderr == (
        "error: a limit cannot be used: max_accuracy_drop is a share between 0 and 1, not 7.0\n"
    )


def test_version_is_refused_when_it_needs_more_than_serving_may_hold(
    model: Model, make_settings: SettingsFactory, settings: FlowSettings, tmp_path: Path
) -> None:
    """The budget of serving is a limit of every validation, named or not."""
    weights = np.random.default_rng(1).random((2000, 2000), dtype=np.float32)
    large = model.add(onnx_projection(tmp_path / "large", weights))
    upgrade(settings.database_url)
    shown = _command(make_settings(mlflow_url=settings.mlflow_url, memory_mb=8), model.name, large)
    assert shown.returncode == 1
    assert "at most 8 MB are allowed" in shown.stdout
