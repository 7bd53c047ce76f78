"""Branches, loops and lists. A list is a tensor with one element per row, grown where it is written."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from flows.translation.call import Call, Names
from flows.translation.graph import Graph
from flows.translation.scope import Scope
from flows.translation.variables import computed_type


def _cond(call: Call) -> Names:
    taken, other = (_branch(call, block) for block in call.operation.blocks)
    condition = call.add("Reshape", call.booleans("pred"), call.graph.ints())
    return call.graph.add_many(
        "If",
        condition,
        outputs=len(call.outputs),
        hint=call.outputs[0].name,
        then_branch=taken,
        else_branch=other,
    )


def _branch(call: Call, block: Any) -> Any:
    body = Graph(call.graph)
    results = call.run(block, body, Scope(call.scope))
    for result, variable in zip(results, block.outputs, strict=True):
        body.output(call.graph.fresh(variable.name), result, _type_of(variable), None)
    return body.build(f"{call.outputs[0].name}_branch")


def _while_loop(call: Call) -> Names:
    """ONNX decides before the first round, and after each one whether there is another."""
    condition, body = call.operation.blocks
    variables = call.variable("loop_vars")
    first = _decided(call, condition, call.graph, call.tensors("loop_vars"))
    return call.graph.add_many(
        "Loop",
        "",
        first,
        *call.tensors("loop_vars"),
        outputs=len(variables),
        hint=call.outputs[0].name,
        body=_round(call, condition, body),
    )


def _round(call: Call, condition: Any, body: Any) -> Any:
    graph, scope = Graph(call.graph), Scope(call.scope)
    graph.input(graph.fresh("round"), TensorProto.INT64, [])
    graph.input(graph.fresh("going"), TensorProto.BOOL, [])
    for variable in body.inputs:
        scope.bind(variable, graph.input(graph.fresh(variable.name), _type_of(variable), None))
    results = call.run(body, graph, scope)
    again = _decided(call, condition, graph, results)
    graph.output(graph.fresh("again"), again, TensorProto.BOOL, [])
    for result, variable in zip(results, body.outputs, strict=True):
        graph.output(graph.fresh(variable.name), result, _type_of(variable), None)
    return graph.build(f"{call.outputs[0].name}_round")


def _decided(call: Call, condition: Any, graph: Graph, names: Sequence[str]) -> str:
    """The condition block's answer for loop variables held under `names`, as a scalar."""
    scope = Scope(call.scope)
    for variable, name in zip(condition.inputs, names, strict=True):
        scope.bind(variable, name)
    (answer,) = call.run(condition, graph, scope)
    truth = graph.add("Cast", answer, to=TensorProto.BOOL)
    return graph.add("Reshape", truth, graph.ints())


def _type_of(variable: Any) -> int:
    element = getattr(variable, "elem_type", None)
    return computed_type(element.get_primitive() if element is not None else variable.dtype)


def _make_list(call: Call) -> str:
    given = [call.scope.constant(size) for size in call.variable("elem_shape")]
    sizes = [int(size) for size in given if size is not None and not isinstance(size, str)]
    if len(sizes) != len(given):
        raise call.refused("holds elements whose shape is only known at run time")
    kind = _type_of(call.outputs[0])
    length = call.longs("init_length") if call.has("init_length") else call.graph.integer(1)
    first = call.add("Reshape", length, call.graph.ints(1))
    shape = call.add("Concat", first, call.graph.ints(*sizes), axis=0)
    value = helper.make_tensor("value", kind, [1], [0])
    return call.add("ConstantOfShape", shape, value=value)


def _list_length(call: Call) -> str:
    length = call.add("Gather", call.add("Shape", call.tensor("ls")), call.graph.integer(0))
    return call.cast(length, TensorProto.INT32)


def _list_read(call: Call) -> str:
    index = call.add("Reshape", call.longs("index"), call.graph.ints())
    return call.add("Gather", call.tensor("ls"), index, axis=0)


def _list_gather(call: Call) -> str:
    return call.add("Gather", call.tensor("ls"), call.longs("indices"), axis=0)


def _list_write(call: Call) -> str:
    index = call.add("Reshape", call.longs("index"), call.graph.ints(1, 1))
    value = call.add("Unsqueeze", call.tensor("value"), call.graph.ints(0))
    return _written(call, index, value)


def _list_scatter(call: Call) -> str:
    indices = call.add("Unsqueeze", call.longs("indices"), call.graph.ints(-1))
    return _written(call, indices, call.tensor("value"))


def _written(call: Call, indices: str, values: str) -> str:
    """The list with the values at the indices, made longer first where an index lies beyond its end."""
    source, one = call.tensor("ls"), call.graph.ints(1)
    length = call.add("Shape", source, start=0, end=1)
    highest = call.add("Reshape", call.add("ReduceMax", indices, keepdims=0), one)
    missing = call.add("Sub", call.add("Add", highest, one), length)
    grown = call.add("Max", missing, call.graph.ints(0))
    rest = call.add("Shape", source, start=1)
    zeros = call.add("ConstantOfShape", call.add("Concat", grown, rest, axis=0), value=_zero(call))
    longer = call.add("Concat", source, zeros, axis=0)
    return call.add("ScatterND", longer, indices, values)


def _zero(call: Call) -> Any:
    return helper.make_tensor("value", _type_of(call.outputs[0]), [1], [0])


def _classify(call: Call) -> Names:
    """(label, probabilities): the label of each row, and the row itself."""
    classes = call.value("classes")
    labels = np.array([getattr(one, "val", one) for one in getattr(classes, "ls", classes)])
    table = call.graph.constant(labels.astype(str) if labels.dtype.kind in "OU" else labels.astype(np.int64))
    rows = call.add("Reshape", call.tensor("probabilities"), call.graph.ints(-1, len(labels)))
    best = call.add("ArgMax", rows, axis=1, keepdims=0)
    return call.add("Gather", table, best), rows


TRANSLATORS: dict[str, Callable[[Call], Names]] = {
    "classify": _classify,
    "cond": _cond,
    "list_gather": _list_gather,
    "list_length": _list_length,
    "list_read": _list_read,
    "list_scatter": _list_scatter,
    "list_write": _list_write,
    "make_list": _make_list,
    "while_loop": _while_loop,
}
