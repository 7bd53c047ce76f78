"""What a golden set is recorded with: given inputs before made ones, and nothing that is not finite."""

from collections.abc import Mapping

import numpy as np
import pytest

from flows.catalog.inputs import Origin, record, rows_of
from serving.core.datatypes import Array
from serving.core.errors import ArtifactRefused
from serving.core.model import TensorSpec
from tests.versions import ScriptedModel, adds, raises

ROWS = {"x": np.arange(36, dtype=np.float32).reshape(12, 3)}


def test_given_rows_are_recorded_when_there_are_some() -> None:
    """The evaluation set before the example, its first rows."""
    found = record(ScriptedModel(adds(1.0)), {Origin.EXAMPLE: {"x": ROWS["x"] * 0}, Origin.EVALUATION: ROWS})
    assert found.golden is not None
    np.testing.assert_array_equal(found.golden.inputs["x"], ROWS["x"][:8])
    np.testing.assert_array_equal(found.golden.outputs["y"], ROWS["x"][:8] + 1)
    assert found.said == "recorded with the first rows of the evaluation set (8 rows)"


def test_inputs_are_made_when_none_are_given() -> None:
    """The same ones at every time, so that a repetition records the same."""
    one, other = record(ScriptedModel(adds(1.0)), {}), record(ScriptedModel(adds(1.0)), {})
    assert one.golden is not None
    assert other.golden is not None
    assert one.golden.inputs["x"].shape == (2, 3)
    assert one.golden.inputs["x"].std() > 0
    np.testing.assert_array_equal(one.golden.inputs["x"], other.golden.inputs["x"])


@pytest.mark.parametrize("origin", [Origin.EVALUATION, Origin.EXAMPLE])
def test_model_is_refused_when_it_raises_on_what_was_given(origin: Origin) -> None:
    """Somebody said that it answers these; a guess of ours it may refuse."""
    with pytest.raises(ArtifactRefused, match=f"it raised RuntimeError.*on {origin}"):
        record(ScriptedModel(raises), {origin: ROWS})
    assert record(ScriptedModel(raises), {}).golden is None


def test_model_is_refused_when_its_answer_to_what_was_given_is_not_finite() -> None:
    with pytest.raises(ArtifactRefused, match="output 'y' is not finite on the example"):
        record(ScriptedModel(adds(float("nan"))), {Origin.EXAMPLE: ROWS})


def test_nothing_is_recorded_when_no_answer_is_finite() -> None:
    """A set that could never be compared would only fail later."""
    found = record(ScriptedModel(adds(float("inf"))), {})
    assert (found.golden, found.said) == (None, "output 'y' is not finite on zeros")


def test_zeros_are_recorded_when_only_they_are_answered() -> None:
    def picky(inputs: Mapping[str, Array]) -> dict[str, Array]:
        if inputs["x"].any():
            raise ValueError("index out of range")
        return {"y": inputs["x"]}

    found = record(ScriptedModel(picky), {})
    assert found.golden is not None
    assert found.said == "recorded with zeros (1 rows)"


def test_longer_axes_are_tried_when_an_inner_length_is_free() -> None:
    """A convolution refuses images of one pixel."""

    def of_at_least_eight(inputs: Mapping[str, Array]) -> dict[str, Array]:
        if inputs["x"].shape[1] < 8:
            raise ValueError("kernel larger than input")
        return {"y": inputs["x"]}

    free = (TensorSpec("x", "FP32", (-1, -1)),)
    found = record(ScriptedModel(of_at_least_eight, inputs=free), {})
    assert found.golden is not None
    assert found.golden.inputs["x"].shape == (2, 8)


def test_nothing_is_asked_when_a_shape_is_unknown() -> None:
    found = record(ScriptedModel(adds(1.0), inputs=(TensorSpec("x", "FP32", None),)), {})
    assert found.golden is None
    assert "the shape of an input is unknown" in found.said


@pytest.mark.parametrize(
    "words",
    [
        "DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes",
        "std::bad_alloc",
        "Failed to allocate memory for requested buffer of size 9",
    ],
)
def test_want_of_memory_is_told_apart_when_a_runtime_words_it(words: str) -> None:
    """It is the limit that ended it, not the model's answer."""

    def hungry(inputs: Mapping[str, Array]) -> dict[str, Array]:
        raise RuntimeError(f"stack\nof calls\n{words}")

    with pytest.raises(MemoryError):
        record(ScriptedModel(hungry), {})


def test_rows_are_as_many_as_the_model_takes_when_its_batch_is_fixed() -> None:
    fixed = (TensorSpec("x", "FP32", (3, 3)),)
    assert rows_of(ROWS, fixed)["x"].shape == (3, 3)
    assert rows_of({"x": ROWS["x"].astype(np.float64)}, fixed)["x"].dtype == np.float32
