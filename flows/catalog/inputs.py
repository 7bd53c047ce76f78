"""Inputs to record a version's golden set with: real ones where somebody gave some, else made by us.

Called in the examining process. What a model answers is judged elsewhere; here only whether it answers
at all, and finitely, since nothing else can be compared later.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import prod

import numpy as np

from serving.core.datatypes import DTYPES, FLOATS, Array, is_finite
from serving.core.errors import ArtifactRefused
from serving.core.model import TensorSpec
from serving.formats.golden import Golden
from serving.formats.loader import LoadedModel
from serving.formats.probe import in_datatypes, zeros

_ROWS = 8
_MADE_ROWS = 2
# Lengths to try on free inner axes: one that most models take, then what images and texts have.
_LENGTHS = (1, 8, 32, 224)
_MAX_BYTES = 64 << 20
_SEED = 20
_NO_MEMORY = re.compile(r"can't allocate memory|not enough memory|bad_alloc|[Ff]ailed to allocate memory")
_STEP = "correct the model, or the inputs that the side file names; it is looked at again when it changes"


class Origin(StrEnum):
    EVALUATION = "the first rows of the evaluation set"
    EXAMPLE = "the example of the side file"
    GENERATED = "generated inputs"
    ZEROS = "zeros"


@dataclass(frozen=True, slots=True)
class Recorded:
    """`golden` is None where nothing could be recorded; `said` is then the reason, in a sentence."""

    golden: Golden | None
    said: str


def record(model: LoadedModel, given: Mapping[Origin, Mapping[str, Array]]) -> Recorded:
    """Inputs and answers of the best inputs that the model answers.

    Raises `ArtifactRefused` where it does not answer, with numbers, what somebody gave it to answer.
    """
    reason = "the shape of an input is unknown, and neither side file nor evaluation set shows one"
    for origin, inputs in _choices(model.inputs, given):
        outputs = _answered(model, inputs)
        if not isinstance(outputs, str):
            rows = max((len(array) for array in inputs.values() if array.ndim), default=1)
            return Recorded(Golden(inputs, outputs), f"recorded with {origin} ({rows} rows)")
        reason = f"{outputs} on {origin}"
        if origin in given:
            raise ArtifactRefused(reason, next_step=_STEP)
    return Recorded(None, reason)


def _answered(model: LoadedModel, inputs: Mapping[str, Array]) -> dict[str, Array] | str:
    """The answer, or in words why it is none to compare with. Raises `MemoryError` where that was it."""
    try:
        outputs = model.predict(inputs)
    except Exception as error:  # a model is foreign code: whatever it raises only ends this attempt
        if is_want_of_memory(error):
            raise MemoryError from error
        return f"it raised {type(error).__name__} ({_last_line(error)})"
    spoilt = next((name for name, array in outputs.items() if not is_finite(array)), None)
    return outputs if spoilt is None else f"output '{spoilt}' is not finite"


def is_want_of_memory(error: BaseException | None) -> bool:
    """Whether a runtime failed because memory was refused; each says so in its own words."""
    return isinstance(error, MemoryError) or (error is not None and bool(_NO_MEMORY.search(str(error))))


def _last_line(error: Exception) -> str:
    """TorchScript tells its whole stack first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:200] if lines else "without a word"


def rows_of(inputs: Mapping[str, Array], specs: Sequence[TensorSpec]) -> dict[str, Array]:
    """The first rows, as many as the model takes at once, in the declared types."""
    wanted = {spec.name: spec for spec in specs if spec.name in inputs}
    fixed = next((spec.dims[0] for spec in wanted.values() if spec.dims and spec.dims[0] > 0), None)
    row_bytes = sum(array[:1].nbytes for array in inputs.values()) or 1
    rows = fixed or max(1, min(_ROWS, _MAX_BYTES // row_bytes))
    return in_datatypes(specs, {name: inputs[name][:rows] for name in wanted})


def _choices(
    specs: Sequence[TensorSpec], given: Mapping[Origin, Mapping[str, Array]]
) -> Iterator[tuple[Origin, dict[str, Array]]]:
    for origin in Origin:
        if origin in given:
            yield origin, rows_of(given[origin], specs)
    yield from ((Origin.GENERATED, made) for made in _made(specs))
    blank = zeros(specs)
    if blank is not None:
        yield Origin.ZEROS, blank


def _made(specs: Sequence[TensorSpec]) -> Iterator[dict[str, Array]]:
    """Numbers from 0 to 1, which images and most features are; whole numbers that any table has."""
    shapes = {spec.name: spec.dims for spec in specs}
    lengths = _LENGTHS if any(-1 in (dims or ())[1:] for dims in shapes.values()) else _LENGTHS[:1]
    for length in lengths if None not in shapes.values() else ():
        generator = np.random.default_rng(_SEED)
        filled = {name: _filled(dims or (), length) for name, dims in shapes.items()}
        if sum(map(prod, filled.values())) * 8 <= _MAX_BYTES:
            yield {spec.name: _array(spec.datatype, filled[spec.name], generator) for spec in specs}


def _filled(dims: tuple[int, ...], length: int) -> tuple[int, ...]:
    """The shape with its free axes fixed: two rows, and `length` on every other."""
    return tuple((length if axis else _MADE_ROWS) if dim < 0 else dim for axis, dim in enumerate(dims))


def _array(datatype: str, shape: tuple[int, ...], generator: np.random.Generator) -> Array:
    if datatype == "BYTES":
        return np.full(shape, "text", dtype=np.object_)
    drawn = generator.random(shape) if datatype in FLOATS else generator.integers(0, 2, shape)
    return np.asarray(drawn).astype(DTYPES[datatype])
