"""The side file of a model file: what its maker says of it, in `<name>.model.yaml` beside it.

Data from somebody else: read without running anything, bounded, and refused as a whole, with the line
and the key, where it says something that no version could carry.
"""

import difflib
import math
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator

from serving.core.errors import ArtifactRefused

SUFFIX = ".model.yaml"
MLFLOW_SCHEMES = ("runs:/", "mlflow-artifacts:/")
_MAX_BYTES = 256 << 10
_RESERVED_TAGS = ("signalbox.", "mlflow.")
_NAME = re.compile(r"[^/:.\x00-\x1f][^/:\x00-\x1f]{0,199}")

Text = Annotated[str, StringConstraints(min_length=1, max_length=5000)]
Label = Annotated[str, StringConstraints(min_length=1, max_length=250)]
Key = Annotated[str, StringConstraints(pattern=r"^[\w. :/-]+$", max_length=250)]
Scalar = str | int | float | bool
ModelType = Literal["classifier", "predictor", "extractor", "router"]


class Baseline(BaseModel):
    """What a version was measured at elsewhere, before anybody measures it here."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    accuracy: float | None = Field(None, ge=0, le=1)
    latency_p50_ms: float | None = Field(None, gt=0)
    throughput: float | None = Field(None, gt=0, description="Answers per second.")
    memory_mb: float | None = Field(None, gt=0)

    @property
    def numbers(self) -> dict[str, Any]:
        """By the names that reports of a benchmark use."""
        named = {
            "accuracy": self.accuracy,
            "latency_ms": self.latency_p50_ms,
            "throughput_per_second": self.throughput,
            "memory_mb": self.memory_mb,
        }
        return {name: value for name, value in named.items() if value is not None}


class SideFile(BaseModel):
    """Every key a side file may have; all are optional. Paths are relative to the side file."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: str | None = None
    model_type: ModelType | None = None
    description: Text | None = None
    author: Label | None = None
    owner: Label | None = None
    team: Label | None = None
    critical: bool | None = None
    training_dataset: Label | None = None
    metrics: dict[Key, float] = Field(default_factory=dict)
    params: dict[Key, Scalar] = Field(default_factory=dict)
    tags: dict[Key, Scalar] = Field(default_factory=dict)
    evaluation_set: Text | None = None
    example: Text | None = None
    labels: list[Label] | Text | None = None
    dependencies: list[Label] = Field(default_factory=list)
    licence: Label | None = None
    sibling: Label | None = Field(None, description="Name that every format of the same network shares.")
    baseline: Baseline | None = None

    @field_validator("name")
    @classmethod
    def _name_that_mlflow_takes(cls, name: str | None) -> str | None:
        if name is not None and _NAME.fullmatch(name) is None:
            raise ValueError(f"'{name}' is no name for a model: at most 200 characters, no '/', no ':'")
        return name

    @field_validator("labels", mode="before")
    @classmethod
    def _labels_as_text(cls, value: object) -> object:
        """Digits are labels too; YAML reads them as numbers."""
        if isinstance(value, list):
            return [str(item) if type(item) in (int, float) else item for item in value]
        if value is not None and not isinstance(value, str):
            raise ValueError("it must be a list of labels, or the path of a file with one label per line")
        return value

    @field_validator("tags", mode="before")
    @classmethod
    def _list_as_tags(cls, value: object) -> object:
        is_list = isinstance(value, list) and all(isinstance(item, str) for item in value)
        return {str(item): "true" for item in value} if isinstance(value, list) and is_list else value

    @field_validator("tags")
    @classmethod
    def _own_tags_only(cls, tags: dict[str, Scalar]) -> dict[str, Scalar]:
        taken = next((key for key in tags if key.startswith(_RESERVED_TAGS)), None)
        if taken is not None:
            raise ValueError(f"tag '{taken}' begins with a name that is reserved")
        return tags

    @field_validator("metrics")
    @classmethod
    def _finite_metrics(cls, metrics: dict[str, float]) -> dict[str, float]:
        wrong = next((key for key, value in metrics.items() if not math.isfinite(value)), None)
        if wrong is not None:
            raise ValueError(f"metric '{wrong}' is not a finite number")
        return metrics

    @field_validator("evaluation_set", "example")
    @classmethod
    def _archives_of_arrays(cls, value: str | None) -> str | None:
        if value is not None and PurePosixPath(value).suffix != ".npz":
            raise ValueError(f"'{value}' is no .npz file")
        return value

    @property
    def as_json(self) -> dict[str, Any]:
        """What was said, without the keys that were left out."""
        return self.model_dump(mode="json", exclude_defaults=True)

    def overlaid(self, said: Mapping[str, Any]) -> "SideFile":
        """With what somebody said otherwise. Raises `ArtifactRefused`."""
        given = {key: value for key, value in said.items() if value not in (None, {}, [])}
        return _validated(self.as_json | given, "the options", lambda keys: "")


