"""The outline of a Core ML package or specification file, read from its protobuf.

Weights in a package's own file are counted by their declared shapes and not opened.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from coremltools.proto import MIL_pb2, Model_pb2

from serving.formats.artifact import Artifact
from serving.formats.coreml_package import specification_file
from serving.formats.loader import LoadedModel
from serving.formats.outline import MAX_LAYERS, Layer, Outline, Shape
from serving.formats.told import MAX_LABELS, Told, understood

# The oldest iOS and macOS that read a specification version. Source: Apple's documentation of Core ML's
# specification versions, which coremltools repeats as its deployment targets.
_SYSTEMS = {1: ("11", "10.13"), 2: ("11.2", "10.13.2"), 3: ("12", "10.14"), 4: ("13", "10.15")}
_SYSTEMS |= {5: ("14", "11"), 6: ("15", "12"), 7: ("16", "13"), 8: ("17", "14"), 9: ("18", "15")}
_SYSTEMS |= {10: ("26", "26")}
_TOOL = "com.github.apple.coremltools.version"
_FLOATS = frozenset(
    getattr(MIL_pb2, name)
    for name in ("FLOAT16", "FLOAT32", "FLOAT64", "BFLOAT16", "FLOAT8E4M3FN", "FLOAT8E5M2")
)
_MAX_NESTING = 5


def outline(artifact: Artifact, model: LoadedModel) -> Outline:
    """Raises whatever the parser raises."""
    spec = Model_pb2.Model()
    spec.ParseFromString(specification_file(artifact.payload).read_bytes())
    kind = spec.WhichOneof("Type") or "unknown"
    content = getattr(spec, kind, None)
    operations = [operation for block in _blocks(spec) for operation in block.operations]
    weights = _program_weights(operations)
    layers = [*_program_layers(operations, weights), *_network_layers(content)]
    version = int(spec.specificationVersion)
    phone, desk = _SYSTEMS.get(version, ("", ""))
    told = _told(spec, content, operations)
    features = (*spec.description.input, *spec.description.output)
    return Outline(
        operators=dict(Counter(layer.kind for layer in layers).most_common()),
        layer_count=len(layers),
        layers=tuple(layers[:MAX_LAYERS]),
        parameter_count=sum(weights.values()) or sum(layer.parameter_count for layer in layers),
        shapes={feature.name: _shape(feature.type) for feature in features},
        versions={"specification": str(version), "kind": kind},
        producer="coremltools" if _TOOL in told.properties else None,
        producer_version=told.properties.get(_TOOL),
        runtimes={"iOS": f">={phone}", "macOS": f">={desk}"} if phone else {},
        told=told,
    )


def _blocks(spec: Any) -> Iterator[Any]:
    """Every block of an ML program, nested ones included; none of another kind of model."""
    waiting = [block for f in spec.mlProgram.functions.values() for block in f.block_specializations.values()]
    while waiting:
        block = waiting.pop(0)
        yield block
        waiting += [inner for operation in block.operations for inner in operation.blocks]


def _is_stored(operation: Any) -> bool:
    """Whether it only holds a value, as it stands or compressed."""
    return bool(operation.type == "const" or operation.type.startswith("constexpr_"))


def _program_weights(operations: Iterable[Any]) -> dict[str, int]:
    """Elements by name of the stored float tensors; what a compressed one is made of is no weight itself."""
    weights: dict[str, int] = {}
    parts: set[str] = set()
    for operation in filter(_is_stored, operations):
        parts |= set(_operands(operation))
        for output in operation.outputs:
            tensor = output.type.tensorType
            if tensor.dataType in _FLOATS and tensor.rank:
                weights[output.name] = math.prod(size.constant.size for size in tensor.dimensions)
    return {name: count for name, count in weights.items() if name not in parts}


def _program_layers(operations: Iterable[Any], weights: Mapping[str, int]) -> Iterator[Layer]:
    for operation in operations:
        if not _is_stored(operation):
            count = sum(weights.get(name, 0) for name in dict.fromkeys(_operands(operation)))
            name = operation.outputs[0].name if operation.outputs else operation.type
            yield Layer(name, operation.type, count)


def _operands(operation: Any) -> Iterator[str]:
    for argument in operation.inputs.values():
        yield from (binding.name for binding in argument.arguments if binding.name)


def _network_layers(network: Any) -> Iterator[Layer]:
    """The layers of a neural network of before ML programs."""
    for layer in getattr(network, "layers", ()):
        kind = layer.WhichOneof("layer") or "unknown"
        content: Any = getattr(layer, kind, None)
        count = _elements(content, 0)
        if kind == "activation":
            kind = content.WhichOneof("NonlinearityType") or kind
        yield Layer(layer.name, kind, count)


def _elements(message: Any, depth: int) -> int:
    """Elements of all weights below a message of layer parameters."""
    if depth > _MAX_NESTING or not hasattr(message, "ListFields"):
        return 0
    if message.DESCRIPTOR.name == "WeightParams":
        bits = message.quantization.numberOfBits or 8
        stored = len(message.rawValue) * 8 // bits + len(message.int8RawValue)
        return len(message.floatValue) + len(message.float16Value) // 2 + stored
    found = 0
    for field, value in message.ListFields():
        if field.message_type is not None:
            found += sum(_elements(item, depth + 1) for item in (value if field.is_repeated else (value,)))
    return found


def _shape(feature: Any) -> Shape:
    """Axes that may vary are free; an image has height and width, and three channels unless it is grey."""
    if feature.WhichOneof("Type") == "imageType":
        grey = feature.imageType.ColorSpace.Name(feature.imageType.colorSpace).startswith("GRAYSCALE")
        return (1, 1 if grey else 3, int(feature.imageType.height), int(feature.imageType.width))
    array = feature.multiArrayType
    ranges = array.shapeRange.sizeRanges
    if ranges:
        return tuple(int(r.lowerBound) if r.lowerBound == r.upperBound else -1 for r in ranges)
    choices = [shape.shape for shape in array.enumeratedShapes.shapes]
    axes = zip(*choices, strict=True) if choices else ((length,) for length in array.shape)
    return tuple(int(axis[0]) if len(set(axis)) == 1 else -1 for axis in axes)


def _told(spec: Any, content: Any, operations: Iterable[Any]) -> Told:
    meta = spec.description.metadata
    pairs = dict(meta.userDefined)
    if meta.versionString:
        pairs["model_version"] = meta.versionString
    own = Told(
        description=meta.shortDescription.strip() or None,
        author=meta.author.strip() or None,
        licence=meta.license.strip() or None,
        labels=_network_labels(content) or _program_labels(operations),
    )
    return own.or_else(understood(pairs))


def _network_labels(content: Any) -> tuple[str, ...]:
    if not hasattr(content, "stringClassLabels"):
        return ()
    labels = content.stringClassLabels.vector or content.int64ClassLabels.vector
    return tuple(str(label) for label in labels[:MAX_LABELS])


def _program_labels(operations: Iterable[Any]) -> tuple[str, ...]:
    """Of an ML program: the list that its operation `classify` takes as classes."""
    operation = next((each for each in operations if each.type == "classify"), None)
    if operation is None:
        return ()
    values = [item for argument in operation.inputs["classes"].arguments for item in _items(argument.value)]
    labels = [label for item in values for label in (*item.strings.values, *_numbers(item))]
    return tuple(str(label) for label in labels[:MAX_LABELS])


def _items(value: Any) -> list[Any]:
    """The tensors of a list, or the one tensor of anything else."""
    listed = value.immediateValue.list.values
    return [item.immediateValue.tensor for item in listed] or [value.immediateValue.tensor]


def _numbers(tensor: Any) -> Iterator[int]:
    yield from tensor.longInts.values
    yield from tensor.ints.values
