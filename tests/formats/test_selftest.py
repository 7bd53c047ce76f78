"""The self-test: golden before example before zeros, and what each of them holds a model to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from serving.core.datatypes import Array
from serving.core.model import Format, TensorSpec
from serving.formats.artifact import Artifact
from serving.formats.golden import Golden
from serving.formats.selftest import Basis, Verdict, output_problem, probe_inputs, self_test
from tests import models

FP32 = np.float32
SPECS = (TensorSpec("y", "FP32", (-1, 2)),)


@dataclass
class FakeModel:
    """Answers what it was given to answer."""

    answer: dict[str, Array] | Exception
    inputs: tuple[TensorSpec, ...] = (TensorSpec("x", "FP32", (-1, 2)),)
    outputs: tuple[TensorSpec, ...] = SPECS
    platform: str = "fake_fake"
    asked: list[Mapping[str, Array]] = field(default_factory=list)

    def predict(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        self.asked.append(inputs)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def close(self) -> None:
        pass


def artifact(
    golden: Golden | None = None, example: Mapping[str, Array] | None = None, notes: Sequence[str] = ()
) -> Artifact:
    root = Path("model")
    return Artifact(root, Format.ONNX, root / "m", golden=golden, example=example, notes=tuple(notes))


def y(*values: float) -> dict[str, Array]:
    return {"y": np.array([values], FP32)}


X = {"x": np.array([[1, 2]], FP32)}


@pytest.mark.parametrize(
    ("given", "basis"),
    [
        (artifact(Golden(X, y(1, 2)), {"x": np.zeros((1, 2))}), Basis.GOLDEN),
        (artifact(example={"x": np.zeros((1, 2))}), Basis.EXAMPLE),
        (artifact(example={"": np.zeros((1, 2))}), Basis.EXAMPLE),
        (artifact(example={"x": np.zeros((1, 5))}), Basis.ZEROS),
        (artifact(example={"a": np.zeros((1, 2)), "b": np.zeros((1, 2))}), Basis.ZEROS),
        (artifact(), Basis.ZEROS),
    ],
)
def test_self_test_uses_the_best_inputs_when_there_are_several(given: Artifact, basis: Basis) -> None:
    """Golden, else an example that fits, else zeros; always in the declared datatype."""
    model = FakeModel(y(1, 2))
    result = self_test(model, given)
    assert (result.verdict, result.basis) == (Verdict.PASSED, basis)
    assert model.asked[0]["x"].dtype == FP32


@pytest.mark.parametrize("outputs", [y(1.0005, 2), y(1, 2.001)])
def test_self_test_passes_when_golden_outputs_differ_by_rounding(outputs: dict[str, Array]) -> None:
    """Another machine rounds differently."""
    assert self_test(FakeModel(outputs), artifact(Golden(X, y(1, 2)))).verdict is Verdict.PASSED


@pytest.mark.parametrize(
    ("outputs", "reason"),
    [
        (y(1.01, 2), "differs from the golden set by up to 0.01"),
        (y(np.nan, 2), "is not finite on the golden inputs"),
        ({"y": np.ones((2, 2), FP32)}, "has shape [2, 2], recorded [1, 2]"),
        ({}, "output 'y' is missing"),
    ],
)
def test_self_test_fails_when_golden_outputs_are_not_met(outputs: dict[str, Array], reason: str) -> None:
    """The reason says which output and by how much."""
    result = self_test(FakeModel(outputs), artifact(Golden(X, y(1, 2))))
    assert result.verdict is Verdict.FAILED
    assert reason in result.reason


def test_self_test_compares_exactly_when_the_golden_output_is_no_float() -> None:
    """A class label is right or wrong."""
    golden = Golden(X, {"y": np.array([[1, 2]])})
    model = FakeModel({"y": np.array([[1, 3]])}, outputs=(TensorSpec("y", "INT64", (-1, 2)),))
    assert "differs from the golden set" in self_test(model, artifact(golden)).reason


def test_self_test_fails_when_golden_inputs_do_not_fit_the_model() -> None:
    """A golden set of another model is found before it is run."""
    result = self_test(FakeModel(y(1, 2)), artifact(Golden({"z": X["x"]}, y(1, 2))))
    assert (result.verdict, result.basis) == (Verdict.FAILED, Basis.GOLDEN)
    assert "they are ['z'], the model takes ['x']" in result.reason


def test_self_test_fails_when_the_example_gives_nan_but_zeros_may() -> None:
    """A logged input is one the model was made for; zeros of our making are not."""
    model = FakeModel(y(np.nan, 1))
    assert self_test(model, artifact(example=X)).verdict is Verdict.FAILED
    assert self_test(model, artifact()).verdict is Verdict.PASSED


def test_self_test_fails_when_the_model_raises() -> None:
    """The reason carries class and message."""
    result = self_test(FakeModel(ValueError("no such\nthing")), artifact())
    assert result.verdict is Verdict.FAILED
    assert result.reason == "raised ValueError: no such thing"


def test_self_test_measures_nothing_when_guessed_inner_lengths_raise() -> None:
    """Height and width of 1 are our guess, not the model's promise."""
    model = FakeModel(ValueError("too small"), inputs=(TensorSpec("x", "FP32", (-1, 3, -1, -1)),))
    result = self_test(model, artifact())
    assert (result.verdict, result.basis) == (Verdict.NOT_MEASURED, Basis.ZEROS)


