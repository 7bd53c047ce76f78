"""A version under examination: loaded with the very loader that serves, and asked like a caller would.

Used only in the measuring process; what a model raises becomes a value here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import psutil

from flows.catalog.contract import off_contract
from flows.catalog.facts import Answer, Loaded, Side
from serving.core.datatypes import Array, is_finite
from serving.core.errors import ArtifactRefused
from serving.core.model import TensorSpec
from serving.formats.artifact import Artifact, inspect_artifact, payload_digest
from serving.formats.loader import LoadedModel, import_adapter
from serving.formats.selftest import output_problem


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer: what is wrong with it, and the outputs unless the model raised."""

    answer: Answer
    outputs: Mapping[str, Array] | None


@dataclass(frozen=True, slots=True)
class Subject:
    side: Side
    loaded: Loaded
    artifact: Artifact
    model: LoadedModel

    @property
    def is_batched(self) -> bool:
        """Whether the first axis of every input is free, so that rows can be joined and parted."""
        return all(spec.dims and spec.dims[0] == -1 for spec in self.model.inputs)

    @property
    def fixed_rows(self) -> int | None:
        """How many rows it takes at once, None for any number."""
        return next((spec.dims[0] for spec in self.model.inputs if spec.dims and spec.dims[0] > 0), None)

    def chosen(self, outputs: Mapping[str, Array], contract: Sequence[TensorSpec] = ()) -> Array:
        """The output that is scored: the first one promised, else the first there is."""
        named = (spec.name for spec in (*contract, *self.model.outputs))
        name = next((name for name in named if name in outputs), next(iter(outputs)))
        return outputs[name]

    def own(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Those of the inputs that this version takes."""
        return {spec.name: inputs[spec.name] for spec in self.model.inputs if spec.name in inputs}

    def ask(self, inputs: Mapping[str, Array], contract: Sequence[TensorSpec] = ()) -> Reply:
        """Answer `inputs`; `contract` are outputs that somebody else promised in this model's place."""
        try:
            outputs = self.model.predict(self.own(inputs))
        except Exception as error:  # a model is foreign code: whatever it raises is a finding
            return Reply(Answer(error=told(error)), None)
        found = Answer(
            out_of_spec=output_problem(self.model.outputs, outputs),
            off_contract=off_contract(contract, outputs) if contract else None,
            non_finite=tuple(name for name, array in outputs.items() if not is_finite(array)),
        )
        return Reply(found, outputs)


def bring_in(side: Side, root: Path, version: str, threads: int, digest: str | None) -> Subject | Loaded:
    """Load a version from its folder, or say in `Loaded.problem` why that cannot be.

    `digest` is what the registry recorded for the payload, where it did.
    """
    try:
        artifact = inspect_artifact(root)
        measured = payload_digest(root)
        if digest is not None and digest != measured:
            problem = f"its files have digest {measured[:12]}, the registry recorded {digest[:12]}"
            raise ArtifactRefused(problem, next_step="register the changed files as a new version")
        # What the library itself takes is not the version's cost.
        runtime = import_adapter(artifact.format)
        before_bytes, started = resident_bytes(), perf_counter()
        model = runtime.load(artifact, threads)
    except ArtifactRefused as error:
        return Loaded(version, problem=str(error))
    loaded = Loaded(
        version,
        format=artifact.format,
        digest=measured,
        inputs=model.inputs,
        outputs=model.outputs,
        seconds=perf_counter() - started,
        grown_bytes=max(0, resident_bytes() - before_bytes),
        has_golden=artifact.golden is not None,
    )
    return Subject(side, loaded, artifact, model)


def told(error: Exception) -> str:
    """An exception on one line of bounded length."""
    return f"raised {type(error).__name__}: {' '.join(str(error).split())[:300]}"


def resident_bytes() -> int:
    size_bytes: int = psutil.Process().memory_info().rss
    return size_bytes
