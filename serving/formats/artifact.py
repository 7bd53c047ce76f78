"""What a downloaded model folder holds, told from its content and without loading it.

Called before every load. Whatever cannot be served is refused here by name, with the way out;
no pickle is ever opened.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from serving.core.datatypes import Array
from serving.core.digest import file_sha256, tree_digest
from serving.core.errors import ArtifactRefused
from serving.core.model import Format, TensorSpec
from serving.formats import content, mlmodel
from serving.formats.golden import GOLDEN_FILE, Golden, read_golden
from serving.formats.model_file import TO_ONNX, format_of, title_of

LABELS_FILE = "labels.txt"
TRANSLATION_FILE = "translation.onnx"
# Formats a flavour can mean, in the order in which flavours are looked for.
_MEANT = {
    "onnx": (Format.ONNX,),
    "coreml": (Format.COREML,),
    "pt2": (Format.PT2,),
    "pytorch": (Format.TORCHSCRIPT, Format.PT2),
}
_NOT_PAYLOAD = frozenset(
    {
        mlmodel.FILE_NAME,
        "conda.yaml",
        "python_env.yaml",
        "requirements.txt",
        "input_example.json",
        "serving_input_example.json",
        "serving_input_payload.json",
        "registered_model_meta",
        GOLDEN_FILE,
        LABELS_FILE,
    }
)
_EXPORTERS = {
    "sklearn": "export it with skl2onnx.to_onnx(model, X[:1]) and log that with mlflow.onnx",
    "xgboost": "export it with onnxmltools.convert_xgboost and log that with mlflow.onnx",
    "lightgbm": "export it with onnxmltools.convert_lightgbm and log that with mlflow.onnx",
    "catboost": "export it with model.save_model(path, format='onnx') and log that with mlflow.onnx",
    "tensorflow": "export it with tf2onnx and log that with mlflow.onnx",
    "keras": "export it with model.export(path, format='onnx') and log that with mlflow.onnx",
    "transformers": "export it with optimum-cli export onnx and log that with mlflow.onnx",
}


@dataclass(frozen=True, slots=True)
class Artifact:
    """A model folder that can be loaded.

    Unnamed tensors of an MLflow signature or example go by the name ''. `translation` is the ONNX
    file that stands in for a Core ML model where Apple's runtime is not. `notes` says what could
    not be used, in sentences for a report.
    """

    root: Path
    format: Format
    payload: Path
    translation: Path | None = None
    signature_inputs: tuple[TensorSpec, ...] | None = None
    signature_outputs: tuple[TensorSpec, ...] | None = None
    example: Mapping[str, Array] | None = None
    golden: Golden | None = None
    flavors: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def inspect_artifact(root: Path) -> Artifact:
    """What the folder holds. Raises ArtifactRefused for everything that cannot be served."""
    if not root.is_dir() or not payload_files(root):
        step = "check the version's source in the registry, and log the model again if it is gone"
        raise ArtifactRefused(f"'{root.name}' holds no model files", next_step=step)
    logged = mlmodel.read_logged_model(root)
    if logged is None:
        payload = _only_model_file(root)
        logged = mlmodel.LoggedModel()
    else:
        payload = _flavored_payload(root, logged.flavors)
    return Artifact(
        root=root,
        format=_format(payload, logged.flavors),
        payload=payload,
        translation=_translation(root, logged.flavors),
        signature_inputs=logged.inputs,
        signature_outputs=logged.outputs,
        example=logged.example,
        golden=read_golden(root),
        flavors=tuple(logged.flavors),
        metadata=logged.metadata,
        notes=logged.notes,
    )


def payload_files(root: Path) -> list[Path]:
    """Every file that is model data, sorted: all but MLflow's descriptions, examples and the golden set."""
    return sorted(path for path in root.rglob("*") if path.is_file() and not _is_description(path, root))


def payload_digest(root: Path) -> str:
    """The value of tag `signalbox.digest` for this folder."""
    return tree_digest({path.relative_to(root).as_posix(): file_sha256(path) for path in payload_files(root)})


