"""External weights of an ONNX file: every location must stay inside the model's own folder.

Called before a session is made, because the runtime opens these files itself.
"""

import math
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

import onnx

from serving.core.errors import ArtifactRefused
from serving.formats.archive import escapes

# Several of these share one byte, so a shape alone does not say how many there are.
_PACKED = frozenset(("uint4", "int4", "uint2", "int2", "float4_e2m1fn", "float6_e2m3fn", "float6_e3m2fn"))
_LOG_TOGETHER = "log the model again together with its weight files"


def check_external_data(proto: onnx.ModelProto, folder: Path) -> None:
    """Raise ArtifactRefused if a tensor's data is missing, too short or, links followed, outside `folder`."""
    external = [tensor for tensor in stored_tensors(proto) if _is_external(tensor)]
    for location in sorted({_entry(tensor, "location") for tensor in external}):
        _check_location(location, folder)
    for tensor in external:
        _check_extent(tensor, folder)


def external_files(proto: onnx.ModelProto) -> tuple[str, ...]:
    """The weight files a proto names, relative to its folder, sorted. Check them before opening any."""
    tensors = stored_tensors(proto)
    return tuple(sorted({_entry(tensor, "location") for tensor in tensors if _is_external(tensor)}))


def declared_bytes(tensor: onnx.TensorProto) -> int | None:
    """How many bytes the declared shape takes; None for text and types packed below a byte."""
    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    except (KeyError, ValueError, TypeError):
        return None
    return None if dtype.kind == "O" or dtype.name in _PACKED else math.prod(tensor.dims) * dtype.itemsize


def stored_tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor stored in the file: weights, attributes, subgraphs, local functions, training graphs."""
    graphs = [proto.graph]
    nodes = [node for function in proto.functions for node in function.node]
    graphs += [graph for info in proto.training_info for graph in (info.initialization, info.algorithm)]
    while graphs or nodes:
        if graphs:
            graph = graphs.pop()
            yield from graph.initializer
            yield from _dense(graph.sparse_initializer)
            nodes.extend(graph.node)
        for attribute in chain.from_iterable(node.attribute for node in nodes):
            yield from chain([attribute.t], attribute.tensors)
            yield from _dense(chain([attribute.sparse_tensor], attribute.sparse_tensors))
            graphs.extend(chain([attribute.g] if attribute.HasField("g") else [], attribute.graphs))
        nodes.clear()


def _check_location(location: str, folder: Path) -> None:
    within = bool(location) and not escapes(location)
    if not within or not (folder / location).resolve().is_relative_to(folder.resolve()):
        problem = f"its external data '{location}' lies outside the model's folder"
        raise ArtifactRefused(problem, next_step="save the weights beside the model file and log it again")
    if not (folder / location).is_file():
        raise ArtifactRefused(f"its external data file '{location}' is missing", next_step=_LOG_TOGETHER)


def _check_extent(tensor: onnx.TensorProto, folder: Path) -> None:
    location = _entry(tensor, "location")
    held = (folder / location).stat().st_size
    declared = declared_bytes(tensor)
    try:
        offset = int(_entry(tensor, "offset") or 0)
        length = int(_entry(tensor, "length") or declared or 0)
    except ValueError:
        offset, length = -1, -1
    if offset < 0 or length < 0 or (declared is not None and length != declared):
        problem = f"weight '{tensor.name}' declares another size than its place in '{location}' has"
        raise ArtifactRefused(problem, next_step="save the model again with its weights")
    if offset + length > held:
        problem = f"its external data file '{location}' is too short: {held} bytes of {offset + length}"
        raise ArtifactRefused(problem, next_step=_LOG_TOGETHER)


def _is_external(tensor: onnx.TensorProto) -> bool:
    return tensor.data_location == onnx.TensorProto.EXTERNAL or bool(tensor.external_data)


def _entry(tensor: onnx.TensorProto, key: str) -> str:
    return next((str(entry.value) for entry in tensor.external_data if entry.key == key), "")


def _dense(tensors: Iterable[onnx.SparseTensorProto]) -> Iterator[onnx.TensorProto]:
    for tensor in tensors:
        yield from (tensor.values, tensor.indices)
