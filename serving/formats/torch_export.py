"""torch.export programs (`.pt2`) on the CPU.

Names, datatypes and shapes come from the program itself; an axis that was exported as dynamic is -1.
Outputs are named OUTPUT__0, OUTPUT__1, ... in order.
"""

import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch._export.serde import schema
from torch._export.serde.serialize import ExportedProgramDeserializer, _dict_to_dataclass
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind, OutputKind, TensorArgument
from torch.utils import _pytree as pytree

from serving.core.datatypes import Array
from serving.core.errors import ArtifactRefused
from serving.core.model import TensorSpec
from serving.formats.artifact import Artifact
from serving.formats.limits import DEFAULT_LIMITS, FileLimits
from serving.formats.pt2_archive import EXPORT_AGAIN, Export, read_export
from serving.formats.torch_tensors import array_of, datatype_of_tensor, limit_threads, tensor_of

# torch's deserialiser keeps itself in a module variable and refuses a second one at the same time.
_one_at_a_time = threading.Lock()


class TorchExportModel:
    """A rebuilt program. `flat` holds the constants among its arguments and None where a tensor goes."""

    platform = "pytorch_pt2"

    def __init__(
        self,
        module: Any,
        structure: pytree.TreeSpec,
        flat: tuple[Any, ...],
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
    ) -> None:
        self._module = module
        self._structure = structure
        self._flat = flat
        self.inputs = inputs
        self.outputs = outputs

    def predict(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        module = self._module
        if module is None:
            raise RuntimeError("the model is closed")
        flat = [None if isinstance(item, TensorSpec) else item for item in self._flat]
        for index, spec in enumerate(self._flat):
            if isinstance(spec, TensorSpec):
                flat[index] = tensor_of(inputs[spec.name])
        args, kwargs = pytree.tree_unflatten(flat, self._structure)
        with torch.inference_mode():
            answer = pytree.tree_leaves(module(*args, **kwargs))
            tensors = [item for item in answer if isinstance(item, torch.Tensor)]
            return {f"OUTPUT__{index}": array_of(tensor) for index, tensor in enumerate(tensors)}

    def close(self) -> None:
        self._module = None


def load(artifact: Artifact, threads: int) -> TorchExportModel:
    """Load the artifact. Raises ArtifactRefused for an archive that is damaged, unsafe or unsupported."""
    export = read_export(artifact.payload)
    limit_threads(threads)
    name = artifact.payload.name
    exported = _exported(export, name)
    values = {node.name: node.meta.get("val") for node in exported.graph.nodes}
    flat = tuple(_arguments(exported, values, name))
    inputs = tuple(item for item in flat if isinstance(item, TensorSpec))
    outputs = tuple(_results(exported, values, name))
    structure = exported.call_spec.in_spec
    if structure is None or structure.num_leaves != len(flat):
        raise ArtifactRefused(f"the inputs of '{name}' do not fit its call", next_step=EXPORT_AGAIN)
    return TorchExportModel(_module(exported, name), structure, flat, inputs, outputs)


def check_export(path: Path, limits: FileLimits = DEFAULT_LIMITS) -> None:
    """Raise ArtifactRefused unless the archive is sound and its program known to be harmless."""
    read_export(path, limits)


def _exported(export: Export, name: str) -> ExportedProgram:
    """The program that torch builds from checked data; nothing is read from the file any more."""
    try:
        with _one_at_a_time:
            program = _dict_to_dataclass(schema.ExportedProgram, dict(export.program))  # type: ignore[no-untyped-call]
            # Without sample inputs torch makes no guards out of source text; ranges are checked all the same.
            return ExportedProgramDeserializer().deserialize(
                program, dict(export.weights), dict(export.constants), None
            )
    except Exception as error:  # the deserialiser meets damage with whatever it stumbles over
        raise _unloadable(name, error) from error


def _module(exported: ExportedProgram, name: str) -> Any:
    try:
        return exported.module(check_guards=False)
    except Exception as error:  # as above: it writes and compiles Python source
        raise _unloadable(name, error) from error


def _arguments(exported: ExportedProgram, values: Mapping[str, Any], name: str) -> Iterator[Any]:
    """What the program is called with, in order: the spec of a tensor, or a constant it was exported with."""
    for spec in exported.graph_signature.input_specs:
        if spec.kind is not InputKind.USER_INPUT:
            continue
        if isinstance(spec.arg, TensorArgument):
            yield _spec(spec.arg.name, values.get(spec.arg.name), f"input '{spec.arg.name}' of '{name}'")
        elif isinstance(spec.arg, ConstantArgument):
            yield spec.arg.value
        else:
            problem = f"input '{spec.arg.name}' of '{name}' is a number, which no request can carry"
            raise ArtifactRefused(problem, next_step="wrap the model so that forward takes tensors only")


def _results(exported: ExportedProgram, values: Mapping[str, Any], name: str) -> Iterator[TensorSpec]:
    index = 0
    for spec in exported.graph_signature.output_specs:
        if spec.kind is not OutputKind.USER_OUTPUT:
            continue
        if isinstance(spec.arg, TensorArgument):
            output = f"OUTPUT__{index}"
            yield _spec(output, values.get(spec.arg.name), f"output '{output}' of '{name}'")
            index += 1
        elif not (isinstance(spec.arg, ConstantArgument) and spec.arg.value is None):
            problem = f"'{name}' returns a number among its outputs, which no answer can carry"
            raise ArtifactRefused(problem, next_step="wrap the model so that forward returns tensors only")


def _spec(name: str, value: Any, what: str) -> TensorSpec:
    datatype = datatype_of_tensor(value.dtype) if isinstance(value, torch.Tensor) else None
    if datatype is None:
        kind = getattr(value, "dtype", "unknown")
        step = "convert it to float32 inside forward, and export the model again"
        raise ArtifactRefused(f"{what} has element type {kind}, which cannot be served", next_step=step)
    return TensorSpec(name, datatype, tuple(n if isinstance(n, int) else -1 for n in value.shape))


def _unloadable(name: str, error: Exception) -> ArtifactRefused:
    reason = " ".join(str(error).split())[:300]
    return ArtifactRefused(
        f"PyTorch cannot rebuild the program in '{name}' ({reason})", next_step=EXPORT_AGAIN
    )