def side_file_of(model_file: Path) -> Path | None:
    """The side file of this very file (`digits.onnx.model.yaml`), else of its name (`digits.model.yaml`)."""
    for name in (model_file.name, model_file.stem):
        path = model_file.with_name(name + SUFFIX)
        if path.is_file():
            return path
    return None


def read_side_file(path: Path) -> SideFile:
    """What the file says. Raises `ArtifactRefused` in one sentence that names line and key."""
    text = _text(path)
    node = _composed(text, path.name)
    if node is None or node.tag == "tag:yaml.org,2002:null":
        return SideFile()
    return _validated(_plain(text, path.name), f"'{path.name}'", lambda keys: _line(node, keys))


def inside(side_file: Path, relative: str, folder: Path) -> Path:
    """The file that a side file names, which must lie, links followed, in `folder`."""
    path = side_file.parent / relative
    try:
        resolved = path.resolve(strict=True)
    except (OSError, RuntimeError, ValueError):
        problem = f"'{side_file.name}' names '{relative}', which is not there"
        raise ArtifactRefused(problem, next_step="put the file there, or correct the path") from None
    if not resolved.is_relative_to(folder.resolve()) or not resolved.is_file():
        problem = f"'{side_file.name}' names '{relative}', which is no file in the model's folder"
        raise ArtifactRefused(problem, next_step="name a file in the folder, by its path from the side file")
    return resolved


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_BYTES + 1)
        if len(raw) > _MAX_BYTES:
            raise _refused(f"'{path.name}' is larger than {_MAX_BYTES >> 10} KB")
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise _refused(f"'{path.name}' is not UTF-8 text") from None
    except OSError as error:
        raise _refused(f"'{path.name}' cannot be read ({error.strerror})") from None


def _composed(text: str, name: str) -> yaml.Node | None:
    """The tree with its lines, after a look for what only trouble needs."""
    try:
        anchors = any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader))
        node: yaml.Node | None = yaml.compose(text, yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise _refused(f"'{name}' is not readable YAML ({_told(error)})") from None
    if anchors:
        raise _refused(f"'{name}' uses YAML aliases (*name), which are not taken")
    if node is not None and not isinstance(node, yaml.MappingNode) and not node.tag.endswith(":null"):
        raise _refused(f"'{name}' must hold keys with values, like `name: digits`")
    if isinstance(node, yaml.MappingNode):
        _check_twice(node, name)
    return node


def _check_twice(node: yaml.MappingNode, name: str) -> None:
    seen: set[str] = set()
    for key, value in node.value:
        if key.value in seen:
            raise _refused(f"'{name}' line {key.start_mark.line + 1}: key '{key.value}' is there twice")
        seen.add(str(key.value))
        if isinstance(value, yaml.MappingNode):
            _check_twice(value, name)


def _plain(text: str, name: str) -> dict[Any, Any]:
    try:
        values: dict[Any, Any] = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError, TypeError) as error:
        raise _refused(f"'{name}' holds what a side file may not ({_told(error)})") from None
    return values


def _told(error: Exception) -> str:
    """YAML's own words and the line, on one line."""
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        where = f" in line {mark.line + 1}" if mark is not None else ""
        return f"{error.problem or error.context}{where}"
    return " ".join(str(error).split())[:200] or type(error).__name__


def _validated(values: Mapping[Any, Any], source: str, line: Any) -> SideFile:
    try:
        return SideFile.model_validate(values)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False)[0]
        keys = [str(key) for key in found["loc"] if isinstance(key, str | int)]
        said = _said(found["type"], found["msg"], keys)
        raise _refused(f"{source}{line(keys)}: {said}") from None


def _said(kind: str, message: str, keys: list[str]) -> str:
    key = ".".join(_named(keys))
    if kind == "extra_forbidden":
        fields = Baseline.model_fields if keys[0] == "baseline" and len(keys) > 1 else SideFile.model_fields
        near = difflib.get_close_matches(keys[-1], fields, 1)
        meant = f", did you mean '{near[0]}'?" if near else ";"
        return f"unknown key '{key}'{meant} known are {', '.join(fields)}"
    plain = message.removeprefix("Value error, ")
    return f"key '{key}': {plain[:1].lower()}{plain[1:]}"


def _named(keys: list[str]) -> list[str]:
    """Without the names pydantic gives to the members of a union."""
    known = {"str", "int", "float", "bool", "[key]"}
    return [key for key in keys if key not in known and not key.startswith(("list[", "constrained-"))]


def _line(node: yaml.Node, keys: list[str]) -> str:
    """` line 3` of the deepest key on the way that is there."""
    line = node.start_mark.line
    for wanted in keys:
        if not isinstance(node, yaml.MappingNode):
            break
        pair = next((pair for pair in node.value if pair[0].value == wanted), None)
        if pair is None:
            break
        line, node = pair[0].start_mark.line, pair[1]
    return f" line {line + 1}"


def _refused(problem: str) -> ArtifactRefused:
    return ArtifactRefused(problem, next_step="correct the side file; it is looked at again when it changes")
