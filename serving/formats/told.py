"""What the author of a model wrote into its file: free key-value pairs, understood as far as possible.

Called with ONNX's metadata properties, the extra files of PyTorch's archives and Core ML's user-defined
metadata. No two exporters use the same keys; the tables below are the ones in use. Text is data: it is
parsed as JSON or as a Python literal, bounded, and never evaluated.
"""

import ast
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

MAX_TEXT = 4000
MAX_LABELS = 10_000
_MAX_LABEL = 250
_MAX_PROPERTIES = 100
_MAX_METRICS = 100
_MAX_LITERAL = 1 << 20

_DESCRIPTION = ("description", "short_description", "summary", "doc_string")
_AUTHOR = ("model_author", "author", "authors", "creator")
_LICENCE = ("model_license", "license", "licence")
_DATASET = ("training_dataset", "train_dataset", "training_data", "dataset")
_LABELS = ("labels", "class_labels", "class_names", "classes", "names")
_DEPENDENCIES = ("dependencies", "requirements", "pip_requirements")
_METRICS = ("metrics", "training_metrics")
_METRIC_PREFIXES = ("metric.", "metrics.", "metric_")
_METRIC_NAMES = frozenset(
    ("accuracy", "precision", "recall", "f1", "f1_score", "loss", "auc", "mae", "rmse", "r2", "map", "iou")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What somebody says of a model. `properties` are the pairs that no other field has taken."""

    description: str | None = None
    author: str | None = None
    licence: str | None = None
    training_dataset: str | None = None
    labels: tuple[str, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    dependencies: tuple[str, ...] = ()
    properties: Mapping[str, str] = field(default_factory=dict)

    def or_else(self, other: "Told") -> "Told":
        """This, with what it lacks taken from `other`."""
        return Told(
            description=self.description or other.description,
            author=self.author or other.author,
            licence=self.licence or other.licence,
            training_dataset=self.training_dataset or other.training_dataset,
            labels=self.labels or other.labels,
            metrics={**other.metrics, **self.metrics},
            dependencies=self.dependencies or other.dependencies,
            properties={**other.properties, **self.properties},
        )


def understood(pairs: Mapping[str, str]) -> Told:
    """The pairs sorted into what they mean; keys are compared without case, spaces and dashes."""
    left = {_plain(key): value for key, value in pairs.items()}

    def take(keys: Iterable[str]) -> str:
        found = [left.pop(key) for key in keys if key in left]
        return next((value.strip() for value in found if value.strip()), "")

    labels, dependencies = _labels(take(_LABELS)), _lines(take(_DEPENDENCIES))
    metrics = _metrics(take(_METRICS))
    for key in [key for key in left if _metric_name(key) is not None]:
        value = _number(left[key])
        if value is not None:
            metrics[str(_metric_name(key))] = value
            del left[key]
    return Told(
        description=take(_DESCRIPTION)[:MAX_TEXT] or None,
        author=take(_AUTHOR)[:MAX_TEXT] or None,
        licence=take(_LICENCE)[:MAX_TEXT] or None,
        training_dataset=take(_DATASET)[:MAX_TEXT] or None,
        labels=labels,
        metrics=dict(list(metrics.items())[:_MAX_METRICS]),
        dependencies=dependencies,
        properties={key: left[key][:MAX_TEXT] for key in sorted(left)[:_MAX_PROPERTIES]},
    )


def pairs_of(name: str, text: str) -> dict[str, str]:
    """The pairs of one extra file: its members where it is a JSON object, else its whole text by its name.

    `config.txt` and `metadata.json` are such objects in archives that exporters write.
    """
    content = _parsed(text)
    if isinstance(content, dict) and _plain(name) not in (*_LABELS, *_METRICS):
        told = {str(key): value for key, value in content.items() if value is not None}
        return {key: value if isinstance(value, str) else repr(value) for key, value in told.items()}
    return {name: text}


def _plain(key: str) -> str:
    return "_".join(key.strip().lower().replace("-", " ").replace("_", " ").split())


def _parsed(text: str) -> object:
    """JSON or a Python literal, None for anything else."""
    if len(text) > _MAX_LITERAL or not text.strip().startswith(("{", "[", "(")):
        return None
    for read in (json.loads, ast.literal_eval):
        try:
            content: object = read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            continue
        return content
    return None


def _labels(text: str) -> tuple[str, ...]:
    """A list, `{index: name}`, `{name: index}`, or names parted by lines or commas."""
    content = _parsed(text)
    if isinstance(content, dict):
        content = _by_index(content)
    if isinstance(content, list | tuple):
        return tuple(str(label)[:_MAX_LABEL] for label in content[:MAX_LABELS])
    if "\n" in text:
        return _lines(text)
    parts = (part.strip()[:_MAX_LABEL] for part in text.split(",", MAX_LABELS)[:MAX_LABELS])
    return tuple(part for part in parts if part)


def _by_index(content: Mapping[object, object]) -> list[str]:
    if all(isinstance(value, int) for value in content.values()):
        return [str(key) for key, _ in sorted(content.items(), key=lambda pair: int(str(pair[1])))]
    keys = list(content)
    if all(str(key).isdigit() for key in keys):
        keys.sort(key=lambda key: int(str(key)))
    return [str(content[key]) for key in keys]


def _lines(text: str) -> tuple[str, ...]:
    content = _parsed(text)
    lines = [str(line) for line in content] if isinstance(content, list | tuple) else text.splitlines()
    return tuple(line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#"))[
        :MAX_LABELS
    ]


def _metrics(text: str) -> dict[str, float]:
    content = _parsed(text)
    found = {str(key): _number(value) for key, value in content.items()} if isinstance(content, dict) else {}
    return {key: value for key, value in found.items() if value is not None}


def _metric_name(key: str) -> str | None:
    prefix = next((prefix for prefix in _METRIC_PREFIXES if key.startswith(prefix)), "")
    name = key.removeprefix(prefix)
    return name if (prefix and name) or name in _METRIC_NAMES else None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
