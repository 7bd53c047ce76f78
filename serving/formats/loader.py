"""The port every format's adapter fills, and the table that finds the adapter.

Called by the pool, the flows and the self-test. An adapter's library is imported when the first
model of its format is loaded, never earlier. Every failed load is an ArtifactRefused.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import Protocol, cast, runtime_checkable

from serving.core.datatypes import Array
from serving.core.errors import ArtifactRefused
from serving.core.model import Format, TensorSpec
from serving.formats.artifact import Artifact


class LoadedModel(Protocol):
    """A model in memory. `predict` may be called from several threads at once, never after `close`.

    `predict` takes arrays that fit `inputs`, changes none of them, and raises whatever the
    model raises. `outputs` is empty where only an answer can tell what they are.
    """

    @property
    def inputs(self) -> tuple[TensorSpec, ...]: ...

    @property
    def outputs(self) -> tuple[TensorSpec, ...]: ...

    @property
    def platform(self) -> str:
        """The Open Inference Protocol's platform name, `<project>_<format>`."""
        ...

    def predict(self, inputs: Mapping[str, Array]) -> dict[str, Array]: ...

    def close(self) -> None:
        """Let go of the model's memory; may take a while, so not on a request's path."""
        ...


@runtime_checkable
class Interruptible(Protocol):
    """A model whose computation another thread can break off; asked so by one thread at a time."""

    def predict_interruptibly(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """As `predict`, but raises `Interrupted` soon after `interrupt` was called meanwhile."""
        ...

    def interrupt(self) -> None: ...


class Interrupted(Exception):
    """The computation was broken off."""


class Adapter(Protocol):
    """What an adapter module offers."""

    def load(self, artifact: Artifact, threads: int) -> LoadedModel: ...


_ADAPTERS = {
    Format.ONNX: "serving.formats.onnx_runtime",
    Format.TORCHSCRIPT: "serving.formats.torch_script",
    Format.PT2: "serving.formats.torch_export",
    Format.COREML: "serving.formats.core_ml",
}


def load(artifact: Artifact, threads: int) -> LoadedModel:
    """Load with at most `threads` threads per inference. Raises ArtifactRefused."""
    return import_adapter(artifact.format).load(artifact, threads)


def import_adapter(wanted: Format) -> Adapter:
    """The adapter with its library, imported on first use. Raises ArtifactRefused where that is missing."""
    try:
        return cast(Adapter, import_module(_ADAPTERS[wanted]))
    except ImportError as error:
        step = "install the project with its own dependencies"
        problem = f"the library for {wanted} models is missing ({error.name})"
        raise ArtifactRefused(problem, next_step=step) from error
