"""What a model file says of itself: operators, weights, versions, and what its author wrote into it.

Called by the flows that describe a version, after it was loaded by the loader that checks it. The
modules `outline_<format>` read one format each and are imported when a file of it is described.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Protocol, TypeAlias, cast

from serving.core.model import Format
from serving.formats.artifact import Artifact
from serving.formats.loader import LoadedModel
from serving.formats.told import Told

MAX_LAYERS = 200

Shape: TypeAlias = tuple[int | str, ...]
"""One entry per axis: its length, the name of a free axis that has one, or -1."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One operator that computes something. `parameter_count` is that of the weights it reads itself."""

    name: str
    kind: str
    parameter_count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """The inside of one file. `layers` holds the first of `layer_count`, in order of computing.

    `parameter_count` counts elements of stored weights; index tables and constants of the graph's
    own arithmetic are no weights. `shapes` are those of inputs and outputs that name their free axes.
    `versions` are those of the file's own notation (`ir`, `opset ai.onnx`, `archive`, `specification`),
    `runtimes` the oldest release that can run it, as a requirement (`>=1.13`) by the name of a package,
    in lower case, or of an operating system.
    """

    operators: Mapping[str, int] = field(default_factory=dict)
    layer_count: int = 0
    layers: tuple[Layer, ...] = ()
    parameter_count: int | None = None
    shapes: Mapping[str, Shape] = field(default_factory=dict)
    opsets: Mapping[str, int] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    producer: str | None = None
    producer_version: str | None = None
    runtimes: Mapping[str, str] = field(default_factory=dict)
    told: Told = field(default_factory=Told)
    notes: tuple[str, ...] = ()


class Outliner(Protocol):
    """What a module `outline_<format>` offers."""

    def outline(self, artifact: Artifact, model: LoadedModel) -> Outline:
        """May raise anything on a file that is strange; runs nothing that the file holds."""
        ...


_OUTLINERS = {
    Format.ONNX: "serving.formats.outline_onnx",
    Format.TORCHSCRIPT: "serving.formats.outline_torch_script",
    Format.PT2: "serving.formats.outline_torch_export",
    Format.COREML: "serving.formats.outline_core_ml",
}


def outline(artifact: Artifact, model: LoadedModel) -> Outline:
    """The file's outline; what cannot be read is a note, because no version is refused for its prose."""
    try:
        return cast(Outliner, import_module(_OUTLINERS[artifact.format])).outline(artifact, model)
    except Exception as error:  # parsers of foreign files surface as many unrelated classes
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        return Outline(notes=(f"the inside of '{artifact.payload.name}' could not be read ({reason})",))
