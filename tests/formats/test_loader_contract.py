"""What every loader promises, run over each format with the same tiny models."""

import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from serving.core.datatypes import Array
from serving.core.errors import ArtifactRefused
from serving.core.model import Format, TensorSpec
from serving.formats.artifact import Artifact, inspect_artifact
from serving.formats.loader import LoadedModel, load
from serving.formats.selftest import Verdict, self_test
from tests import coreml_models, models, torch_exports


@dataclass(frozen=True)
class Dialect:
    """One format: how to make each model, and what it calls its tensors."""

    format: Format
    platform: str
    output: str
    adder: Callable[[Path], Path]
    raises_on_negative: Callable[[Path], Path]
    nan: Callable[[Path], Path]


def described(make: Callable[[Path], Path]) -> Callable[[Path], Path]:
    """TorchScript says nothing about shapes by itself, so a signature goes with it."""
    tensors = [("", "float32", [-1, 3])]
    return lambda folder: models.describe(make(folder), inputs=tensors, outputs=tensors)


DIALECTS = [
    Dialect(
        Format.ONNX,
        "onnx_onnxv1",
        "y",
        models.onnx_adder,
        models.onnx_raises_on_negative,
        models.onnx_nan,
    ),
    Dialect(
        Format.TORCHSCRIPT,
        "pytorch_torchscript",
        "OUTPUT__0",
        described(models.torch_adder),
        described(models.torch_raises_on_negative),
        described(models.torch_nan),
    ),
    Dialect(
        Format.PT2,
        "pytorch_pt2",
        "OUTPUT__0",
        torch_exports.export_adder,
        torch_exports.export_raises_on_negative,
        torch_exports.export_nan,
    ),
    Dialect(
        Format.COREML,
        "coreml_neuralnetwork",
        "y",
        coreml_models.translated(models.onnx_adder),
        coreml_models.translated(models.onnx_raises_on_negative),
        coreml_models.translated(models.onnx_nan),
    ),
]


@pytest.fixture(params=DIALECTS, ids=lambda dialect: str(dialect.format))
def dialect(request: pytest.FixtureRequest) -> Dialect:
    found: Dialect = request.param
    return found


def loaded(folder: Path) -> tuple[LoadedModel, Artifact]:
    artifact = inspect_artifact(folder)
    return load(artifact, threads=1), artifact


def rows(*values: float) -> dict[str, Array]:
    return {"x": np.array([[value] * 3 for value in values], dtype=np.float32)}


def test_loader_reports_specs_and_platform_when_loaded(dialect: Dialect, tmp_path: Path) -> None:
    """Names, datatypes and shapes as declared; only the batch axis varies."""
    model, artifact = loaded(dialect.adder(tmp_path))
    assert artifact.format is dialect.format
    assert model.platform == dialect.platform
    assert model.inputs == (TensorSpec("x", "FP32", (-1, 3)),)
    assert model.outputs == (TensorSpec(dialect.output, "FP32", (-1, 3)),)


def test_model_answers_when_asked_with_any_batch(dialect: Dialect, tmp_path: Path) -> None:
    """One row or many, each gets its own answer."""
    model, _ = loaded(dialect.adder(tmp_path))
    for inputs in (rows(1), rows(1, 2, 3), rows()):
        inputs = {"x": inputs["x"].reshape(-1, 3)}
        answer = model.predict(inputs)
        assert list(answer) == [dialect.output]
        np.testing.assert_array_equal(answer[dialect.output], inputs["x"] + 1)
        assert answer[dialect.output].dtype == np.float32


def test_model_takes_read_only_and_strided_arrays_when_asked(dialect: Dialect, tmp_path: Path) -> None:
    """Arrays straight from a request's buffer are fine, and no warning is raised."""
    model, _ = loaded(dialect.adder(tmp_path))
    read_only = np.frombuffer(np.ones(6, np.float32).tobytes(), np.float32).reshape(2, 3)
    strided = np.ones((3, 2), np.float32).T
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for array in (read_only, strided):
            np.testing.assert_array_equal(model.predict({"x": array})[dialect.output], np.full((2, 3), 2))


