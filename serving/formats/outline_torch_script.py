"""The outline of a TorchScript archive: the graph of the loaded module and the archive's extra files.

The module was loaded by the adapter, which refused what is unsafe; nothing here runs it.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from serving.formats.artifact import Artifact
from serving.formats.extra_files import archive_version, read_extra_files
from serving.formats.loader import LoadedModel
from serving.formats.mlmodel import read_logged_model
from serving.formats.outline import MAX_LAYERS, Layer, Outline

_MAX_DEPTH = 100


def outline(artifact: Artifact, model: LoadedModel) -> Outline:
    """Raises AttributeError for a model that is not this format's."""
    module: Any = model.module  # type: ignore[attr-defined]
    weights = {name: tensor.numel() for name, tensor in module.named_parameters()}
    layers = list(_layers(module.inlined_graph, weights))
    extra = read_extra_files(artifact.payload)
    writer = logged_torch(artifact)
    return Outline(
        operators=dict(Counter(layer.kind for layer in layers).most_common()),
        layer_count=len(layers),
        layers=tuple(layers[:MAX_LAYERS]),
        parameter_count=sum(weights.values()) or sum(layer.parameter_count for layer in layers),
        versions={"archive": archive_version(artifact.payload) or "unknown"},
        producer="torch",
        producer_version=writer,
        runtimes={"torch": f">={writer}"} if writer else {},
        told=extra.told,
        notes=extra.notes,
    )


def logged_torch(artifact: Artifact) -> str | None:
    """The release of PyTorch that logged the model, which the archive itself does not say."""
    logged = read_logged_model(artifact.root)
    flavor = logged.flavors.get("pytorch", {}) if logged is not None else {}
    return str(flavor["pytorch_version"]).partition("+")[0] if flavor.get("pytorch_version") else None


def _layers(graph: Any, weights: Mapping[str, int]) -> Iterator[Layer]:
    """One per operator that gives a tensor, in the order of the graph.

    The path of every attribute is followed from the module itself, so that a layer knows its weights.
    """
    places: dict[str, str] = {next(iter(graph.inputs())).debugName(): ""}
    for node in _nodes(graph, 0):
        kind = node.kind()
        if kind == "prim::GetAttr":
            owner = places.get(node.inputsAt(0).debugName())
            if owner is not None:
                name = node.s("name")
                places[node.outputsAt(0).debugName()] = f"{owner}.{name}" if owner else name
        elif kind.startswith(("aten::", "quantized::")) and _gives_tensor(node):
            yield _layer(node, places, weights)


def _nodes(block: Any, depth: int) -> Iterator[Any]:
    """Every node, nested ones included, but not what a module in evaluation mode never does."""
    for node in block.nodes():
        yield node
        blocks = list(node.blocks()) if depth < _MAX_DEPTH else []
        if node.kind() == "prim::If" and _asks_for_training(node):
            blocks = blocks[1:]
        for inner in blocks:
            yield from _nodes(inner, depth + 1)


def _asks_for_training(node: Any) -> bool:
    condition = node.inputsAt(0).node()
    return bool(condition.kind() == "prim::GetAttr" and condition.s("name") == "training")


def _gives_tensor(node: Any) -> bool:
    return any("Tensor" in str(output.type()) for output in node.outputs())


def _layer(node: Any, places: Mapping[str, str], weights: Mapping[str, int]) -> Layer:
    paths = [places.get(name, "") for name in _operands(node)]
    held = [path for path in dict.fromkeys(paths) if path in weights]
    owner = held[0].rpartition(".")[0] if held else ""
    count = sum(weights[path] for path in held) or _constants(node)
    return Layer(owner or node.outputsAt(0).debugName(), node.kind().partition("::")[2].rstrip("_"), count)


def _operands(node: Any) -> Iterator[str]:
    """Names of what the node reads, the elements of lists included (an LSTM takes its weights as one)."""
    for value in node.inputs():
        yield value.debugName()
        if value.node().kind() == "prim::ListConstruct":
            yield from (element.debugName() for element in value.node().inputs())


def _constants(node: Any) -> int:
    """Elements of the weights that a frozen module holds as constants of its graph."""
    held = [value.node() for value in node.inputs() if value.node().kind() == "prim::Constant"]
    return sum(
        constant.t("value").numel()
        for constant in held
        if constant.hasAttribute("value") and constant.kindOf("value") == "t"
    )
