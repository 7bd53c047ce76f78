"""Real versions of one classifier, good ones and each kind of bad one, with the verdict each must get.

All take `x` (batch, 4): three scores and a number from 0 to 1 that says how hard the row is, which
decides where a version errs. All answer `y` (batch, 3). Shown by `tests.flows.catalog.verdict_table`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from flows.catalog.verdict import CheckName, Verdict
from tests.flows.catalog.folders import Array, evaluation_file
from tests.models import describe, onnx_graph, save_onnx, scalar

ROWS = 2000
MEMORY_MB = 1024
CHAMPION_SHARE = 0.90

Make = Callable[[Path], Path]


@dataclass(frozen=True, slots=True)
class Case:
    """A version and what validation must say of it: the verdict, and in which check with which words."""

    name: str
    make: Make
    verdict: Verdict
    check: CheckName
    words: str
    is_faulty: bool = False


def evaluation_set(folder: Path) -> Path:
    """2,000 rows; a version that is right on a share of `x` below a bound has exactly that accuracy."""
    chance = np.random.default_rng(7)
    labels = np.arange(ROWS) % 3
    hardness = chance.permutation((np.arange(ROWS) + 0.5) / ROWS)
    return evaluation_file(folder, {"x": _rows(labels, hardness)}, labels)


def right_share(folder: Path, share: float) -> Path:
    """`y` is the scores of `x` where the row is easier than `share`, else the scores of a wrong class."""
    return _described(folder, _classifier(share))


def _rows(labels: Array, hardness: Array) -> Array:
    scores = np.eye(3, dtype=np.float32)[labels]
    rows: Array = np.concatenate([scores, hardness[:, None].astype(np.float32)], axis=1)
    return rows


def _described(folder: Path, model: onnx.ModelProto) -> Path:
    example = _rows(np.array([1]), np.array([0.25])).tolist()
    return describe(save_onnx(folder, model), flavor="onnx", example=example)


def _classifier(
    share: float = CHAMPION_SHARE,
    *,
    output: str = "y",
    more: Sequence[onnx.NodeProto] = (),
    weights: Sequence[onnx.TensorProto] = (),
) -> onnx.ModelProto:
    """The good network; `more` nodes turn its `output` into `y`."""
    nodes = [
        helper.make_node("Slice", ["x", "first", "third", "axis"], ["scores"]),
        helper.make_node("Slice", ["x", "third", "last", "axis"], ["hardness"]),
        helper.make_node("Gather", ["scores", "turned"], ["wrong"], axis=1),
        helper.make_node("Less", ["hardness", "share"], ["is_easy"]),
        helper.make_node("Where", ["is_easy", "scores", "wrong"], [output]),
        *more,
    ]
    constants = [
        scalar("share", share),
        *(_numbers(n, [v]) for n, v in (("first", 0), ("third", 3), ("last", 4), ("axis", 1))),
        _numbers("turned", [1, 2, 0]),
        *weights,
    ]
    return onnx_graph(nodes, x=("batch", 4), y=("batch", 3), weights=constants)


def _numbers(name: str, values: Sequence[int]) -> onnx.TensorProto:
    return helper.make_tensor(name, TensorProto.INT64, [len(values)], values)


def renamed_output(folder: Path) -> Path:
    """Just as good, but its output is called `scores_out`, which no caller asks for."""
    model = _classifier()
    for node in model.graph.node:
        node.output[:] = ["scores_out" if name == "y" else name for name in node.output]
    model.graph.output[0].name = "scores_out"
    return _described(folder, model)


def nan_on_hard_rows(folder: Path) -> Path:
    """`y` is NaN for the hardest tenth of the rows; zeros and the example are finite."""
    more = [
        helper.make_node("Sub", ["bound", "hardness"], ["room"]),
        helper.make_node("Sqrt", ["room"], ["root"]),
        helper.make_node("Sub", ["root", "root"], ["nothing"]),
        helper.make_node("Add", ["plain", "nothing"], ["y"]),
    ]
    return _described(folder, _classifier(output="plain", more=more, weights=[scalar("bound", 0.9)]))


def noisy(folder: Path) -> Path:
    """Adds a little noise, different at each call: right as often, and never the same twice."""
    more = [
        helper.make_node("RandomUniformLike", ["plain"], ["noise"], low=0.0, high=0.2),
        helper.make_node("Add", ["plain", "noise"], ["y"]),
    ]
    return _described(folder, _classifier(output="plain", more=more))


def hanging(folder: Path) -> Path:
    """Loops for ever on rows of the set; zeros and the example end at once."""
    return _described(folder, _looping(grows=False))


def hungry(folder: Path) -> Path:
    """Allocates 16 MB more at each turn of a loop that never ends, on rows of the set only."""
    return _described(folder, _looping(grows=True))


def raising(folder: Path) -> Path:
    """Looks up beyond a table for rows harder than the example."""
    more = [
        helper.make_node("ReduceMax", ["hardness"], ["hardest"], keepdims=0),
        helper.make_node("Greater", ["hardest", "bound"], ["is_hard"]),
        helper.make_node("Cast", ["is_hard"], ["index"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "index"], ["looked_up"]),
        helper.make_node("Add", ["plain", "looked_up"], ["y"]),
    ]
    return _described(
        folder, _classifier(output="plain", more=more, weights=[scalar("bound", 0.5), scalar("table", 0.0)])
    )


def wrong_shape(folder: Path) -> Path:
    """Declares three scores and gives two."""
    more = [helper.make_node("Slice", ["plain", "first", "second", "axis"], ["y"])]
    return _described(folder, _classifier(output="plain", more=more, weights=[_numbers("second", [2])]))


def wrong_type(folder: Path) -> Path:
    """Answers, and declares, double precision."""
    more = [helper.make_node("Cast", ["plain"], ["y"], to=TensorProto.DOUBLE)]
    model = _classifier(output="plain", more=more)
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.DOUBLE
    return _described(folder, model)


def _looping(*, grows: bool) -> onnx.ModelProto:
    """The good network behind a loop that goes on while the hardest row is beyond a bound."""
    results = ["y", "grown"] if grows else ["y"]
    more = [
        helper.make_node("ReduceMax", ["hardness"], ["hardest"], keepdims=0),
        helper.make_node("Greater", ["hardest", "bound"], ["goes_on"]),
        helper.make_node("Loop", ["", "goes_on", "plain"], results, body=_body(grows=grows)),
    ]
    weights = [helper.make_tensor("bound", TensorProto.FLOAT, [], [0.5])]
    return _classifier(output="plain", more=more, weights=weights)


def _body(*, grows: bool) -> onnx.GraphProto:
    """One turn: goes on as before, and keeps 4 Mi floats of its own where it grows."""
    size, one = _numbers("size", [4 << 20]), scalar("one", 1.0)
    nodes = [
        helper.make_node("Identity", ["goes_on_in"], ["goes_on_out"]),
        helper.make_node("Identity", ["plain_in"], ["plain_out"]),
    ]
    growth = [
        helper.make_node("ConstantOfShape", ["size"], ["ones"], value=one),
        helper.make_node("ReduceMax", ["plain_in"], ["largest"], keepdims=0),
        helper.make_node("Mul", ["ones", "largest"], ["added"]),
    ]
    inputs = [
        helper.make_tensor_value_info("turn", TensorProto.INT64, []),
        helper.make_tensor_value_info("goes_on_in", TensorProto.BOOL, []),
        helper.make_tensor_value_info("plain_in", TensorProto.FLOAT, None),
    ]
    outputs = [
        helper.make_tensor_value_info("goes_on_out", TensorProto.BOOL, []),
        helper.make_tensor_value_info("plain_out", TensorProto.FLOAT, None),
        helper.make_tensor_value_info("added", TensorProto.FLOAT, None),
    ]
    if not grows:
        return helper.make_graph(nodes, "body", inputs, outputs[:-1])
    return helper.make_graph([*nodes, *growth], "body", inputs, outputs, [size])


def _share(share: float) -> Make:
    return lambda folder: right_share(folder, share)


PASSED, FAILED = Verdict.PASSED, Verdict.FAILED
CASES = (
    Case("equal", _share(0.90), PASSED, CheckName.ACCURACY, "every answer is the champion's"),
    Case("better", _share(0.95), PASSED, CheckName.ACCURACY, "within a drop of 0.01"),
    Case("slightly worse", _share(0.897), PASSED, CheckName.ACCURACY, "drop 0.003"),
    Case("clearly worse", _share(0.80), FAILED, CheckName.ACCURACY, "clearly worse: a drop of 0.01"),
    Case(
        "wrong signature", renamed_output, FAILED, CheckName.CONTRACT, "output 'y' of the champion is missing"
    ),
    Case("NaN", nan_on_hard_rows, FAILED, CheckName.FINITE, "output 'y' is not finite", True),
    Case("non-deterministic", noisy, FAILED, CheckName.DETERMINISM, "asked twice"),
    Case("hanging", hanging, FAILED, CheckName.COMPLETES, "hanging: there was no answer within", True),
    Case("memory-hungry", hungry, FAILED, CheckName.COMPLETES, f"the limit of {MEMORY_MB} MB", True),
    Case("raising", raising, FAILED, CheckName.ANSWERS, "which the champion answers", True),
    Case("wrong shape", wrong_shape, FAILED, CheckName.SELF_TEST, "has shape [1, 2]", True),
    Case("wrong type", wrong_type, FAILED, CheckName.CONTRACT, "is FP64, the champion's FP32", True),
)