def test_model_answers_each_thread_its_own_when_asked_at_once(dialect: Dialect, tmp_path: Path) -> None:
    """Concurrent calls do not mix."""
    model, _ = loaded(dialect.adder(tmp_path))
    wrong: list[float] = []

    def ask(value: float) -> None:
        for _ in range(50):
            if not (model.predict(rows(value))[dialect.output] == value + 1).all():
                wrong.append(value)

    threads = [threading.Thread(target=ask, args=(float(value),)) for value in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_model_raises_when_its_code_raises(dialect: Dialect, tmp_path: Path) -> None:
    """What execution raises reaches the caller, and the model stays usable."""
    model, _ = loaded(dialect.raises_on_negative(tmp_path))
    with pytest.raises(Exception, match=r"."):
        model.predict(rows(-1))
    np.testing.assert_array_equal(model.predict(rows(2))[dialect.output], rows(2)["x"])


def test_model_refuses_to_answer_when_closed(dialect: Dialect, tmp_path: Path) -> None:
    """Closing twice is fine, asking afterwards is not."""
    model, _ = loaded(dialect.adder(tmp_path))
    model.close()
    model.close()
    with pytest.raises(RuntimeError, match="closed"):
        model.predict(rows(1))


def test_self_test_passes_when_only_real_inputs_would_fail(dialect: Dialect, tmp_path: Path) -> None:
    """Zeros do not find everything: that is what the watch is for."""
    model, artifact = loaded(dialect.raises_on_negative(tmp_path))
    assert self_test(model, artifact).verdict is Verdict.PASSED


def test_self_test_passes_when_zeros_of_our_making_give_nan(dialect: Dialect, tmp_path: Path) -> None:
    """Zeros may lie outside what a model was made for."""
    model, artifact = loaded(dialect.nan(tmp_path))
    assert np.isnan(model.predict(rows(0))[dialect.output]).all()
    assert self_test(model, artifact).verdict is Verdict.PASSED


@pytest.mark.parametrize("keep", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_loader_refuses_when_the_file_is_cut_short(dialect: Dialect, tmp_path: Path, keep: float) -> None:
    """Whatever was lost, the refusal is ours and names a next step."""
    payload = inspect_artifact(dialect.adder(tmp_path)).payload
    content = payload.read_bytes()
    payload.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(ArtifactRefused) as caught:
        loaded(tmp_path)
    assert payload.name in str(caught.value)
    assert caught.value.next_step


@pytest.mark.parametrize(
    "garbage", [b"hello, this is text\n", b"\x08\x99\xff\x00\x01" * 99, b"PK\x03\x04" * 99]
)
def test_loader_refuses_when_the_file_is_something_else(
    dialect: Dialect, tmp_path: Path, garbage: bytes
) -> None:
    """A page of text, noise, a broken zip: refused by name."""
    payload = inspect_artifact(dialect.adder(tmp_path)).payload
    payload.write_bytes(garbage)
    with pytest.raises(ArtifactRefused, match=payload.name):
        loaded(tmp_path)


@pytest.mark.parametrize("seed", range(20))
def test_loader_refuses_or_answers_when_bytes_are_flipped(
    dialect: Dialect, tmp_path: Path, seed: int
) -> None:
    """Damage never surfaces as a library's own exception while loading."""
    payload = inspect_artifact(dialect.adder(tmp_path)).payload
    content = bytearray(payload.read_bytes())
    for position in np.random.default_rng(seed).integers(0, len(content), 3):
        content[position] ^= 0xFF
    payload.write_bytes(bytes(content))
    try:
        model, _ = loaded(tmp_path)
    except ArtifactRefused:
        return
    model.close()
