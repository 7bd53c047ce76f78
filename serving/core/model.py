"""What a model version is called and what its tensors look like.

Every package names versions, aliases, tags and tensors through this module, so a
registry convention is written down once.
"""

from dataclasses import dataclass
from enum import StrEnum


class Format(StrEnum):
    """File formats a version can be stored in; the value of tag `signalbox.format`."""

    TORCHSCRIPT = "torchscript"
    ONNX = "onnx"
    COREML = "coreml"
    PT2 = "pt2"


class Alias(StrEnum):
    """Registry aliases with a meaning of their own; any other alias only makes a version addressable."""

    CHAMPION = "champion"
    CHALLENGER = "challenger"
    SHADOW = "shadow"
    PREVIOUS = "previous"


class Variant(StrEnum):
    """By which route a request was answered; sent as `X-Model-Variant`, but for probes and copies."""

    CHAMPION = "champion"
    CHALLENGER = "challenger"
    FALLBACK = "fallback"
    DIRECT = "direct"
    PROBE = "probe"
    SHADOW = "shadow"


class Tag(StrEnum):
    """Registry tags this project reads or writes."""

    MODEL_TYPE = "signalbox.model_type"
    CRITICAL = "signalbox.critical"
    OWNER = "signalbox.owner"
    TEAM = "signalbox.team"
    EVALUATION_SET = "signalbox.evaluation_set"
    SLICES = "signalbox.slices"
    TRAFFIC = "signalbox.traffic"
    FORMAT = "signalbox.format"
    SOURCE_DIGEST = "signalbox.source_digest"
    DIGEST = "signalbox.digest"
    # Versions with the same value claim to be the same network in different formats.
    SIBLING = "signalbox.sibling"
    VALIDATION = "signalbox.validation"
    VALIDATION_SUMMARY = "signalbox.validation_summary"
    MEMORY_MB = "signalbox.memory_mb"
    LATENCY_P50_MS = "signalbox.latency_p50_ms"
    HEALTH = "signalbox.health"
    ARCHITECTURE = "signalbox.architecture"
    TRAINING_DATASET = "signalbox.training_dataset"
    AUTHOR = "signalbox.author"
    LICENCE = "signalbox.licence"
    LABELS = "signalbox.labels"
    PARAMETERS = "signalbox.parameters"
    PRODUCER = "signalbox.producer"
    REQUIRES = "signalbox.requires"
    SIZE_BYTES = "signalbox.size_bytes"
    TRAFFIC_PERCENT = "signalbox.traffic_percent"
    ROLLOUT = "signalbox.rollout"
    STAGE = "signalbox.stage"
    VERDICT = "signalbox.verdict"


@dataclass(frozen=True, slots=True, order=True)
class VersionRef:
    """A registered model version. `version` is the registry's number as text."""

    model: str
    version: str

    def __str__(self) -> str:
        return f"{self.model}/{self.version}"


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, datatype and shape of one tensor a model takes or gives.

    `datatype` is the Open Inference Protocol name (`FP32`, `BYTES`, ...). `dims` holds one
    entry per axis, -1 where the length varies; `None` means that not even the rank is known.
    """

    name: str
    datatype: str
    dims: tuple[int, ...] | None

    @property
    def wire_shape(self) -> list[int]:
        """Shape for the metadata endpoint; an unknown rank is shown as one variable axis."""
        return [-1] if self.dims is None else list(self.dims)

    def accepts_shape(self, shape: tuple[int, ...]) -> bool:
        """Whether `shape` fits: equal rank, and equal length on every fixed axis."""
        if self.dims is None:
            return True
        if len(shape) != len(self.dims):
            return False
        # A loop, for every request comes by and a generator takes longer to begin than to end.
        for want, got in zip(self.dims, shape, strict=True):  # noqa: SIM110
            if want not in (-1, got):
                return False
        return True
