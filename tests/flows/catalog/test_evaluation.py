"""The evaluation set: where it is declared, what it must hold, and whether it fits a model."""

import zipfile
from collections.abc import Mapping
from pathlib import Path

import httpx
import numpy as np
import pytest

from flows.catalog.evaluation import EvaluationRefused, declared, download, misfit, read_evaluation
from flows.catalog.facts import Metric
from serving.core.errors import RegistryUnavailable
from serving.core.model import TensorSpec
from tests.flows.catalog.folders import Array, evaluation_file

TAG = "signalbox.evaluation_set"
X = np.zeros((4, 3), np.float32)
LABELS = np.arange(4)


@pytest.mark.parametrize(
    ("model", "version", "uri"),
    [
        ({}, {}, None),
        ({TAG: "a"}, {}, "a"),
        ({}, {TAG: "b"}, "b"),
        ({TAG: "a"}, {TAG: "b"}, "b"),
        ({TAG: ""}, {}, None),
    ],
)
def test_version_outranks_model_when_both_declare(
    model: Mapping[str, str], version: Mapping[str, str], uri: str | None
) -> None:
    """A version's own set is used before its model's."""
    assert declared(model, version) == uri


def test_set_is_read_when_whole(tmp_path: Path) -> None:
    """Inputs by name and labels; text arrives as objects, like everywhere else."""
    names = np.array(["one", "two", "three", "four"])
    found = read_evaluation(evaluation_file(tmp_path, {"x": X, "name": names}, LABELS))
    assert found.rows == 4
    assert found.inputs["x"].tolist() == X.tolist()
    assert found.inputs["name"].dtype == np.object_
    assert found.labels.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("inputs", "labels", "why"),
    [
        pytest.param({"x": X}, None, "has no 'labels' array", id="no labels"),
        pytest.param({}, LABELS, "has no 'input:<name>' arrays", id="no inputs"),
        pytest.param({"x": X}, LABELS[:3], "'input:x' [4, 3], 'labels' [3]", id="unequal rows"),
        pytest.param({"x": X, "z": X[:2]}, LABELS, "'input:z' [2, 3]", id="unequal inputs"),
        pytest.param({"x": X}, LABELS[:, None], "one label per row", id="labels of rank 2"),
        pytest.param({"x": np.float32(1)}, LABELS, "one label per row", id="scalar input"),
        pytest.param({"x": X[:0]}, LABELS[:0], "has no rows", id="empty"),
    ],
)
def test_set_is_refused_when_incomplete(
    tmp_path: Path, inputs: dict[str, Array], labels: Array | None, why: str
) -> None:
    """Each defect is one sentence that names the arrays."""
    path = evaluation_file(tmp_path, inputs, labels)
    with pytest.raises(EvaluationRefused) as refused:
        read_evaluation(path)
    assert why in str(refused.value)


WORDS = np.array(["a", "b", "a", "a"])
ROUTES = np.array([[1.0, 2.0], [3.0, 0.0], [0.0, 0.0], [5.0, 4.0]])


def with_arrays(folder: Path, **arrays: Array) -> Path:
    path = folder / "evaluation.npz"
    np.savez(path, allow_pickle=False, **{"input:x": X, **arrays})
    return path


@pytest.mark.parametrize(
    ("name", "sign", "best"), [("route_values", 1, [1, 0, 0, 0]), ("route_costs", -1, [0, 1, 0, 1])]
)
def test_routes_are_worth_more_or_cost_less_when_given(
    tmp_path: Path, name: str, sign: int, best: list[int]
) -> None:
    """Either orientation becomes one; without labels the best route is the label."""
    found = read_evaluation(with_arrays(tmp_path, **{name: ROUTES}))
    assert found.routes is not None
    assert (found.routes == sign * ROUTES).all()
    assert found.labels.tolist() == best
    assert found.truth(Metric.REGRET) is found.routes
    assert found.truth(Metric.ACCURACY) is found.labels


def test_labels_are_numbered_when_the_set_names_its_classes(tmp_path: Path) -> None:
    """In the order of the scores' columns."""
    labels, classes = np.array(["dog", "cat", "dog", "owl"]), np.array(["owl", "cat", "dog"])
    found = read_evaluation(with_arrays(tmp_path, labels=labels, classes=classes))
    assert found.labels.tolist() == [2, 1, 2, 0]


@pytest.mark.parametrize(
    ("arrays", "why"),
    [
        pytest.param({"route_values": ROUTES, "route_costs": ROUTES}, "has both", id="both orientations"),
        pytest.param({"route_values": ROUTES[:, :1]}, "must be numbers (rows, routes)", id="one route"),
        pytest.param({"route_values": ROUTES * np.nan}, "NaN or infinity", id="NaN"),
        pytest.param({"route_values": ROUTES[:2]}, "'route_values' [2, 2]", id="rows too few"),
        pytest.param(
            {"labels": np.array(["a"] * 4), "classes": np.array(["b"])}, "label 'a' is none", id="class"
        ),
        pytest.param({"labels": LABELS, "classes": np.array([["b"]])}, "not (classes,)", id="classes' shape"),
        pytest.param(
            {"label": LABELS}, "has no 'labels' array (it has 'input:x', 'label')", id="typing error"
        ),
    ],
)
def test_columns_that_do_not_fit_are_named_when_read(
    tmp_path: Path, arrays: dict[str, Array], why: str
) -> None:
    """Which array, and what it should be."""
    with pytest.raises(EvaluationRefused) as refused:
        read_evaluation(with_arrays(tmp_path, **arrays))
    assert why in str(refused.value)


