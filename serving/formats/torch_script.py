"""TorchScript on the CPU.

A script knows its inputs' names but not their shapes: those come from the MLflow signature, else
from the input example, else they stay unknown. Outputs are named OUTPUT__0, OUTPUT__1, ... in order.
"""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from serving.core.datatypes import Array, datatype_of
from serving.core.errors import ArtifactRefused
from serving.core.model import TensorSpec
from serving.formats.archive import check_archive
from serving.formats.artifact import Artifact
from serving.formats.limits import DEFAULT_LIMITS, FileLimits
from serving.formats.probe import named_example, zeros
from serving.formats.torch_archive import check_records
from serving.formats.torch_tensors import array_of, limit_threads, tensor_of, tensors_of

_EXPORT_AGAIN = "export the model again with torch.jit.save and log it again"


class TorchScriptModel:
    """A scripted module in evaluation mode."""

    platform = "pytorch_torchscript"

    def __init__(self, module: Any, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> None:
        self._module = module
        self.inputs = inputs
        self.outputs = outputs

    @property
    def module(self) -> Any:
        """The module itself, for who describes it; None once closed."""
        return self._module

    def predict(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        module = self._module
        if module is None:
            raise RuntimeError("the model is closed")
        with torch.inference_mode():
            answer = module(*(tensor_of(inputs[spec.name]) for spec in self.inputs))
            return {f"OUTPUT__{index}": array_of(item) for index, item in enumerate(tensors_of(answer))}

    def close(self) -> None:
        self._module = None


def load(artifact: Artifact, threads: int) -> TorchScriptModel:
    """Load the artifact. Raises ArtifactRefused for an archive that is damaged, unsafe or unsupported."""
    check_script(artifact.payload)
    limit_threads(threads)
    module = _module(artifact.payload)
    if not hasattr(module, "forward"):
        problem = f"'{artifact.payload.name}' has no single forward method (overloaded or missing)"
        raise ArtifactRefused(problem, next_step="script a module that wraps it in one forward")
    schema = module.forward.schema
    inputs = _input_specs(schema, artifact)
    outputs = _output_specs(schema, artifact.signature_outputs)
    if outputs is None:
        unknown = TorchScriptModel(module, inputs, ())
        outputs = _observed_outputs(unknown, artifact) or _unknown_outputs(schema)
    return TorchScriptModel(module, inputs, outputs)


def check_script(path: Path, limits: FileLimits = DEFAULT_LIMITS) -> None:
    """Raise ArtifactRefused unless the archive is sound and its code known to be harmless; loads nothing."""
    check_archive(path, limits, _EXPORT_AGAIN)
    check_records(_code_records(path), path.name)


def _code_records(path: Path) -> dict[str, bytes]:
    """Code and state by record name, read with the very reader that the loader uses."""
    try:
        reader = torch._C.PyTorchFileReader(str(path))
        names = [name for name in reader.get_all_records() if name.endswith((".py", ".pkl", ".json"))]
        return {name: reader.get_record(name) for name in names}
    except RuntimeError as error:
        raise _unloadable(path, error) from error


def _module(path: Path) -> Any:
    # Not catch_warnings: that swaps the process's filters, and models load in threads.
    warnings.filterwarnings("ignore", r"`torch\.jit\.load` is deprecated", DeprecationWarning)
    try:
        return torch.jit.load(str(path), map_location="cpu").eval()  # type: ignore[no-untyped-call]
    except Exception as error:  # the C++ loader surfaces as many unrelated classes
        raise _unloadable(path, error) from error


def _unloadable(path: Path, error: Exception) -> ArtifactRefused:
    reason = " ".join(str(error).split())[:300]
    return ArtifactRefused(f"PyTorch cannot load '{path.name}' ({reason})", next_step=_EXPORT_AGAIN)


def _input_specs(schema: Any, artifact: Artifact) -> tuple[TensorSpec, ...]:
    """One spec per required argument of `forward`; arguments with a default keep it."""
    names = []
    for argument in schema.arguments[1:]:
        if argument.has_default_value():
            continue
        if str(argument.type) not in ("Tensor", "Optional[Tensor]"):
            problem = f"forward takes '{argument.name}: {argument.type}', which no request can carry"
            raise ArtifactRefused(problem, next_step="wrap the model so that forward takes tensors only")
        names.append(argument.name)
    declared = _matched(names, artifact.signature_inputs)
    if declared is None and artifact.example is not None:
        declared = _matched(names, [_spec_of(*item) for item in artifact.example.items()])
    return declared or tuple(TensorSpec(name, "FP32", None) for name in names)


def _matched(names: Sequence[str], specs: Sequence[TensorSpec] | None) -> tuple[TensorSpec, ...] | None:
    """The specs under `names`: by name where all are there, else in order where the number agrees."""
    if specs is None or len(specs) != len(names):
        return None
    by_name = {spec.name: spec for spec in specs}
    ordered = [by_name[name] for name in names] if set(by_name) == set(names) else specs
    pairs = zip(names, ordered, strict=True)
    return tuple(TensorSpec(name, spec.datatype, spec.dims) for name, spec in pairs)


def _spec_of(name: str, array: Array) -> TensorSpec:
    """What an example says: its type, and its shape with the first axis free."""
    datatype = datatype_of(array.dtype) or "FP32"
    # JSON knows one kind of number with a point; a model's weights are nearly always single precision.
    datatype = "FP32" if datatype == "FP64" else datatype
    return TensorSpec(name, datatype, (-1, *array.shape[1:]) if array.ndim else ())


def _output_names(count: int) -> list[str]:
    return [f"OUTPUT__{index}" for index in range(count)]


def _output_specs(schema: Any, declared: tuple[TensorSpec, ...] | None) -> tuple[TensorSpec, ...] | None:
    if declared is None:
        return None
    count = _declared_count(schema)
    return _matched(_output_names(len(declared) if count is None else count), declared)


def _declared_count(schema: Any) -> int | None:
    """How many tensors `forward` returns; None for a list or dict, whose length only an answer shows."""
    kind = schema.returns[0].type
    if kind.kind() == "TupleType":
        nested = [element.kind() for element in kind.elements()]
        return len(nested) if all(element == "TensorType" for element in nested) else None
    return 1 if kind.kind() == "TensorType" else None


def _observed_outputs(model: TorchScriptModel, artifact: Artifact) -> tuple[TensorSpec, ...] | None:
    """Specs of one real answer, every axis free; None where no input can be made or the model raises."""
    example = named_example(model.inputs, artifact.example)
    inputs = example if example is not None else zeros(model.inputs)
    if inputs is None:
        return None
    try:
        answer = model.predict(inputs)
    except Exception:  # the self-test runs the same input and reports what it raises
        return None
    return tuple(_observed(name, array) for name, array in answer.items())


def _observed(name: str, array: Array) -> TensorSpec:
    return TensorSpec(name, datatype_of(array.dtype) or "FP32", (-1,) * array.ndim)


def _unknown_outputs(schema: Any) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(name, "FP32", None) for name in _output_names(_declared_count(schema) or 0))
