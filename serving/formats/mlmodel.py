"""What MLflow's `MLmodel` file says of a logged model: flavours, signature, input example.

Called by `inspect_artifact`. The file is data from somebody else: read safely, bounded, and
believed only as far as it makes sense. Signature and example help; without them a model is still served.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from serving.core.datatypes import DTYPES, Array, datatype_of
from serving.core.errors import ArtifactRefused
from serving.core.model import TensorSpec

FILE_NAME = "MLmodel"
_MAX_FILE_BYTES = 4 << 20
_MAX_EXAMPLE_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class LoggedModel:
    """An `MLmodel` file. Tensors of an unnamed signature or example have the name ''."""

    flavors: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    inputs: tuple[TensorSpec, ...] | None = None
    outputs: tuple[TensorSpec, ...] | None = None
    example: Mapping[str, Array] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_logged_model(root: Path) -> LoggedModel | None:
    """The folder's `MLmodel`, or None where there is none. Raises ArtifactRefused if it is unreadable."""
    path = root / FILE_NAME
    if not path.is_file():
        return None
    content = _parsed(path)
    signature = content.get("signature") or {}
    inputs = _specs(signature.get("inputs")) if isinstance(signature, dict) else None
    outputs = _specs(signature.get("outputs")) if isinstance(signature, dict) else None
    notes: tuple[str, ...] = ()
    example = None
    try:
        example = _example(root, content.get("saved_input_example_info"), inputs)
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        notes = (f"the input example could not be read: {error}",)
    named = content["flavors"].items()
    flavors = {str(name): value if isinstance(value, dict) else {} for name, value in named}
    metadata = {
        key: str(content[key])
        for key in ("mlflow_version", "model_uuid", "model_id", "run_id", "utc_time_created")
        if content.get(key) is not None
    }
    return LoggedModel(flavors, inputs, outputs, example, metadata, notes)


def _parsed(path: Path) -> dict[str, Any]:
    step = "log the model again with MLflow"
    if path.stat().st_size > _MAX_FILE_BYTES:
        raise ArtifactRefused(f"{FILE_NAME} is larger than {_MAX_FILE_BYTES} bytes", next_step=step)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ArtifactRefused(f"{FILE_NAME} is not readable YAML ({reason})", next_step=step) from None
    if not isinstance(content, dict) or not isinstance(content.get("flavors"), dict):
        raise ArtifactRefused(f"{FILE_NAME} names no flavours", next_step=step)
    return content


def _specs(text: object) -> tuple[TensorSpec, ...] | None:
    """Tensor specs of one side of a signature; None for column-based or unreadable ones."""
    try:
        entries = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(entries, list) or not entries:
        return None
    specs = [_spec(entry) for entry in entries]
    return tuple(spec for spec in specs if spec is not None) if None not in specs else None


def _spec(entry: object) -> TensorSpec | None:
    tensor = entry.get("tensor-spec") if isinstance(entry, dict) else None
    if not isinstance(entry, dict) or not isinstance(tensor, dict):
        return None
    shape = tensor.get("shape")
    try:
        datatype = datatype_of(np.dtype(str(tensor.get("dtype"))))
    except TypeError:
        return None
    if datatype is None or not isinstance(shape, list) or any(type(length) is not int for length in shape):
        return None
    return TensorSpec(str(entry.get("name") or ""), datatype, tuple(shape))


def _example(root: Path, info: object, specs: tuple[TensorSpec, ...] | None) -> dict[str, Array] | None:
    """The input example as arrays; forms: nested lists, lists by tensor name, a numeric data frame."""
    if not isinstance(info, dict) or not isinstance(info.get("artifact_path"), str):
        return None
    path = (root / info["artifact_path"]).resolve()
    if not path.is_relative_to(root.resolve()) or path.stat().st_size > _MAX_EXAMPLE_BYTES:
        raise ValueError("it lies outside the model's folder or is too large")
    content = json.loads(path.read_text(encoding="utf-8"))
    if info.get("type") == "dataframe":
        content = content["data"]
    if info.get("format") == "tf-serving":
        content = content.get("inputs", content.get("instances"))
    dtypes = {spec.name: spec.datatype for spec in specs or ()}
    if isinstance(content, dict):
        return {str(name): _array(value, dtypes.get(str(name))) for name, value in content.items()}
    return {"": _array(content, dtypes.get(""))}


def _array(value: object, datatype: str | None) -> Array:
    array = np.array(value)
    if array.dtype.kind == "U":
        return array.astype(np.object_)
    if array.dtype.kind not in "bifu":
        raise ValueError("it holds something that is neither numbers nor text")
    if datatype is None or datatype == "BYTES":
        return array
    return array.astype(DTYPES[datatype])
