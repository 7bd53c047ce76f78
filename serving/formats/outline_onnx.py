"""The outline of an ONNX file, read from its proto without its external weights.

Every node counts as one operator, also those in the branches of If and the bodies of Loop; a call of
a function that the file defines counts under the function's name.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

import onnx

from serving.formats.artifact import Artifact
from serving.formats.loader import LoadedModel
from serving.formats.outline import MAX_LAYERS, Layer, Outline, Shape
from serving.formats.told import MAX_LABELS, Told, understood

_DEFAULT_DOMAIN = "ai.onnx"
# Nodes that hold a value or pass one on; no layer of a network.
_NO_LAYERS = frozenset(("Constant", "ConstantOfShape", "Identity"))
_LABEL_ATTRIBUTES = ("classlabels_strings", "classlabels_int64s", "classlabels_ints")
_WEIGHT_TYPES = frozenset(
    int(number)
    for name, number in onnx.TensorProto.DataType.items()
    if name.startswith(("FLOAT", "BFLOAT", "DOUBLE")) or name in ("INT8", "UINT8", "INT4", "UINT4")
)
# The first release of ONNX Runtime that implements an opset or reads an IR version.
# Source: the version matrix of ONNX Runtime's documentation, section "ONNX Runtime compatibility".
_BY_OPSET = {11: (1, 0), 12: (1, 3), 13: (1, 6), 14: (1, 8), 15: (1, 9), 16: (1, 11), 17: (1, 12)}
_BY_OPSET |= {18: (1, 14), 19: (1, 15), 20: (1, 17), 21: (1, 18), 22: (1, 21)}
_BY_ML_OPSET = {2: (1, 0), 3: (1, 11), 4: (1, 17), 5: (1, 18)}
_BY_IR = {6: (1, 0), 7: (1, 3), 8: (1, 9), 9: (1, 15), 10: (1, 18)}
_LAST_TABULATED = ">1.22"


def outline(artifact: Artifact, model: LoadedModel) -> Outline:
    """Raises whatever the parser raises."""
    proto = onnx.load(artifact.payload, load_external_data=False)
    graphs = list(_graphs(proto.graph))
    nodes = [node for graph in graphs for node in graph.node if node.op_type not in _NO_LAYERS]
    weights = {name: count for graph in graphs for name, count in _weights(graph)}
    opsets = {entry.domain or _DEFAULT_DOMAIN: int(entry.version) for entry in proto.opset_import}
    return Outline(
        operators=dict(Counter(node.op_type for node in nodes).most_common()),
        layer_count=len(nodes),
        layers=tuple(_layer(node, weights) for node in nodes[:MAX_LAYERS]),
        parameter_count=sum(weights.values()),
        shapes={value.name: _shape(value) for value in chain(proto.graph.input, proto.graph.output)},
        opsets=opsets,
        versions={"ir": str(proto.ir_version)},
        producer=proto.producer_name or None,
        producer_version=proto.producer_version or None,
        runtimes={"onnxruntime": required_runtime(opsets, proto.ir_version)},
        told=_told(proto, nodes),
    )


def required_runtime(opsets: Mapping[str, int], ir_version: int) -> str:
    """The oldest ONNX Runtime that implements the opsets and reads the IR version, as a requirement."""
    wanted = (
        (_BY_OPSET, opsets.get(_DEFAULT_DOMAIN, 0)),
        (_BY_ML_OPSET, opsets.get("ai.onnx.ml", 0)),
        (_BY_IR, ir_version),
    )
    if any(number > max(table) for table, number in wanted):
        return _LAST_TABULATED
    release = max(table[max(number, min(table))] for table, number in wanted)
    return f">={release[0]}.{release[1]}"


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graph, then those inside its nodes, however deep."""
    waiting = [graph]
    while waiting:
        current = waiting.pop()
        yield current
        for attribute in chain.from_iterable(node.attribute for node in current.node):
            waiting.extend(chain([attribute.g] if attribute.HasField("g") else [], attribute.graphs))


def _weights(graph: onnx.GraphProto) -> Iterator[tuple[str, int]]:
    """Name and number of elements of every stored tensor that is a weight."""
    constants = (
        (node.output[0] if node.output else "", attribute.t)
        for node in graph.node
        if node.op_type == "Constant"
        for attribute in node.attribute
        if attribute.HasField("t") and len(attribute.t.dims) > 0
    )
    for name, tensor in chain(((tensor.name, tensor) for tensor in graph.initializer), constants):
        if tensor.data_type in _WEIGHT_TYPES:
            yield name, math.prod(tensor.dims)
    for sparse in graph.sparse_initializer:
        yield sparse.values.name, math.prod(sparse.values.dims)


def _layer(node: onnx.NodeProto, weights: Mapping[str, int]) -> Layer:
    held = [name for name in dict.fromkeys(node.input) if name in weights]
    name = node.name or next(iter(node.output), "")
    return Layer(name, node.op_type, sum(weights[name] for name in held))


def _shape(value: onnx.ValueInfoProto) -> Shape:
    return tuple(
        int(dim.dim_value) if dim.HasField("dim_value") else dim.dim_param or -1
        for dim in value.type.tensor_type.shape.dim
    )


def _told(proto: onnx.ModelProto, nodes: Sequence[onnx.NodeProto]) -> Told:
    """What the metadata properties say, else the documentation string and a classifier's own labels."""
    pairs = {entry.key: entry.value for entry in proto.metadata_props}
    if proto.domain:
        pairs.setdefault("domain", proto.domain)
    if proto.model_version:
        pairs.setdefault("model_version", str(proto.model_version))
    prose = proto.doc_string.strip() or proto.graph.doc_string.strip()
    return understood(pairs).or_else(Told(description=prose or None, labels=_class_labels(nodes)))


def _class_labels(nodes: Sequence[onnx.NodeProto]) -> tuple[str, ...]:
    for attribute in chain.from_iterable(node.attribute for node in nodes):
        if attribute.name in _LABEL_ATTRIBUTES:
            labels = [label.decode(errors="replace") for label in attribute.strings] or attribute.ints
            return tuple(str(label) for label in labels[:MAX_LABELS])
    return ()
