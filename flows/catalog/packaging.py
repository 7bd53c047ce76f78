"""A model file laid out as the MLflow model that is registered: byte for byte, with all that MLflow wants.

Called in the examining process. The file is copied and never written again by a library, so that what
is served is what was handed over; only the descriptions around it are made here.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from mlflow import pyfunc
from mlflow.models import Model, ModelSignature
from mlflow.models.utils import _save_example
from mlflow.types import Schema
from mlflow.types import TensorSpec as MlflowTensor
from mlflow.utils.environment import _mlflow_conda_env, _PythonEnv

from flows.catalog.discover import payload
from serving.core.datatypes import DTYPES, Array
from serving.core.errors import ArtifactRefused
from serving.core.model import Format, TensorSpec
from serving.formats.artifact import TRANSLATION_FILE, payload_files
from serving.formats.mlmodel import FILE_NAME

_REQUIREMENTS, _CONDA, _PYTHON = "requirements.txt", "conda.yaml", "python_env.yaml"
_LOADER = "serving.formats.pyfunc"
_PICKLE_NOTE = "mlflow.pytorch.pickle_module"
_MAX_EXAMPLE_VALUES = 100_000
_PACKAGES = {
    Format.ONNX: ("onnx", "onnxruntime"),
    Format.TORCHSCRIPT: ("torch",),
    Format.PT2: ("torch",),
    Format.COREML: ("onnx", "onnxruntime"),
}


@dataclass(frozen=True, slots=True)
class Layout:
    """Where things lie in a model folder. `data` is what MLflow's loader is given, '' for the folder."""

    root: Path
    format: Format
    payload: Path
    data: str
    flavor: str
    entries: Mapping[str, Any]


def lay_out(source: Path, members: Sequence[str], format: Format, root: Path) -> Layout:
    """Copy a file, with what belongs to it, to where a model of its format keeps it."""
    root.mkdir(parents=True)
    if format is Format.TORCHSCRIPT:
        return _torch_script(source, root)
    if format is Format.ONNX:
        return _onnx(source, members, root)
    if format is Format.PT2:
        _copy(source, root / "model.pt2")
        return Layout(root, format, root / "model.pt2", "", "pt2", {"data": "model.pt2"})
    target = root / ("model.mlpackage" if source.is_dir() else "model.mlmodel")
    _copy(source, target)
    entries = {"data": target.name, "translation": TRANSLATION_FILE}
    return Layout(root, format, target, "", "coreml", entries)


def _torch_script(source: Path, root: Path) -> Layout:
    target = root / "data" / "model.pth"
    _copy(source, target)
    # Without this file MLflow's loader does not look at the other.
    (root / "data" / "pickle_module_info.txt").write_text(_PICKLE_NOTE)
    entries = {"model_data": "data", "pytorch_version": version("torch"), "code": None}
    return Layout(root, Format.TORCHSCRIPT, target, "data", "pytorch", entries)


def _onnx(source: Path, members: Sequence[str], root: Path) -> Layout:
    target = root / "model.onnx"  # at the top, where MLflow's loader looks for its description
    for member in members:
        _copy(source.parent / member, root / member)
        _check_free(member, root)
    _copy(source, target)
    entries = {
        "onnx_version": version("onnx"),
        "data": target.name,
        "providers": ["CPUExecutionProvider"],
        "onnx_session_options": None,
        "code": None,
    }
    return Layout(root, Format.ONNX, target, target.name, "onnx", entries)


def describe_briefly(layout: Layout) -> None:
    """An `MLmodel` that names the files and nothing else, with which the model can be loaded."""
    content = {"flavors": {layout.flavor: dict(layout.entries), "python_function": {}}}
    (layout.root / FILE_NAME).write_text(yaml.safe_dump(content))


