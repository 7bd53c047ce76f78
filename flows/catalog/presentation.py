"""A description as MLflow shows it: tags and Markdown of the version, parameters and metrics of its run.

All within MLflow's limits, with what was cut marked by an ellipsis. Foreign text stays text.
"""

import re
from collections.abc import Iterable, Iterator, Sequence

from flows.catalog.description import Description, Tensor
from flows.catalog.markdown import plain
from serving.core.model import Format, Tag

# MLflow's database takes 5000; a verdict on a rollout is written under the page later.
MAX_PAGE = 4000
_MAX_TAG = 500
_MAX_PARAM = 500
_MAX_KEY = 250
_MAX_PROSE = 1500
_LABELS_NAMED = 20
_LAYERS_NAMED = 12
_TITLES = {Format.ONNX: "ONNX", Format.TORCHSCRIPT: "TorchScript", Format.PT2: "torch.export (.pt2)"}
_TITLES |= {Format.COREML: "Core ML"}
_VERSIONS = {"ir": "IR version", "archive": "archive version", "schema": "schema version"}
_VERSIONS |= {"specification": "specification version", "kind": "kind"}


def version_tags(description: Description) -> dict[str, str]:
    """Tags of the version; a fact that is not known has no tag."""
    told = description.told
    tags = {
        Tag.FORMAT: description.format,
        Tag.ARCHITECTURE: description.architecture,
        Tag.SIZE_BYTES: str(description.size_bytes),
        Tag.PARAMETERS: _number(description.parameter_count),
        Tag.PRODUCER: _producer(description),
        Tag.REQUIRES: _requires(description),
        Tag.LABELS: _labels(told.labels),
        Tag.AUTHOR: told.author or "",
        Tag.LICENCE: told.licence or "",
        Tag.TRAINING_DATASET: told.training_dataset or "",
    }
    return {str(key): _cut(value, _MAX_TAG) for key, value in tags.items() if value}


def run_params(description: Description) -> dict[str, str]:
    """Parameters of the run that logs the model: what the file is, in the columns of MLflow's run table."""
    params = {
        "format": description.format,
        "architecture": description.architecture,
        "parameter_count": _number(description.parameter_count),
        "layer_count": str(description.layer_count),
        "size_bytes": str(description.size_bytes),
        "producer": _producer(description),
        "requires": _requires(description),
        "labels": _labels(description.told.labels),
        "training_dataset": description.told.training_dataset or "",
    }
    params |= {f"opset {domain}": str(number) for domain, number in description.opsets.items()}
    return {_key(name): _cut(value, _MAX_PARAM) for name, value in params.items() if value}


def run_metrics(description: Description) -> dict[str, float]:
    """Metrics of training that the author told."""
    return {_key(name): value for name, value in description.told.metrics.items()}


def page(description: Description) -> str:
    """The version's description in Markdown: prose, facts, tensors, then as much detail as there is room.

    Lists, because MLflow's page sets tables without any space between their columns.
    """
    told = description.told
    sections = [[_prose(told.description or "")], _list(_facts(description))]
    sections.append(["**Inputs and outputs**", "", *_list(_tensors(description))])
    if told.metrics:
        metrics = ((name, f"{value:g}") for name, value in told.metrics.items())
        sections.append(["**Training metrics**", "", *_list(metrics)])
    if told.labels:
        sections.append([f"**Labels** ({len(told.labels)}): {plain(_labels(told.labels))}"])
    if layers := _layers(description):
        sections.append(["**Layers with weights**", "", *_list(layers)])
    sections += [[f"*{plain(note)}*"] for note in description.notes]
    return _joined(sections)


def size(size_bytes: int) -> str:
    """`139.4 kB`."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:.1f} {unit}"
    return f"{size_bytes} bytes"


def shape(tensor: Tensor) -> str:
    """`batch × 1 × 8 × 8`; a free axis without a name is a question mark."""
    if tensor.shape is None:
        return "unknown"
    return " × ".join("?" if length == -1 else str(length) for length in tensor.shape) or "scalar"


def _facts(description: Description) -> Iterator[tuple[str, str]]:
    title = next((title for name, title in _TITLES.items() if name == description.format), description.format)
    opsets = ", ".join(f"opset {number} of {domain}" for domain, number in description.opsets.items())
    numbers = description.versions.items()
    own = ", ".join(f"{_VERSIONS.get(name, name)} {number}" for name, number in numbers)
    facts = {
        "Format": ", ".join(filter(None, (title, opsets, own))),
        "Architecture": description.architecture,
        "Size": size(description.size_bytes),
        "Written by": _producer(description),
        "Needs": _requires(description),
        "Packages": _cut(", ".join(description.told.dependencies), _MAX_TAG),
        "Author": description.told.author or "",
        "Licence": description.told.licence or "",
        "Trained on": description.told.training_dataset or "",
    }
    return ((name, _cut(value, _MAX_TAG)) for name, value in facts.items() if value)


def _list(entries: Iterable[tuple[str, str]]) -> list[str]:
    return [f"- **{plain(name)}**: {plain(value)}" for name, value in entries]


def _tensors(description: Description) -> Iterator[tuple[str, str]]:
    for role, tensors in (("input", description.inputs), ("output", description.outputs)):
        for tensor in tensors:
            yield f"{role} {tensor.name}", f"{tensor.datatype}, {shape(tensor)}"


def _layers(description: Description) -> list[tuple[str, str]]:
    weighted = [layer for layer in description.layers if layer.parameter_count]
    return [
        (each.name, f"{each.kind}, {each.parameter_count:,} parameters") for each in weighted[:_LAYERS_NAMED]
    ]


def _number(value: int | None) -> str:
    return "" if value is None else str(value)


def _producer(description: Description) -> str:
    return " ".join(filter(None, (description.producer, description.producer_version)))


def _requires(description: Description) -> str:
    return ", ".join(f"{name} {wanted}" for name, wanted in description.runtimes.items())


def _labels(labels: Sequence[str]) -> str:
    rest = len(labels) - _LABELS_NAMED
    return ", ".join(labels[:_LABELS_NAMED]) + (f", … ({len(labels)} in all)" if rest > 0 else "")


def _prose(text: str) -> str:
    """What the author wrote, paragraph by paragraph."""
    # What promotion writes under the page begins with this name and a colon.
    text = text.replace("Signalbox:", "Signalbox :")
    paragraphs = [plain(part) for part in re.split(r"\n\s*\n", text) if part.strip()]
    return _cut("\n\n".join(paragraphs), _MAX_PROSE)


def _joined(sections: Sequence[Sequence[str]]) -> str:
    """The sections in order; the first that finds no room ends the page."""
    kept = ""
    for lines in sections:
        longer = "\n\n".join(filter(None, (kept, "\n".join(lines))))
        if len(longer) > MAX_PAGE:
            return f"{kept}\n\n…"
        kept = longer
    return kept


def _key(name: str) -> str:
    """A name that MLflow takes for a parameter or metric."""
    return re.sub(r"[^\w\-. :/]", "_", name)[:_MAX_KEY].strip() or "unnamed"


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