@pytest.mark.parametrize("dims", [None, (1 << 20, 1 << 20)])
def test_self_test_measures_nothing_when_no_input_can_be_made(dims: tuple[int, ...] | None) -> None:
    """Unknown or absurd shapes are not guessed; the version is served, and the report says so."""
    model = FakeModel(y(1, 2), inputs=(TensorSpec("x", "FP32", dims),))
    result = self_test(model, artifact(notes=["the input example could not be read"]))
    assert (result.verdict, result.basis) == (Verdict.NOT_MEASURED, Basis.NONE)
    assert "the input example could not be read" in result.reason
    assert model.asked == []
    assert probe_inputs(model, artifact()) is None


def test_self_test_times_the_inference_when_given_a_clock() -> None:
    """Seconds are those of the one call."""
    ticks = iter([10.0, 12.5])
    assert self_test(FakeModel(y(1, 2)), artifact(), lambda: next(ticks)).seconds == 2.5


@pytest.mark.parametrize(
    ("outputs", "problem"),
    [
        ({"y": np.zeros((4, 2), FP32)}, None),
        ({}, "output 'y' is missing"),
        ({"y": np.zeros((4, 2))}, "output 'y' is FP64, declared FP32"),
        ({"y": np.zeros((4, 2), np.complex64)}, "output 'y' is complex64, declared FP32"),
        ({"y": np.zeros((4, 3), FP32)}, "output 'y' has shape [4, 3], declared [-1, 2]"),
        ({"y": np.zeros(2, FP32)}, "output 'y' has shape [2], declared [-1, 2]"),
        ({"y": np.zeros((4, 2), FP32), "z": np.zeros(1)}, "output 'z' is not declared"),
    ],
)
def test_output_problem_names_the_output_when_it_breaks_its_spec(
    outputs: dict[str, Array], problem: str | None
) -> None:
    """Name, datatype, rank and fixed lengths count."""
    assert output_problem(SPECS, outputs) == problem


def test_output_problem_finds_nothing_when_nothing_was_promised() -> None:
    """Unknown outputs are not judged."""
    assert output_problem((), {"OUTPUT__0": np.zeros(1)}) is None
    assert output_problem((TensorSpec("y", "FP32", None),), {"y": np.zeros(1, np.int64)}) is None


def test_self_test_fails_when_a_real_graph_breaks_its_declared_shape(tmp_path: Path) -> None:
    """The checker accepted it, and the runtime ran it without complaint."""
    from serving.formats.artifact import inspect_artifact
    from serving.formats.loader import load

    found = inspect_artifact(models.onnx_wrong_shape(tmp_path))
    result = self_test(load(found, threads=1), found)
    assert (result.verdict, result.basis) == (Verdict.FAILED, Basis.ZEROS)
    assert result.reason == "output 'y' has shape [1, 9], declared [-1, 10]"