def _is_description(path: Path, root: Path) -> bool:
    parts = path.relative_to(root).parts
    return "__pycache__" in parts or (len(parts) == 1 and parts[0] in _NOT_PAYLOAD)


def _flavored_payload(root: Path, flavors: Mapping[str, Mapping[str, Any]]) -> Path:
    if "onnx" in flavors:
        return _file(_inside(root, flavors["onnx"].get("data", "model.onnx")))
    if "coreml" in flavors:
        return _inside(root, flavors["coreml"].get("data", "model.mlpackage"))
    if "pt2" in flavors:
        return _file(_inside(root, flavors["pt2"].get("data", "model.pt2")))
    if "pytorch" in flavors:
        return _pytorch_file(_inside(root, flavors["pytorch"].get("model_data", "data")))
    named = [name for name in flavors if name != "python_function"]
    if named:
        problem = f"it is a {named[0]} model, which loads by running code stored in the artifact"
        raise ArtifactRefused(problem, next_step=_EXPORTERS.get(named[0], TO_ONNX))
    problem = "it is a generic python_function model, which loads by running code stored in the artifact"
    raise ArtifactRefused(problem, next_step=TO_ONNX)


def _translation(root: Path, flavors: Mapping[str, Mapping[str, Any]]) -> Path | None:
    named = flavors.get("coreml", {}).get("translation")
    if named is not None:
        return _file(_inside(root, named))
    path = root / TRANSLATION_FILE
    return path if path.is_file() else None


def _format(payload: Path, flavors: Mapping[str, Mapping[str, Any]]) -> Format:
    """The content's format, which must be one that the flavour can mean."""
    found = format_of(payload)
    flavor = next((name for name in _MEANT if name in flavors), None)
    if flavor is not None and found not in _MEANT[flavor]:
        problem = f"'{payload.name}' is {title_of(found)}, but {mlmodel.FILE_NAME} describes it as {flavor}"
        raise ArtifactRefused(problem, next_step="log the model again: a file was exchanged since")
    return found


def _pytorch_file(folder: Path) -> Path:
    names = ("model.pt2", "model.pth", "")
    return _file(next(folder / name for name in names if not name or (folder / name).is_file()))


def _file(path: Path) -> Path:
    if not path.is_file():
        step = "log the model again: the upload may have been cut short"
        raise ArtifactRefused(f"there is no model file in '{path.name}/'", next_step=step)
    return path


def _inside(root: Path, relative: object) -> Path:
    """The path the `MLmodel` file names, which must not lead out of the folder, links followed."""
    path = root / str(relative)
    if not path.resolve().is_relative_to(root.resolve()):
        problem = f"{mlmodel.FILE_NAME} names a file outside the model's folder: '{relative}'"
        raise ArtifactRefused(problem, next_step="log the model again with MLflow")
    if not path.exists():
        step = "log the model again: the upload may have been cut short"
        problem = f"the file '{relative}' named in {mlmodel.FILE_NAME} is missing"
        raise ArtifactRefused(problem, next_step=step)
    return path


def _only_model_file(root: Path) -> Path:
    """The one file of a folder without `MLmodel` that is a model, whatever kind."""
    packages = [path for path in sorted(root.rglob("*")) if path.is_dir() and content.looks_like_model(path)]
    files = [path for path in payload_files(root) if not any(path.is_relative_to(p) for p in packages)]
    candidates = packages + [path for path in files if content.looks_like_model(path)]
    translation = _translation(root, {})
    if len(candidates) == 2 and translation in candidates:
        candidates.remove(translation)
    if len(candidates) == 1:
        return candidates[0]
    names = ", ".join(sorted(path.name for path in candidates)) or "none"
    problem = f"expected one model (.onnx, .pt, .pth, .ts, .pt2, .mlmodel, .mlpackage) but found {names}"
    raise ArtifactRefused(problem, next_step="log the model with MLflow, or keep one model per folder")
