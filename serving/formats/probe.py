"""Inputs to try a model with: its golden set, else its input example, else zeros.

Called by the self-test, by the TorchScript adapter and by whoever warms a model up.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from serving.core.datatypes import DTYPES, Array
from serving.core.model import TensorSpec
from serving.formats.artifact import Artifact
from serving.formats.loader import LoadedModel

_MAX_ZEROS = 1 << 27


class Basis(StrEnum):
    GOLDEN = "golden"
    EXAMPLE = "example"
    ZEROS = "zeros"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Probe:
    basis: Basis
    inputs: Mapping[str, Array]


def probe_inputs(model: LoadedModel, artifact: Artifact) -> Probe | None:
    """The best inputs there are; None where some input's shape is unknown and nothing was recorded."""
    if artifact.golden is not None:
        return Probe(Basis.GOLDEN, in_datatypes(model.inputs, artifact.golden.inputs))
    example = named_example(model.inputs, artifact.example)
    if example is not None:
        return Probe(Basis.EXAMPLE, example)
    blank = zeros(model.inputs)
    return None if blank is None else Probe(Basis.ZEROS, blank)


def named_example(
    specs: Sequence[TensorSpec], example: Mapping[str, Array] | None
) -> dict[str, Array] | None:
    """The example under the model's input names and types; None where it does not fit them."""
    if example is None:
        return None
    if len(specs) == 1 and len(example) == 1:
        example = {specs[0].name: next(iter(example.values()))}
    if set(example) != {spec.name for spec in specs}:
        return None
    arrays = in_datatypes(specs, example)
    return arrays if all(spec.accepts_shape(arrays[spec.name].shape) for spec in specs) else None


def in_datatypes(specs: Sequence[TensorSpec], arrays: Mapping[str, Array]) -> dict[str, Array]:
    """The arrays in the declared types, which files without BF16 or FP32 do not preserve."""
    wanted = {spec.name: DTYPES[spec.datatype] for spec in specs}
    return {name: array.astype(wanted.get(name, array.dtype), copy=False) for name, array in arrays.items()}


def zeros(specs: Sequence[TensorSpec]) -> dict[str, Array] | None:
    """Zeros (empty text for BYTES), one long on every variable axis; None for unknown or absurd shapes."""
    arrays = {}
    for spec in specs:
        if spec.dims is None:
            return None
        shape = tuple(1 if length < 0 else length for length in spec.dims)
        if math.prod(shape) > _MAX_ZEROS:
            return None
        fill = "" if spec.datatype == "BYTES" else 0
        arrays[spec.name] = np.full(shape, fill, dtype=DTYPES[spec.datatype])
    return arrays