def describe_fully(
    layout: Layout,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    example: Mapping[str, Array] | None,
    dependencies: Sequence[str],
) -> None:
    """Everything that MLflow's own `save_model` leaves: flavours, signature, example, requirements."""
    unnamed = layout.format is Format.TORCHSCRIPT and len(inputs) == 1
    model = Model(signature=_signature(inputs, outputs, unnamed))
    where = {"data": layout.data} if layout.data else {}
    loader = f"mlflow.{layout.flavor}" if layout.flavor in ("onnx", "pytorch") else _LOADER
    torch = {"pickle_module_name": _PICKLE_NOTE} if layout.flavor == "pytorch" else {}
    settings = {"model_config": {"device": None}} if layout.flavor == "pytorch" else {}
    pyfunc.add_to_model(
        model, loader_module=loader, conda_env=_CONDA, python_env=_PYTHON, **where, **torch, **settings
    )
    model.add_flavor(layout.flavor, **layout.entries)
    _save_rows(model, layout.root, example, unnamed)
    _save_requirements(layout, dependencies)
    model.model_size_bytes = sum(file.stat().st_size for file in payload(layout.root))
    model.save(layout.root / FILE_NAME)


def seen(specs: Sequence[TensorSpec], arrays: Mapping[str, Array], rows: int) -> tuple[TensorSpec, ...]:
    """The specs with what real arrays show where a script declares nothing: type, rank and inner lengths."""
    return tuple(
        TensorSpec(spec.name, _datatype(arrays[spec.name]), _free_rows(arrays[spec.name], rows))
        if spec.dims is None and spec.name in arrays
        else spec
        for spec in specs
    )


def _free_rows(array: Array, rows: int) -> tuple[int, ...]:
    return (-1, *array.shape[1:]) if array.ndim and len(array) == rows else array.shape


def _datatype(array: Array) -> str:
    return next(name for name, dtype in DTYPES.items() if dtype == array.dtype)


def _check_free(member: str, root: Path) -> None:
    """A weight file must not stand in for one that MLflow reads or that we write."""
    if root / member not in payload_files(root) or member == "model.onnx":
        step = "save the model with its weights under another name"
        raise ArtifactRefused(f"its external data file is called '{member}'", next_step=step)


def _copy(source: Path, target: Path) -> None:
    """The bytes alone: neither links, which could lead elsewhere, nor modes and times."""
    try:
        for file in payload(source):
            copied = target / file.relative_to(source)
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copied)
    except FileNotFoundError as error:
        step = "wait until the upload is complete; the file is looked at again when it changes"
        raise ArtifactRefused(f"'{source.name}' vanished while it was read", next_step=step) from error


def _signature(
    inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], unnamed: bool
) -> ModelSignature | None:
    """None where a type or shape is unknown, or is one that MLflow has no name for.

    The one input of a script goes without a name: MLflow's loader then takes a plain array.
    """
    specs = (*inputs, *outputs)
    if not inputs or not outputs or any(spec.dims is None or spec.datatype == "BF16" for spec in specs):
        return None
    given = [_tensor(spec, None if unnamed else spec.name) for spec in inputs]
    named = not unnamed or len(outputs) > 1
    return ModelSignature(
        Schema(given), Schema([_tensor(spec, spec.name if named else None) for spec in outputs])
    )


def _tensor(spec: TensorSpec, name: str | None) -> MlflowTensor:
    return MlflowTensor(np.dtype(DTYPES[spec.datatype]), spec.dims or (), name)


def _save_rows(model: Model, root: Path, example: Mapping[str, Array] | None, unnamed: bool) -> None:
    if example is None or sum(array.size for array in example.values()) > _MAX_EXAMPLE_VALUES:
        return
    plain = {
        name: array.astype(np.float32) if array.dtype == DTYPES["BF16"] else array
        for name, array in example.items()
    }
    _save_example(model, next(iter(plain.values())) if unnamed else plain, str(root))


def _save_requirements(layout: Layout, dependencies: Sequence[str]) -> None:
    """The packages that load it, in the versions it was tried with here, then those its maker names."""
    ours = [f"signalbox=={version('signalbox')}"] if layout.flavor in ("coreml", "pt2") else []
    packages = ["mlflow", "numpy", *_PACKAGES[layout.format]]
    wanted = [*(f"{package}=={version(package)}" for package in packages), *ours, *dependencies]
    lines = list(dict.fromkeys(wanted))
    (layout.root / _REQUIREMENTS).write_text("\n".join(lines) + "\n")
    with (layout.root / _CONDA).open("w") as file:
        yaml.safe_dump(_mlflow_conda_env(additional_pip_deps=lines), file, default_flow_style=False)
    _PythonEnv.current().to_yaml(str(layout.root / _PYTHON))
