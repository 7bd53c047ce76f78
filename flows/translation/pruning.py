"""Leaving out what no output depends on, so that the file holds nothing the runtime warns about."""

from collections.abc import Iterator

import onnx


def prune(model: onnx.ModelProto) -> None:
    """Drops unneeded nodes of the main graph and unneeded weights; inputs stay, used or not.

    Deletes in place: weights may fill most of the memory, and copying them would need it twice.
    """
    graph = model.graph
    needed = {output.name for output in graph.output}
    for place in reversed(range(len(graph.node))):
        node = graph.node[place]
        if needed.isdisjoint(node.output):
            del graph.node[place]
        else:
            needed.update(_read(node))
    needed.update(one.name for one in graph.input)
    for place in reversed(range(len(graph.initializer))):
        if graph.initializer[place].name not in needed:
            del graph.initializer[place]


def _read(node: onnx.NodeProto) -> Iterator[str]:
    """Names the node takes, those that its bodies take from outside among them."""
    yield from node.input
    for attribute in node.attribute:
        for inner in attribute.g.node:
            yield from _read(inner)
        yield from (output.name for output in attribute.g.output)
