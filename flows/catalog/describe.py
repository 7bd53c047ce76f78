"""Describing a loaded version: what its file says, what MLflow's folder says, and one line that sums it up.

As safe as loading: it reads what the loader has checked and runs nothing. What cannot be read is a
note in the description, never an error, so that prose refuses no version. Also a process of its own:
`python -m flows.catalog.describe <model folder> <description.json>`.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from flows.catalog.description import Description, Tensor
from serving.core.errors import ArtifactRefused
from serving.core.model import TensorSpec
from serving.formats.artifact import Artifact, inspect_artifact, payload_files
from serving.formats.loader import LoadedModel, load
from serving.formats.outline import Outline, Shape, outline
from serving.formats.told import Told

REFUSED, NEXT_STEP = "refused", "next_step"
_KINDS_NAMED = 6
_REQUIREMENTS = "requirements.txt"
_MAX_REQUIREMENTS_BYTES = 1 << 16


def describe(artifact: Artifact, model: LoadedModel) -> Description:
    """The description of a version that its adapter has loaded."""
    found = outline(artifact, model)
    dependencies, notes = _dependencies(artifact)
    return Description(
        format=str(artifact.format),
        file_name=artifact.payload.name,
        size_bytes=_size_bytes(artifact),
        architecture=architecture(found),
        inputs=_tensors(model.inputs, found.shapes),
        outputs=_tensors(model.outputs, found.shapes),
        operators=found.operators,
        parameter_count=found.parameter_count,
        layer_count=found.layer_count,
        layers=found.layers,
        opsets=found.opsets,
        versions=found.versions,
        producer=found.producer,
        producer_version=found.producer_version,
        runtimes=found.runtimes,
        told=found.told.or_else(Told(dependencies=dependencies)),
        notes=(*artifact.notes, *found.notes, *notes),
    )


def architecture(found: Outline) -> str:
    """`12 layers: Conv 4, Relu 4, Gemm 2, 2 others; 34,826 parameters`."""
    if not found.layer_count:
        return "unknown"
    kinds = sorted(found.operators.items(), key=lambda item: (-item[1], item[0]))
    named = [f"{kind} {count}" for kind, count in kinds[:_KINDS_NAMED]]
    rest = sum(count for _, count in kinds[_KINDS_NAMED:])
    named += [f"{rest} others"] if rest else []
    noun = "layer" if found.layer_count == 1 else "layers"
    parameters = "" if found.parameter_count is None else f"; {found.parameter_count:,} parameters"
    return f"{found.layer_count} {noun}: {', '.join(named)}{parameters}"


def _size_bytes(artifact: Artifact) -> int:
    """Of the model with its external weights; a translation made for another platform is not the model."""
    files = [path for path in payload_files(artifact.root) if path != artifact.translation]
    return sum(path.stat().st_size for path in files)


def _tensors(specs: Sequence[TensorSpec], shapes: Mapping[str, Shape]) -> tuple[Tensor, ...]:
    return tuple(Tensor(spec.name, spec.datatype, _shape(spec, shapes.get(spec.name))) for spec in specs)


def _shape(spec: TensorSpec, named: Shape | None) -> Shape | None:
    """The served shape, its free axes by the names that the file gives them."""
    if spec.dims is None or named is None or len(named) != len(spec.dims):
        return spec.dims
    pairs = zip(spec.dims, named, strict=True)
    return tuple(name if length == -1 and isinstance(name, str) else length for length, name in pairs)


def _dependencies(artifact: Artifact) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The requirements that MLflow logged beside the model, and a note where they cannot be read."""
    path = artifact.root / _REQUIREMENTS
    if not path.is_file():
        return (), ()
    if path.is_symlink() or path.stat().st_size > _MAX_REQUIREMENTS_BYTES:
        return (), (f"{_REQUIREMENTS} is a link or too large, and was not read",)
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return tuple(line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")), ()


def main() -> None:
    root, answer = map(Path, sys.argv[1:3])
    try:
        artifact = inspect_artifact(root)
        found = describe(artifact, load(artifact, threads=1)).as_json()
    except ArtifactRefused as refused:
        found = {REFUSED: refused.problem, NEXT_STEP: refused.next_step}
    answer.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
