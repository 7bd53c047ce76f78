"""The candidate beside its siblings: versions that claim to be the same network in other formats.

Called by `flows.catalog.measure`; each sibling is loaded, asked the same inputs, and let go again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from flows.catalog.agreement import HALF, SINGLE, Tolerance, disagreement, largest_gap
from flows.catalog.facts import Kinship, Loaded, Side, Source
from flows.catalog.subject import Subject, bring_in
from flows.catalog.task import Kin
from flows.catalog.trials import Begin
from serving.core.datatypes import DTYPES, FLOATS, Array, datatype_of
from serving.core.model import Format, TensorSpec

_SOURCES = 2
_HALVES = {"FP16", "BF16"}


def beside(
    kin: Kin,
    candidate: Subject,
    inputs: Mapping[Source, Mapping[str, Array]],
    threads: int,
    begin: Begin,
) -> Kinship:
    """What the two say to the same inputs, the best that there are."""
    found = Kinship(kin.name)
    if kin.root is None:
        return replace(found, problem=kin.problem)
    begin(Side.SIBLING, f"loading ({kin.name})")
    sibling = bring_in(Side.SIBLING, kin.root, kin.name, threads, kin.digest)
    if isinstance(sibling, Loaded):
        return replace(found, problem=sibling.problem)
    try:
        found = replace(found, format=str(sibling.artifact.format))
        tolerance = _tolerance(candidate, sibling)
        for source in list(inputs)[:_SOURCES]:
            begin(Side.SIBLING, f"answering the {source} ({kin.name})")
            found = _compared(found, candidate, sibling, inputs[source], tolerance)
            if found.problem is not None or found.differs is not None:
                break
        return found
    finally:
        sibling.model.close()


def _compared(
    found: Kinship, candidate: Subject, sibling: Subject, inputs: Mapping[str, Array], tolerance: Tolerance
) -> Kinship:
    found = replace(found, tolerance=tolerance.relative)
    if sibling.fixed_rows is not None and candidate.is_batched:
        inputs = {name: array[: sibling.fixed_rows] for name, array in inputs.items()}
    own = candidate.own(inputs)
    theirs = _renamed(own, candidate.model.inputs, sibling.model.inputs)
    if isinstance(theirs, str):
        return replace(found, differs=theirs)
    ours, other = candidate.ask(own), sibling.ask(theirs)
    if ours.outputs is None or other.outputs is None:
        raised = f"it {ours.answer.error}" if ours.outputs is None else f"the sibling {other.answer.error}"
        return replace(found, differs=None, problem=raised)
    answers = _paired(ours.outputs, other.outputs)
    if isinstance(answers, str):
        return replace(found, differs=answers)
    got, want = answers
    rows = max((len(array) for array in own.values() if array.ndim), default=1)
    gaps = [largest_gap(got[n], want[n]) for n in got if got[n].shape == want[n].shape and _is_float(got[n])]
    return replace(
        found,
        differs=disagreement(got, want, tolerance),
        largest=max([found.largest, *gaps]),
        rows=found.rows + rows,
    )


def _tolerance(one: Subject, other: Subject) -> Tolerance:
    """Half precision wherever one of them may compute so; Core ML's converter does by default."""
    specs = (*one.model.inputs, *one.model.outputs, *other.model.inputs, *other.model.outputs)
    is_half = any(spec.datatype in _HALVES for spec in specs)
    return HALF if is_half or Format.COREML in (one.artifact.format, other.artifact.format) else SINGLE


def _renamed(
    inputs: Mapping[str, Array], ours: Sequence[TensorSpec], theirs: Sequence[TensorSpec]
) -> dict[str, Array] | str:
    """The inputs as the sibling names and types them: formats keep the order, not always the names."""
    if len(ours) != len(theirs):
        return f"it takes {len(ours)} inputs, the sibling {len(theirs)}"
    names = {spec.name for spec in ours}
    by_name = names == {spec.name for spec in theirs}
    found = {}
    for mine, its in zip(ours, theirs, strict=True):
        array = inputs[its.name if by_name else mine.name]
        typed = array if its.dims is None else array.astype(DTYPES[its.datatype], copy=False)
        if not its.accepts_shape(typed.shape):
            return f"the sibling takes input '{its.name}' in shape {its.wire_shape}, not {list(typed.shape)}"
        found[its.name] = typed
    return found


def _paired(
    ours: Mapping[str, Array], theirs: Mapping[str, Array]
) -> tuple[dict[str, Array], dict[str, Array]] | str:
    """Both answers under the same names and in comparable types."""
    if len(ours) != len(theirs):
        return f"it gives {len(ours)} outputs, the sibling {len(theirs)}"
    others = theirs if ours.keys() == theirs.keys() else dict(zip(ours, theirs.values(), strict=True))
    return {n: _wide(array) for n, array in ours.items()}, {n: _wide(others[n]) for n in ours}


def _wide(array: Array) -> Array:
    """In the widest type of its kind, so that only values are compared."""
    if _is_float(array):
        return array.astype(np.float64)
    return array.astype(np.int64) if array.dtype.kind in "iu" else array


def _is_float(array: Array) -> bool:
    return datatype_of(array.dtype) in FLOATS
