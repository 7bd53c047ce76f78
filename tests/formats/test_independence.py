"""Whether rows may be answered together: only where it was seen that this changes no answer."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from serving.core.datatypes import Array
from serving.core.model import Format, TensorSpec
from serving.formats.artifact import Artifact
from serving.formats.independence import are_rows_independent
from tests.versions import Answer, ScriptedModel, adds, raises

ROWS = (TensorSpec("x", "FP32", (-1, 3)),)
EXAMPLE = {"x": np.array([[1.0, 2.0, 3.0]], np.float32)}


def artifact(example: Mapping[str, Array] | None = EXAMPLE) -> Artifact:
    return Artifact(Path("root"), Format.ONNX, Path("root/model.onnx"), example=example)


def centred(inputs: Mapping[str, Array]) -> dict[str, Array]:
    return {"y": inputs["x"] - inputs["x"].mean(axis=0)}


def summed(inputs: Mapping[str, Array]) -> dict[str, Array]:
    return {"y": inputs["x"].sum(axis=0, keepdims=True)}


def only_single(inputs: Mapping[str, Array]) -> dict[str, Array]:
    if len(inputs["x"]) > 1:
        raise ValueError("one row only")
    return {"y": inputs["x"]}


def changes_type(inputs: Mapping[str, Array]) -> dict[str, Array]:
    return {"y": inputs["x"].astype(np.float64 if len(inputs["x"]) > 1 else np.float32)}


def first_class(inputs: Mapping[str, Array]) -> dict[str, Array]:
    return {"y": np.full(len(inputs["x"]), len(inputs["x"]), np.int64)}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (adds(1.0), True),
        (centred, False),
        (summed, False),
        (only_single, False),
        (changes_type, False),
        (first_class, False),
        (raises, False),
    ],
)
def test_rows_are_independent_when_together_equals_alone(answer: Answer, expected: bool) -> None:
    """A mean over the batch, a sum, a refusal, another type, a count: none of them is."""
    assert are_rows_independent(ScriptedModel(answer), artifact()) is expected


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        ((TensorSpec("x", "FP32", (1, 3)),), ROWS),
        (ROWS, (TensorSpec("y", "FP32", (1, 3)),)),
        ((TensorSpec("x", "FP32", None),), ROWS),
        (ROWS, ()),
        ((), ROWS),
        ((TensorSpec("x", "FP32", ()),), ROWS),
    ],
)
def test_rows_are_not_independent_when_shapes_do_not_say_so(
    inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]
) -> None:
    """A fixed, missing or unknown first axis is none to join along."""
    assert not are_rows_independent(ScriptedModel(adds(1.0), inputs=inputs, outputs=outputs), artifact())


def test_zeros_show_it_too_when_nothing_was_recorded() -> None:
    """The best inputs there are; a model whose zeros are all alike is caught by the count of rows only."""
    assert are_rows_independent(ScriptedModel(adds(1.0)), artifact(example=None))
    assert not are_rows_independent(ScriptedModel(summed), artifact(example=None))
