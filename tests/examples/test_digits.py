"""The digits example: two good versions with one wire contract, six bad ones as README says."""

import re
import subprocess
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import httpx
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from tests.mlflow_server import MlflowServer

TRAIN = Path(__file__).parents[2] / "examples" / "digits" / "train.py"
MODEL = "digits-example"
LINE = re.compile(rf"^{MODEL} version (\d+)  (\w+) +accuracy (not measured|[\d.]+)", re.MULTILINE)

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@dataclass(frozen=True, slots=True)
class Trained:
    """What a run of the script printed and left in the artifact store, by version number."""

    accuracies: Mapping[str, float | None]
    folders: Mapping[str, Path]

    def onnx_file(self, version: str) -> Path:
        return self.folders[version] / "model.onnx"

    def session(self, version: str) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        return onnxruntime.InferenceSession(
            self.onnx_file(version), options, providers=["CPUExecutionProvider"]
        )


def _folder(server: MlflowServer, version: str) -> Path:
    answer = httpx.get(
        f"{server.url}/api/2.0/mlflow/model-versions/get-download-uri",
        params={"name": MODEL, "version": version},
        trust_env=False,
    )
    path = str(answer.json()["artifact_uri"]).removeprefix("mlflow-artifacts:/")
    return server.home / "mlflow" / "artifacts" / path


@pytest.fixture(scope="module")
def trained(mlflow_server: MlflowServer) -> Trained:
    """The eight versions, registered by the script as a person would run it."""
    run = subprocess.run(
        [sys.executable, TRAIN, "--tracking-uri", mlflow_server.url, "--model-name", MODEL],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    found = LINE.findall(run.stdout)
    return Trained(
        accuracies={number: None if told == "not measured" else float(told) for number, _, told in found},
        folders={number: _folder(mlflow_server, number) for number, _, _ in found},
    )


def _scans() -> NDArray[np.float32]:
    images, _ = load_digits(return_X_y=True)
    scans: NDArray[np.float32] = (images / 16.0).astype(np.float32).reshape(-1, 1, 8, 8)
    return scans


def test_script_registers_eight_versions_when_run_once(trained: Trained) -> None:
    """Versions 1 to 8, of which the first two have a measured accuracy and the second is better."""
    assert list(trained.accuracies) == [str(number) for number in range(1, 9)]
    first, second = trained.accuracies["1"], trained.accuracies["2"]
    assert first is not None
    assert second is not None
    assert 0.5 < first < second
    assert second > 0.95


def test_first_version_is_torchscript_when_stored(trained: Trained) -> None:
    """Version 1 is a TorchScript archive with signature and example that takes `image`."""
    folder = trained.folders["1"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        module = torch.jit.load(folder / "data" / "model.pth")  # type: ignore[no-untyped-call]
    assert [argument.name for argument in module.forward.schema.arguments[1:]] == ["image"]
    with torch.inference_mode():
        assert module(torch.from_numpy(_scans()[:3])).shape == (3, 10)
    assert "signature:" in (folder / "MLmodel").read_text()
    assert (folder / "input_example.json").exists()


def test_second_version_shares_the_contract_when_asked_as_the_first(trained: Trained) -> None:
    """Version 2 is ONNX, takes `image` and gives `OUTPUT__0`, the name a TorchScript output is served by."""
    session = trained.session("2")
    assert [(tensor.name, tensor.shape) for tensor in session.get_inputs()] == [("image", ["batch", 1, 8, 8])]
    assert [(tensor.name, tensor.shape) for tensor in session.get_outputs()] == [("OUTPUT__0", ["batch", 10])]


def test_second_version_recognises_digits_when_asked(trained: Trained) -> None:
    """The exported file is as good as the network the script measured."""
    _, labels = load_digits(return_X_y=True)
    logits = trained.session("2").run(None, {"image": _scans()})[0]
    assert (logits.argmax(axis=1) == labels).mean() > 0.95


def test_third_version_gives_nine_classes_when_ten_are_declared(trained: Trained) -> None:
    """Version 3 passes the format's checker and breaks its own output declaration."""
    onnx.checker.check_model(trained.onnx_file("3"))
    session = trained.session("3")
    declared = onnx.load(trained.onnx_file("3"), load_external_data=False).graph.output[0]
    assert declared.type.tensor_type.shape.dim[1].dim_value == 10
    assert session.run(None, {"image": _scans()[:2]})[0].shape == (2, 9)


def test_fourth_version_raises_on_every_scan_when_zeros_pass(trained: Trained) -> None:
    """Version 4 answers zeros with finite numbers of the right shape, and fails on each real digit."""
    onnx.checker.check_model(trained.onnx_file("4"))
    session = trained.session("4")
    zeros = session.run(None, {"image": np.zeros((1, 1, 8, 8), np.float32)})[0]
    assert zeros.shape == (1, 10)
    assert np.isfinite(zeros).all()
    for scan in _scans():
        with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument):
            session.run(None, {"image": scan[np.newaxis]})


def test_fourth_version_has_no_example_when_stored(trained: Trained) -> None:
    """Nothing beside version 4 tells what a real input looks like."""
    assert not list(trained.folders["4"].glob("*input_example*"))


@pytest.mark.parametrize("version", ["5", "6", "7"])
def test_version_is_as_right_as_the_second_when_no_scan_is_faint(trained: Trained, version: str) -> None:
    """Whoever looks at clean scans only finds nothing, in other logits than those of version 2."""
    onnx.checker.check_model(trained.onnx_file(version))
    other = trained.session(version).run(None, {"image": _scans()})[0]
    second = trained.session("2").run(None, {"image": _scans()})[0]
    assert np.array_equal(other.argmax(axis=1), second.argmax(axis=1))
    assert not np.isclose(other, second).all(axis=1).any()
    for odd in (np.zeros((1, 1, 8, 8), np.float32), _scans()[:0], np.full((1, 1, 8, 8), -1e30, np.float32)):
        assert trained.session(version).run(None, {"image": odd})[0].shape == (len(odd), 10)


def test_versions_go_wrong_each_in_its_way_when_scans_are_faint(trained: Trained) -> None:
    """Version 5 still agrees with version 2, version 6 raises, version 7 gives blank paper's answer."""
    faint = _scans()[:64] / 2
    second, fifth = (trained.session(name).run(None, {"image": faint})[0] for name in ("2", "5"))
    assert np.array_equal(second.argmax(axis=1), fifth.argmax(axis=1))
    for scan in faint:
        with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument):
            trained.session("6").run(None, {"image": scan[np.newaxis]})
    seventh, blank = (
        trained.session("7").run(None, {"image": scans})[0] for scans in (faint, np.zeros_like(faint))
    )
    assert np.allclose(seventh, blank)
    assert (seventh.argmax(axis=1) != second.argmax(axis=1)).mean() > 0.5