def _text(path: Path) -> None:
    path.write_text("<html>")


def _empty(path: Path) -> None:
    path.touch()


def _pickled(path: Path) -> None:
    np.savez(path, allow_pickle=True, **{"input:x": np.array([{}], dtype=object), "labels": np.array([1])})


def _bomb(path: Path) -> None:
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("labels.npy", "w", force_zip64=True) as member,
    ):
        for _ in range(2049):
            member.write(bytes(1 << 20))


@pytest.mark.parametrize("spoil", [_text, _empty, _pickled])
def test_set_is_refused_when_its_file_is_no_archive_of_plain_arrays(tmp_path: Path, spoil: object) -> None:
    """A damaged file and a pickle are refused alike, and no pickle is opened."""
    assert callable(spoil)
    path = tmp_path / "evaluation.npz"
    spoil(path)
    with pytest.raises(EvaluationRefused, match=r"is damaged or is no \.npz"):
        read_evaluation(path)


@pytest.mark.slow
def test_set_is_refused_when_it_would_unpack_without_bound(tmp_path: Path) -> None:
    """Two megabytes on disk that would become two gigabytes are never unpacked."""
    path = tmp_path / "evaluation.npz"
    _bomb(path)
    with pytest.raises(EvaluationRefused, match="more than 2048 MB"):
        read_evaluation(path)


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        pytest.param(TensorSpec("x", "FP32", (-1, 3)), None, id="fits"),
        pytest.param(TensorSpec("x", "FP32", (2, 3)), None, id="fits a fixed batch"),
        pytest.param(TensorSpec("x", "FP32", (-1, -1)), None, id="fits a free axis"),
        pytest.param(TensorSpec("x", "BF16", (-1, 3)), None, id="FP32 stands in for BF16"),
        pytest.param(TensorSpec("x", "INT64", None), None, id="shape and type unknown"),
        pytest.param(TensorSpec("z", "FP32", (-1, 3)), "has no input 'z' (it has x)", id="name"),
        pytest.param(TensorSpec("x", "FP64", (-1, 3)), "is FP32, the model takes FP64", id="type"),
        pytest.param(TensorSpec("x", "FP32", (-1, 4)), "has shape [4, 3]", id="width"),
        pytest.param(TensorSpec("x", "FP32", (-1, 3, 1)), "has shape [4, 3]", id="rank"),
        pytest.param(TensorSpec("x", "FP32", ()), "has shape [4, 3]", id="scalar"),
    ],
)
def test_misfit_is_named_when_the_model_takes_something_else(
    tmp_path: Path, spec: TensorSpec, why: str | None
) -> None:
    """Missing inputs, other types and other shapes are told before anything is asked."""
    found = misfit(read_evaluation(evaluation_file(tmp_path, {"x": X}, LABELS)), [spec])
    assert (found is None) == (why is None)
    assert (why or "") in (found or "")


@pytest.mark.parametrize(
    "uri", ["s3://bucket/set.npz", "runs:/1/set.csv", "mlflow-artifacts:/../secret.npz", "set.npz", ""]
)
def test_address_is_refused_when_it_is_of_another_form(tmp_path: Path, uri: str) -> None:
    """Only a run's or the proxy's own archive is fetched; the sentence shows both forms."""
    with httpx.Client(base_url="http://127.0.0.1:9") as client, pytest.raises(EvaluationRefused) as refused:
        download(client, uri, tmp_path / "set.npz")
    assert "runs:/<run id>/<path>.npz" in str(refused.value)


@pytest.mark.parametrize("uri", ["runs:/1/set.npz", "mlflow-artifacts:/set.npz"])
@pytest.mark.parametrize("status", [500, 401, 200])
def test_fetching_fails_as_unavailable_when_the_registry_does_not_answer(
    tmp_path: Path, uri: str, status: int
) -> None:
    """A registry that is away is no verdict on the set: the caller tries again later."""
    silent = httpx.Client(base_url="http://127.0.0.1:9", trust_env=False)
    with silent, pytest.raises(RegistryUnavailable):
        download(silent, uri, tmp_path / "set.npz")
    if uri.startswith("runs:"):
        broken = httpx.MockTransport(lambda request: httpx.Response(status, text="?"))
        with (
            httpx.Client(transport=broken, base_url="http://x") as client,
            pytest.raises(RegistryUnavailable),
        ):
            download(client, uri, tmp_path / "set.npz")


def test_run_is_refused_when_its_artifacts_are_not_proxied(tmp_path: Path) -> None:
    """A scheme that this project does not read is named, with the way out."""
    answer = {"run": {"info": {"artifact_uri": "s3://bucket/1/artifacts"}}}
    transport = httpx.MockTransport(lambda request: httpx.Response(200, json=answer))
    with (
        httpx.Client(transport=transport, base_url="http://x") as client,
        pytest.raises(EvaluationRefused, match="'s3:', which is not read"),
    ):
        download(client, "runs:/1/set.npz", tmp_path / "set.npz")
