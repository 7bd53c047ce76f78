"""The outline of a torch.export archive: its program as JSON and the list of its weights.

The archive was checked by the adapter; here it is only read, nothing of it is rebuilt.
"""

import json
import math
import re
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from serving.formats.artifact import Artifact
from serving.formats.extra_files import archive_version, read_extra_files
from serving.formats.loader import LoadedModel
from serving.formats.outline import MAX_LAYERS, Layer, Outline, Shape

_PROGRAM = re.compile(r"[^/]+/models/[^/]+\.json")
_WEIGHTS = re.compile(r"[^/]+/data/weights/[^/]+_config\.json")
_OPERATOR = re.compile(r"torch\.ops\.\w+\.(\w+)")
_SYMBOL = re.compile(r"Symbol\('(\w+)'|^(\w+)$")
_MAX_JSON_BYTES = 256 << 20


def outline(artifact: Artifact, model: LoadedModel) -> Outline:
    """Raises KeyError, TypeError or ValueError where the program has another form."""
    program = _json(artifact.payload, _PROGRAM)
    graph_module = program["graph_module"]
    graph, signature = graph_module["graph"], graph_module["signature"]
    weights = dict(_weights(_json(artifact.payload, _WEIGHTS)))
    places = dict(_places(signature))
    layers = [_layer(node, places, weights) for node in graph["nodes"] if _OPERATOR.match(node["target"])]
    extra = read_extra_files(artifact.payload)
    writer = str(program.get("torch_version") or "").partition("+")[0]
    schema = program.get("schema_version") or {}
    return Outline(
        operators=dict(Counter(layer.kind for layer in layers).most_common()),
        layer_count=len(layers),
        layers=tuple(layers[:MAX_LAYERS]),
        parameter_count=sum(weights.values()),
        shapes=dict(_shapes(graph["tensor_values"], signature)),
        opsets={str(name): int(number) for name, number in (program.get("opset_version") or {}).items()},
        versions={
            "archive": archive_version(artifact.payload) or "unknown",
            "schema": f"{schema.get('major')}.{schema.get('minor')}",
        },
        producer="torch",
        producer_version=writer or None,
        runtimes={"torch": f">={writer}"} if writer else {},
        told=extra.told,
        notes=extra.notes,
    )


def _json(path: Path, wanted: re.Pattern[str]) -> dict[str, Any]:
    with zipfile.ZipFile(path) as archive:
        entry = next(entry for entry in archive.infolist() if wanted.fullmatch(entry.filename))
        if entry.file_size > _MAX_JSON_BYTES:
            raise ValueError(f"'{entry.filename}' has {entry.file_size} bytes")
        content: dict[str, Any] = json.loads(archive.read(entry))
        return content


def _weights(config: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Elements by name; running statistics of a norm are no parameters."""
    for name, entry in config["config"].items():
        if entry["is_param"]:
            yield name, math.prod(size["as_int"] for size in entry["tensor_meta"]["sizes"])


def _places(signature: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The parameter that each of the graph's own names stands for."""
    for spec in signature["input_specs"]:
        for kind in ("parameter", "buffer"):
            if kind in spec:
                yield spec[kind]["arg"]["name"], spec[kind][f"{kind}_name"]


def _layer(node: Mapping[str, Any], places: Mapping[str, str], weights: Mapping[str, int]) -> Layer:
    found = _OPERATOR.match(node["target"])
    kind = found[1].rstrip("_") if found else node["target"]
    held = [places[name] for name in dict.fromkeys(_operands(node)) if name in places]
    owner = held[0].rpartition(".")[0] if held else ""
    count = sum(weights.get(place, 0) for place in held)
    return Layer(owner or str(node.get("name") or next(_results(node), kind)), kind, count)


def _operands(node: Mapping[str, Any]) -> Iterator[str]:
    for entry in node["inputs"]:
        argument = entry["arg"]
        tensors = [argument["as_tensor"]] if "as_tensor" in argument else argument.get("as_tensors") or ()
        yield from (tensor["name"] for tensor in tensors)


def _results(node: Mapping[str, Any]) -> Iterator[str]:
    return (output["as_tensor"]["name"] for output in node["outputs"] if "as_tensor" in output)


def _shapes(values: Mapping[str, Any], signature: Mapping[str, Any]) -> Iterator[tuple[str, Shape]]:
    """By the names under which the adapter serves inputs and outputs."""
    for spec in signature["input_specs"]:
        name = _tensor_name(spec, "user_input")
        if name is not None:
            yield name, _shape(values[name])
    outputs = [_tensor_name(spec, "user_output") for spec in signature["output_specs"]]
    for index, name in enumerate(name for name in outputs if name is not None):
        yield f"OUTPUT__{index}", _shape(values[name])


def _tensor_name(spec: Mapping[str, Any], role: str) -> str | None:
    argument = spec.get(role, {}).get("arg", {})
    return str(argument["as_tensor"]["name"]) if "as_tensor" in argument else None


def _shape(value: Mapping[str, Any]) -> Shape:
    return tuple(_length(size) for size in value["sizes"])


def _length(size: Mapping[str, Any]) -> int | str:
    if "as_int" in size:
        return int(size["as_int"])
    found = _SYMBOL.search(size["as_expr"]["expr_str"])
    return next(name for name in found.groups() if name) if found else -1
