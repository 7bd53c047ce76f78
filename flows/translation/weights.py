"""References from a MIL program to its weight files, checked before coremltools' native reader follows them.

The reader trusts offsets and sizes. A file begins with a header of 64 bytes; each weight has a record
of 64 bytes (sentinel, element type, size, offset of its data, padding bits), little-endian.
"""

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.translation.refusal import TranslationRefused

_RECORD = struct.Struct("<IIQQQ")
_RECORD_BYTES = 64
_SENTINEL = 0xDEADBEEF
_MAX_ELEMENTS = 2**31  # of one tensor, stored or computed
# Arguments that size an output which coremltools computes while it rebuilds a program of constants.
_SHAPES = {"fill": ("shape",), "tile": ("reps",)}
_SAVE_AGAIN = "save the model again as a whole .mlpackage folder, weights included"


@dataclass(frozen=True, slots=True)
class _Reference:
    """Where one operation's constant says its data lie."""

    variable: str
    file: str
    offset_bytes: int
    elements: int


def check_weights(program: Any, folder: Path | None) -> None:
    """Raise TranslationRefused if a weight's record or data are missing, or a tensor is declared huge."""
    sizes: dict[Path, int] = {}
    counts: dict[str, int] = {}  # products of the constant whole numbers, which may be shapes
    for operation in operations(program):
        for output in operation.outputs:
            _check_size(operation.type, output.name, _elements(output.type))
        counts |= _counts(operation)
        for argument in _SHAPES.get(operation.type, ()):
            for one in operation.inputs[argument].arguments:
                _check_size(operation.type, operation.outputs[0].name, counts.get(one.name, 1))
        for reference in _references(operation):
            _check_reference(reference, folder, sizes)


def operations(program: Any) -> Iterator[Any]:
    """Every operation of every function of a MIL program's message, nested blocks included."""
    for function in program.functions.values():
        for block in function.block_specializations.values():
            yield from _within(block)


def _within(block: Any) -> Iterator[Any]:
    for operation in block.operations:
        yield operation
        for nested in operation.blocks:
            yield from _within(nested)


def _check_size(operator: str, variable: str, elements: int) -> None:
    if elements > _MAX_ELEMENTS:
        raise TranslationRefused(
            f"operator '{operator}' declares {elements:,} elements for its output '{variable}', "
            f"more than the limit of {_MAX_ELEMENTS:,}",
            operator=operator,
            variable=variable,
        )


def _counts(operation: Any) -> dict[str, int]:
    """What a constant of whole numbers multiplies out to, by the name of its variable."""
    if operation.type != "const" or "val" not in operation.attributes:
        return {}
    values = operation.attributes["val"].immediateValue.tensor.ints.values
    return {operation.outputs[0].name: math.prod(abs(one) for one in values)} if values else {}


def _elements(kind: Any) -> int:
    """How many elements a tensor type has, its unknown dimensions and other types taken as 1."""
    if kind.WhichOneof("type") != "tensorType":
        return 1
    count = 1
    for dimension in kind.tensorType.dimensions:
        if dimension.WhichOneof("dimension") == "constant":
            count *= dimension.constant.size
    return count


def _references(operation: Any) -> Iterator[_Reference]:
    variable = operation.outputs[0].name if operation.outputs else operation.type
    values = [*operation.attributes.values()]
    for argument in operation.inputs.values():
        values += [one.value for one in argument.arguments if one.WhichOneof("binding") == "value"]
    for value in values:
        if value.WhichOneof("value") == "blobFileValue":
            blob = value.blobFileValue
            yield _Reference(variable, blob.fileName, blob.offset, _elements(value.type))


def _check_reference(reference: _Reference, folder: Path | None, sizes: dict[Path, int]) -> None:
    name = reference.file.split("/")[-1]
    path = folder / name if folder is not None else Path(name)
    if path not in sizes:
        if folder is None or not path.is_file():
            raise _damaged(reference, f"its weight file '{name}' is missing")
        if not path.resolve().is_relative_to(folder.resolve()):
            raise _damaged(reference, f"its weight file '{name}' is a link out of the model's folder")
        sizes[path] = path.stat().st_size
    start = reference.offset_bytes
    if start + _RECORD_BYTES > sizes[path]:
        raise _damaged(
            reference, f"offset {start} lies beyond the {sizes[path]} bytes of its weight file '{name}'"
        )
    with path.open("rb") as file:
        file.seek(start)
        sentinel, _, size_bytes, data_start, _ = _RECORD.unpack(file.read(_RECORD.size))
    if sentinel != _SENTINEL:
        raise _damaged(reference, f"there is no weight at offset {start} of '{name}'")
    if data_start + size_bytes > sizes[path]:
        raise _damaged(reference, f"its data reach beyond the end of its weight file '{name}'")
    # The smallest element takes one bit.
    if size_bytes * 8 < reference.elements:
        raise _damaged(reference, f"'{name}' holds {size_bytes} bytes for {reference.elements} elements")


def _damaged(reference: _Reference, what: str) -> TranslationRefused:
    return TranslationRefused(
        f"weight '{reference.variable}' cannot be read: {what}",
        variable=reference.variable,
        next_step=_SAVE_AGAIN,
    )
