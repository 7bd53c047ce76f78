"""Odd inputs of our making: extremes of every datatype, and batches of one, of many and of none.

Called by `flows.catalog.measure` as its last step: a model that dies of them leaves all else measured.
The champion is asked first, so that what both of them die of is not held against the candidate.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import ml_dtypes
import numpy as np

from flows.catalog.facts import Answer, Side, Source, Stage, Trial
from flows.catalog.subject import Subject
from serving.core.datatypes import DTYPES, FLOATS, Array, datatype_of

Begin = Callable[[Side, str, Stage], None]

_LARGE = 1_000_000
_LONG_TEXT = 1000


def odd_inputs(
    inputs: Mapping[str, Array], *, is_batched: bool, max_rows: int
) -> dict[Source, dict[str, Array]]:
    """In the shapes of inputs that were answered; batches only where the first axis is free."""
    row = {name: array[:1] for name, array in inputs.items()} if is_batched else dict(inputs)
    found = {source: _filled(row, source) for source in (Source.LARGE, Source.HIGHEST, Source.LOWEST)}
    if any(datatype_of(array.dtype) in FLOATS for array in row.values()):
        found[Source.NEGATIVE_ZEROS] = _filled(row, Source.NEGATIVE_ZEROS)
    if is_batched:
        found[Source.SINGLE] = row
        found[Source.MAXIMUM] = {name: np.repeat(array, max_rows, axis=0) for name, array in row.items()}
        found[Source.EMPTY] = {name: array[:0] for name, array in row.items()}
    return found


def ask_odd(
    asked: Mapping[Source, Mapping[str, Array]], candidate: Subject, champion: Subject | None, begin: Begin
) -> Iterator[Trial]:
    contract = champion.model.outputs if champion else ()
    for source, inputs in asked.items():
        theirs: Answer | None = None
        if champion is not None:
            begin(Side.CHAMPION, f"answering the {source}", Stage.ODD)
            theirs = champion.ask(inputs).answer
        begin(Side.CANDIDATE, f"answering the {source}", Stage.ODD)
        rows = max((len(array) for array in inputs.values() if array.ndim), default=1)
        yield Trial(source, rows, candidate.ask(inputs, contract).answer, theirs)


def _filled(inputs: Mapping[str, Array], source: Source) -> dict[str, Array]:
    fill = partial(_extreme, source)
    return {name: np.full(array.shape, fill(array.dtype), array.dtype) for name, array in inputs.items()}


def _extreme(source: Source, dtype: "np.dtype[Any]") -> object:
    """The value of a datatype that `source` means; large ones it holds with room to spare."""
    datatype = datatype_of(dtype)
    if datatype == "BYTES":
        return {Source.LARGE: "x" * _LONG_TEXT, Source.HIGHEST: "\U0010ffff"}.get(source, "")
    if datatype == "BOOL":
        return source is not Source.LOWEST
    if datatype in FLOATS:
        return _extreme_float(source, dtype)
    bounds = np.iinfo(dtype)
    return {Source.LARGE: min(_LARGE, bounds.max), Source.HIGHEST: bounds.max, Source.LOWEST: bounds.min}.get(
        source, 0
    )


def _extreme_float(source: Source, dtype: "np.dtype[Any]") -> float:
    # numpy does not know the limits of BF16.
    bounds: Any = ml_dtypes.finfo if dtype == DTYPES["BF16"] else np.finfo
    highest = float(bounds(dtype).max)
    extremes = {
        Source.LARGE: min(float(_LARGE), highest / 4),
        Source.HIGHEST: highest,
        Source.LOWEST: -highest,
    }
    return extremes.get(source, -0.0)
