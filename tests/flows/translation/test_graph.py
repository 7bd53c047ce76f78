"""The graph builder: names, constants, bodies."""

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper

from flows.translation.graph import Graph
from serving.core.datatypes import Array


def _run(graph: Graph, **feed: Array) -> list[Array]:
    model = graph.model("test", "tests")
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    results: list[Array] = session.run(None, feed)
    return results


def test_names_are_fresh_when_hints_repeat() -> None:
    """The first keeps the hint; a reserved name stays free for the output."""
    graph = Graph()
    graph.reserve("y")
    graph.input("x", TensorProto.FLOAT, [2])
    assert [graph.fresh("a"), graph.fresh("a"), graph.fresh("x"), graph.fresh("y")] == [
        "a",
        "a_1",
        "x_1",
        "y_1",
    ]


@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [
        pytest.param(np.float32(1), np.float32(1), True, id="equal scalars"),
        pytest.param(np.float32(1), np.int64(1), False, id="other type"),
        pytest.param(np.float32(1), np.ones(1, np.float32), False, id="other rank"),
        pytest.param(np.float32(0.0), np.float32(-0.0), False, id="signed zeros"),
        pytest.param(np.ones(1024, np.float32), np.ones(1024, np.float32), True, id="4096 bytes"),
        pytest.param(np.ones(1025, np.float32), np.ones(1025, np.float32), False, id="4100 bytes"),
    ],
)
def test_constants_are_shared_when_small_and_equal(one: Any, other: Any, shared: bool) -> None:
    """Equality covers type, shape and every bit that counts."""
    graph = Graph()
    assert (graph.constant(one) == graph.constant(other)) is shared


def test_half_precision_is_stored_and_widened_when_constant() -> None:
    """The file holds two bytes a number; users see float32."""
    graph = Graph()
    graph.input("x", TensorProto.FLOAT, [3])
    total = graph.add("Add", "x", graph.constant(np.array([0.5, 1.5, 2.5], np.float16)))
    graph.output("y", total, TensorProto.FLOAT, [3])
    stored = [numpy_helper.to_array(one) for one in graph.build("test").initializer]
    assert [one.dtype for one in stored] == [np.float16]
    np.testing.assert_array_equal(_run(graph, x=np.ones(3, np.float32))[0], [1.5, 2.5, 3.5])


@pytest.mark.parametrize("taken", [True, False])
def test_body_sees_names_around_it_when_in_a_branch(taken: bool) -> None:
    """Its constants lie in the main graph, whichever branch uses them first."""
    graph = Graph()
    graph.input("x", TensorProto.FLOAT, [2])
    graph.input("choice", TensorProto.BOOL, [])
    bodies = []
    for factor in (2.0, 3.0):
        body = Graph(graph)
        body.output(graph.fresh("inner"), body.add("Mul", "x", body.number(factor)), TensorProto.FLOAT, [2])
        bodies.append(body.build("branch"))
    result = graph.add("If", "choice", then_branch=bodies[0], else_branch=bodies[1])
    graph.output("y", result, TensorProto.FLOAT, [2])
    assert all(not body.initializer for body in bodies)
    (given,) = _run(graph, x=np.ones(2, np.float32), choice=np.array(taken))
    assert given.tolist() == [2.0 if taken else 3.0] * 2


def test_texts_are_stored_when_constant() -> None:
    """A classifier's labels."""
    graph = Graph()
    graph.input("at", TensorProto.INT64, [])
    graph.output("y", graph.add("Gather", graph.constant(np.array(["a", "é"])), "at"), TensorProto.STRING, [])
    assert _run(graph, at=np.array(1))[0] == "é"
