"""External weights of an ONNX file: every location must stay inside the model's own folder.

Called by the ONNX adapter before a session is made, because the runtime opens these files itself.
"""

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path, PurePosixPath, PureWindowsPath

import onnx

from serving.core.errors import ArtifactRefused


def check_external_data(proto: onnx.ModelProto, folder: Path) -> None:
    """Raise ArtifactRefused if a tensor's data lies, links followed, outside `folder` or is missing."""
    for location in sorted({_location(tensor) for tensor in _tensors(proto) if _is_external(tensor)}):
        _check_location(location, folder)


def _check_location(location: str, folder: Path) -> None:
    paths = (PurePosixPath(location), PureWindowsPath(location))
    within = bool(location) and not any(
        path.is_absolute() or path.drive or ".." in path.parts for path in paths
    )
    if not within or not (folder / location).resolve().is_relative_to(folder.resolve()):
        problem = f"its external data '{location}' lies outside the model's folder"
        raise ArtifactRefused(problem, next_step="save the weights beside the model file and log it again")
    if not (folder / location).is_file():
        problem = f"its external data file '{location}' is missing"
        raise ArtifactRefused(problem, next_step="log the model again together with its weight files")


def _is_external(tensor: onnx.TensorProto) -> bool:
    return tensor.data_location == onnx.TensorProto.EXTERNAL or bool(tensor.external_data)


def _location(tensor: onnx.TensorProto) -> str:
    return next((entry.value for entry in tensor.external_data if entry.key == "location"), "")


def _tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
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


def _dense(tensors: Iterable[onnx.SparseTensorProto]) -> Iterator[onnx.TensorProto]:
    for tensor in tensors:
        yield from (tensor.values, tensor.indices)
