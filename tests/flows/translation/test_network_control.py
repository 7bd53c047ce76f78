"""Loops and branches of layer networks, and suppression of overlapping boxes."""

from typing import Any

import numpy as np
import pytest
from coremltools.models.neural_network import NeuralNetworkBuilder

from serving.core.datatypes import Array
from tests.flows.translation.network_models import built

_RNG = np.random.default_rng(14)


def _inside(network: Any) -> Any:
    return NeuralNetworkBuilder(nn_spec=network, disable_rank5_shape_mapping=True, use_float_arraytype=True)


def _doubling(builder: Any) -> None:
    inner = _inside(builder.loop.bodyNetwork)
    inner.add_elementwise("double", ["value"], "doubled", "MULTIPLY", 2.0)
    inner.add_copy("back", "doubled", "value")


def _start(builder: Any) -> None:
    builder.add_copy("start", "x", "value")


def _end(builder: Any) -> None:
    builder.add_activation("end", "LINEAR", "value", "y", [1.0, 0.0])


@pytest.mark.parametrize("told", [False, True])
def test_loop_repeats_its_body_when_counted(told: bool) -> None:
    """As often as is stored, or as an input says."""

    def add(builder: Any) -> None:
        _start(builder)
        _doubling(builder.add_loop("loop", None, "n" if told else None, max_iterations=None if told else 3))
        _end(builder)

    x = _RNG.standard_normal(4).astype(np.float32)
    inputs: dict[str, tuple[int, ...]] = {"x": (4,), "n": (1,)} if told else {"x": (4,)}
    network = built(add, inputs)
    for rounds in (5, 0) if told else (3,):
        feeds = {"x": x} | ({"n": np.array([rounds], np.float32)} if told else {})
        np.testing.assert_allclose(network.run(**feeds)[0], x * 2**rounds)


@pytest.mark.parametrize("limit", [0, 2])
def test_loop_goes_on_when_its_condition_holds(limit: int) -> None:
    """Until the largest value reaches 10, or as often as is allowed."""

    def add(builder: Any) -> None:
        _start(builder)
        layer = builder.add_loop("loop", condition="small", max_iterations=limit)
        condition = _inside(layer.loop.conditionNetwork)
        condition.add_reduce_max("most", "value", "most", None, False, True)
        condition.add_less_than("small", ["most"], "small", alpha=10.0)
        _doubling(layer)
        _end(builder)

    network = built(add, {"x": (3,)})
    for x, rounds in (([1.0, 3.0, 2.0], 2), ([20.0, 1.0, 1.0], 0), ([1.0, 0.1, 0.1], limit or 4)):
        given = np.array(x, np.float32)
        np.testing.assert_allclose(network.run(x=given)[0], given * 2**rounds)


def test_loop_carries_values_when_they_grow() -> None:
    """A list grows by one element a round, so its length is open."""

    def add(builder: Any) -> None:
        _start(builder)
        inner = _inside(builder.add_loop("loop", None, "n").loop.bodyNetwork)
        inner.add_concat_nd("more", ["value", "x"], "longer", 0)
        inner.add_copy("back", "longer", "value")
        _end(builder)

    x = _RNG.standard_normal(2).astype(np.float32)
    answer = built(add, {"x": (2,), "n": (1,)}).run(x=x, n=np.array([3], np.float32))[0]
    np.testing.assert_array_equal(answer, np.tile(x, 4))


@pytest.mark.parametrize("condition", [1.0, -0.5, 0.0, 1e-7])
def test_branch_runs_one_side_when_its_condition_is_true_or_not(condition: float) -> None:
    """Anything whose magnitude exceeds 1e-6 is true; a blob from before may be overwritten by one side."""

    def add(builder: Any) -> None:
        builder.add_copy("start", "x", "kept")
        layer = builder.add_branch("branch", "c")
        yes, no = _inside(layer.branch.ifBranch), _inside(layer.branch.elseBranch)
        yes.add_elementwise("double", ["x"], "both", "MULTIPLY", 2.0)
        no.add_elementwise("triple", ["x"], "both", "MULTIPLY", 3.0)
        yes.add_elementwise("negate", ["x"], "negative", "MULTIPLY", -1.0)
        yes.add_copy("over", "negative", "kept")
        builder.add_elementwise("sum", ["both", "kept"], "y", "ADD")

    x = _RNG.standard_normal(4).astype(np.float32)
    answer = built(add, {"x": (4,), "c": (1,)}).run(x=x, c=np.array([condition], np.float32))[0]
    np.testing.assert_allclose(answer, 2 * x - x if abs(condition) > 1e-6 else 3 * x + x, atol=1e-6)


def _suppressed(
    boxes: Array, scores: Array, overlap: float, least: float, count: int, by_class: bool
) -> list[int]:
    """Greedy suppression, as the specification tells it; the best box where no score suffices."""
    best, kind = scores.max(1), scores.argmax(1)
    kept: list[int] = []
    for at in np.argsort(-best):
        rivals = [one for one in kept if not by_class or kind[one] == kind[at]]
        if best[at] >= least and all(_overlap(boxes[at], boxes[one]) <= overlap for one in rivals):
            kept.append(int(at))
    return kept[:count] or [int(best.argmax())]


def _overlap(one: Array, other: Array) -> float:
    low = np.maximum(one[:2] - one[2:] / 2, other[:2] - other[2:] / 2)
    high = np.minimum(one[:2] + one[2:] / 2, other[:2] + other[2:] / 2)
    both = np.prod(np.maximum(high - low, 0))
    return float(both / (np.prod(one[2:]) + np.prod(other[2:]) - both))


@pytest.mark.parametrize("by_class", [False, True])
@pytest.mark.parametrize(("least", "count"), [(0.3, 6), (0.3, 2), (2.0, 4)])
def test_overlapping_boxes_are_suppressed_when_translated(by_class: bool, least: float, count: int) -> None:
    """Boxes, scores and places are filled up to the number that is allowed."""
    boxes = np.concatenate([_RNG.uniform(0, 6, (12, 2)), _RNG.uniform(2, 4, (12, 2))], 1).astype(np.float32)
    scores = _RNG.uniform(0, 1, (12, 3)).astype(np.float32)
    names = ["boxes", "scores", "places", "number"]
    answer = built(
        lambda b: b.add_nms("n", ["b", "s"], names, 0.3, least, count, by_class),
        {"b": (1, 12, 4), "s": (1, 12, 3)},
        names,
    ).run(b=boxes[None], s=scores[None])
    kept = _suppressed(boxes, scores, 0.3, least, count, by_class)
    missing = count - len(kept)
    assert answer[3].tolist() == [len(kept)]
    assert answer[2][0].tolist() == kept + [-1] * missing
    np.testing.assert_allclose(answer[0][0], np.pad(boxes[kept], [(0, missing), (0, 0)]))
    np.testing.assert_allclose(answer[1][0], np.pad(scores[kept], [(0, missing), (0, 0)]))
