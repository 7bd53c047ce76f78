"""torch.export: the program says what goes in and out; nothing in an archive but tensors is ever run."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from serving.core.datatypes import Array
from serving.core.errors import ArtifactRefused
from serving.core.model import TensorSpec
from serving.formats.artifact import inspect_artifact
from serving.formats.loader import LoadedModel, load
from serving.formats.torch_tensors import array_of
from tests import torch_exports
from tests.torch_exports import save_export


def loaded(folder: Path) -> LoadedModel:
    return load(inspect_artifact(folder), threads=1)


class Nested(nn.Module):
    """Takes a dict of tensors and keyword arguments, and answers a dict with a gap."""

    def forward(self, batch: dict[str, Any], *, mask: torch.Tensor) -> dict[str, Any]:
        return {"sum": (batch["a"] * mask).sum(1), "rest": [batch["more"][0] + 1, None]}


class Branch(nn.Module):
    """Chooses between two graphs by its data."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = torch.cond(x.sum() > 0, lambda x: x + 1, lambda x: x - 1, (x,))
        return answer


class Infinite(nn.Module):
    """Holds numbers that JSON has no form for, and a shape that depends on the batch."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        masked = x.masked_fill(x < 0, float("-inf")).clamp(max=float("inf"), min=0.0)
        return masked.reshape(x.shape[0] * 3, -1)


def test_export_names_its_tensors_when_they_are_nested(tmp_path: Path) -> None:
    """A dict and a keyword argument become flat names; an absent output takes no place."""
    x = torch.ones(2, 3)
    program = torch.export.export(Nested(), ({"a": x, "more": [x]},), {"mask": x})
    torch.export.save(program, tmp_path / "model.pt2")
    model = loaded(tmp_path)
    assert [spec.name for spec in model.inputs] == ["batch_a", "batch_more_0", "mask"]
    assert model.outputs == (TensorSpec("OUTPUT__0", "FP32", (2,)), TensorSpec("OUTPUT__1", "FP32", (2, 3)))
    answer = model.predict({spec.name: np.full((2, 3), 2, np.float32) for spec in model.inputs})
    assert answer["OUTPUT__0"].tolist() == [12.0, 12.0]
    assert answer["OUTPUT__1"].tolist() == [[3.0] * 3] * 2


class Quantised(nn.Module):
    """Rounds its input to whole tenths, as a quantised program does between its layers."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale = (0.1, 0, -128, 127, torch.int8)
        whole = torch.ops.quantized_decomposed.quantize_per_tensor.default(x, *scale)
        tenths: torch.Tensor = torch.ops.quantized_decomposed.dequantize_per_tensor.default(whole, *scale)
        return tenths


MODELS: dict[str, tuple[Callable[[], nn.Module], torch.Tensor]] = {
    "convolution": (
        lambda: nn.Sequential(
            *(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
            *(nn.Dropout(), nn.Linear(36, 2)),
        ),
        torch.randn(2, 1, 8, 8),
    ),
    "transformer": (
        lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 1),
        torch.randn(2, 5, 8),
    ),
    "embedding": (lambda: nn.Sequential(nn.Embedding(10, 4), nn.Flatten()), torch.arange(6).reshape(2, 3)),
    "bfloat16": (lambda: nn.Linear(3, 2).bfloat16(), torch.randn(2, 3).bfloat16()),
    "branch": (Branch, torch.randn(2, 3)),
    "quantised": (Quantised, torch.randn(2, 3)),
    "infinite": (Infinite, torch.randn(2, 3)),
}


@pytest.mark.parametrize("name", MODELS)
def test_export_answers_as_the_model_did_when_it_is_of_a_usual_kind(name: str, tmp_path: Path) -> None:
    """The checks stand in the way of none of them; the batch is free."""
    make, example = MODELS[name]
    torch.manual_seed(7)
    module = make().eval()
    model = loaded(save_export(tmp_path, module, example))
    assert [spec.dims for spec in model.inputs] == [(-1, *example.shape[1:])]
    given = torch.cat([example, example])
    with torch.inference_mode():
        want = array_of(module(given))
    answer = model.predict({model.inputs[0].name: array_of(given)})["OUTPUT__0"]
    assert answer.dtype == want.dtype
    np.testing.assert_allclose(answer.astype(np.float64), want.astype(np.float64), atol=1e-6)


def test_export_runs_here_when_it_was_made_on_a_gpu(tmp_path: Path) -> None:
    """Devices are part of the program; there is only one here."""
    path = torch_exports.export_linear(tmp_path) / "model.pt2"
    program = torch_exports.text(path, "models/model.json")
    elsewhere = program.replace('"type": "cpu", "index": null', '"type": "cuda", "index": 0')
    assert elsewhere != program
    torch_exports.rewritten(path, {"models/model.json": elsewhere.encode()})
    assert loaded(tmp_path).predict({"input": np.zeros((1, 3), np.float32)})["OUTPUT__0"].shape == (1, 2)


def test_export_raises_when_a_length_is_outside_the_exported_range(tmp_path: Path) -> None:
    """What was never exported is no answer."""
    batch = torch.export.Dim("batch", min=2, max=8)
    program = torch.export.export(nn.Linear(3, 2), (torch.ones(4, 3),), dynamic_shapes=({0: batch},))
    torch.export.save(program, tmp_path / "model.pt2")
    model = loaded(tmp_path)
    assert model.predict({"input": np.zeros((8, 3), np.float32)})["OUTPUT__0"].shape == (8, 2)
    with pytest.raises(RuntimeError, match="to be <= 8"):
        model.predict({"input": np.zeros((9, 3), np.float32)})


def test_exports_load_when_several_threads_load_at_once(tmp_path: Path) -> None:
    """torch's deserialiser takes one at a time; callers need not know."""
    folders = [torch_exports.export_adder(tmp_path / str(index), float(index)) for index in range(4)]
    answers: dict[int, Array] = {}

    def ask(index: int) -> None:
        model = loaded(folders[index])
        answers[index] = model.predict({"x": np.zeros((1, 3), np.float32)})["OUTPUT__0"]

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {index: answer[0, 0] for index, answer in answers.items()} == {i: float(i) for i in range(4)}


@pytest.mark.parametrize(
    ("module", "problem"),
    [
        (lambda x: (x, x.shape[0]), "returns a number"),
        (lambda x: torch.complex(x, x), "element type torch.complex64"),
    ],
)
def test_export_is_refused_when_an_answer_cannot_be_sent(
    module: Callable[[torch.Tensor], Any], problem: str, tmp_path: Path
) -> None:
    """Known before the first request."""
    with pytest.raises(ArtifactRefused, match=problem):
        loaded(torch_exports.export(tmp_path, module))
