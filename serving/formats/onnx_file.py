"""An ONNX file read without running it: parsed, and refused where it asks for more than we have.

Called by the ONNX adapter before a session is made, and by whoever looks a file over without
loading it. The runtime would find most of this too, but later, and in its own words.
"""

import math
from collections.abc import Iterator
from pathlib import Path

import onnx

from serving.core.errors import ArtifactRefused
from serving.formats.archive import escapes
from serving.formats.limits import DEFAULT_LIMITS, FileLimits
from serving.formats.onnx_data import (
    check_external_data,
    declared_bytes,
    external_files,
    stored_tensors,
)

_EXPORT_AGAIN = "export the model again, check it with onnx.checker, and log it again"
# What ONNX Runtime implements by itself; any other domain would need a library of native code.
_DOMAINS = frozenset(("", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc"))
_DEFAULT_DOMAINS = ("", "ai.onnx")


def read_onnx(path: Path, limits: FileLimits = DEFAULT_LIMITS) -> onnx.ModelProto:
    """The file's proto without external weights. Raises ArtifactRefused for what cannot be served."""
    proto = _parsed(path)
    _check_age(proto, path.name)
    _check_domains(proto, path.name)
    _check_lengths(proto, path.name, limits)
    check_external_data(proto, path.parent)
    return proto


def _parsed(path: Path) -> onnx.ModelProto:
    try:
        proto = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's DecodeError has no importable home with types
        problem = f"'{path.name}' is not a readable ONNX file; it may be truncated"
        raise ArtifactRefused(problem, next_step=_EXPORT_AGAIN) from error
    if not proto.ir_version or not proto.graph.output:
        problem = f"'{path.name}' holds no ONNX graph; it may be truncated"
        raise ArtifactRefused(problem, next_step=_EXPORT_AGAIN)
    return proto


def _check_age(proto: onnx.ModelProto, name: str) -> None:
    known = onnx.defs.onnx_opset_version()
    opsets = [entry.version for entry in proto.opset_import if entry.domain in _DEFAULT_DOMAINS]
    if proto.ir_version > onnx.IR_VERSION:
        newest = int(onnx.IR_VERSION)
        problem = f"'{name}' has IR version {proto.ir_version}, and {newest} is the newest known here"
        step = f"export it with an onnx package that writes IR version {newest} or older"
        raise ArtifactRefused(problem, next_step=step)
    if opsets and max(opsets) > known:
        problem = f"'{name}' uses opset {max(opsets)}, and {known} is the newest known here"
        raise ArtifactRefused(problem, next_step=f"export it with opset_version={known} or lower")


def _check_domains(proto: onnx.ModelProto, name: str) -> None:
    own = {(function.domain, function.name) for function in proto.functions}
    for node in _nodes(proto):
        if node.domain not in _DOMAINS and (node.domain, node.op_type) not in own:
            problem = f"'{name}' uses operator {node.op_type} of the custom domain '{node.domain}'"
            step = "express it with standard ONNX operators; libraries of custom operators are not loaded"
            raise ArtifactRefused(problem, next_step=step)


def _nodes(proto: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Every node: of the graph, of functions, of training graphs, and of graphs within nodes."""
    waiting = list(proto.graph.node)
    waiting += [node for function in proto.functions for node in function.node]
    for stage in proto.training_info:
        waiting += [*stage.initialization.node, *stage.algorithm.node]
    while waiting:
        node = waiting.pop()
        yield node
        for attribute in node.attribute:
            graphs = [attribute.g, *attribute.graphs] if attribute.HasField("g") else attribute.graphs
            waiting += [inner for graph in graphs for inner in graph.node]


def _check_lengths(proto: onnx.ModelProto, name: str, limits: FileLimits) -> None:
    for role, values in (("input", proto.graph.input), ("output", proto.graph.output)):
        for value in values:
            lengths = [dim.dim_value for dim in value.type.tensor_type.shape.dim if dim.HasField("dim_value")]
            _check_shape(f"{role} '{value.name}'", lengths, name, limits)
    for tensor in stored_tensors(proto):
        _check_shape(f"weight '{tensor.name}'", list(tensor.dims), name, limits)
        _check_raw(tensor, name)


def _check_shape(what: str, lengths: list[int], name: str, limits: FileLimits) -> None:
    """A length of 0 must not hide the others, so each counts as at least 1."""
    if min(lengths, default=0) < 0:
        problem = f"{what} of '{name}' declares the negative length {min(lengths)}"
        raise ArtifactRefused(problem, next_step=_EXPORT_AGAIN)
    if math.prod(max(length, 1) for length in lengths) > limits.max_elements:
        shape = " x ".join(map(str, lengths))
        problem = (
            f"{what} of '{name}' declares {shape} elements, more than the limit of {limits.max_elements}"
        )
        raise ArtifactRefused(problem, next_step="export it with the shapes it is really used with")


def _check_raw(tensor: onnx.TensorProto, name: str) -> None:
    """A weight kept as raw bytes must hold as many as its shape asks for."""
    if not tensor.HasField("raw_data") or tensor.data_location == onnx.TensorProto.EXTERNAL:
        return
    want = declared_bytes(tensor)
    if want is not None and len(tensor.raw_data) != want:
        problem = f"weight '{tensor.name}' of '{name}' declares {want} bytes and holds {len(tensor.raw_data)}"
        raise ArtifactRefused(problem, next_step=_EXPORT_AGAIN)


def weight_files(path: Path) -> tuple[str, ...]:
    """The external weight files that the file names, there or not, relative to its folder.

    Those that lead out of the folder are left out. Raises ArtifactRefused for what is no ONNX file.
    """
    return tuple(name for name in external_files(_parsed(path)) if name and not escapes(name))