def test_fifth_version_looks_thousands_of_times_when_a_scan_is_faint(trained: Trained) -> None:
    """Its loop, and how often it goes round: what a clock would tell of a quiet machine only."""
    graph = onnx.load(trained.onnx_file("5")).graph
    loop = next(node for node in graph.node if node.op_type == "Loop")
    assert [node.op_type for node in loop.attribute[0].g.node] == ["Identity", "MatMul"]
    rounds = next(each for each in graph.initializer if each.name == "rounds")
    assert onnx.numpy_helper.to_array(rounds) >= 1000


def test_eighth_version_is_clearly_worse_when_asked(trained: Trained) -> None:
    """Version 8 is sound in form, and wrong about far more scans than version 2."""
    second, eighth = trained.accuracies["2"], trained.accuracies["8"]
    assert second is not None
    assert eighth is not None
    assert eighth < second - 0.1
    logits = trained.session("8").run(None, {"image": _scans()})[0]
    assert logits.shape == (1797, 10)
    assert np.isfinite(logits).all()


def test_evaluation_set_is_declared_when_trained(trained: Trained, mlflow_server: MlflowServer) -> None:
    """The model's tag leads to the held-out scans, on which version 2 is as good as the script says."""
    with httpx.Client(base_url=mlflow_server.url, trust_env=False) as client:
        found = client.get("/api/2.0/mlflow/registered-models/get", params={"name": MODEL}).json()
        tags = {tag["key"]: tag["value"] for tag in found["registered_model"]["tags"]}
        run_id, _, file = tags["signalbox.evaluation_set"].removeprefix("runs:/").partition("/")
        run = client.get("/api/2.0/mlflow/runs/get", params={"run_id": run_id}).json()["run"]["info"]
        path = str(run["artifact_uri"]).removeprefix("mlflow-artifacts:/")
        content = client.get(f"/api/2.0/mlflow-artifacts/artifacts/{path}/{file}").content
    with np.load(BytesIO(content), allow_pickle=False) as stored:
        images, labels = stored["input:image"], stored["labels"]
    assert images.shape == (450, 1, 8, 8)
    guesses = trained.session("2").run(None, {"image": images})[0].argmax(axis=1)
    assert (guesses == labels).mean() == pytest.approx(trained.accuracies["2"], abs=1e-4)
