"""Whether one version may answer in another's place: names, types and shapes of what callers rely on.

Pure. It may take more and give more, never less. What a TorchScript model without signature leaves open
is reported as open, not as broken. Used by validation, and before every way back.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from serving.core.model import TensorSpec


@dataclass(frozen=True, slots=True)
class Contract:
    """The declared tensors of one version; no outputs where they are not declared."""

    inputs: Sequence[TensorSpec]
    outputs: Sequence[TensorSpec]


@dataclass(frozen=True, slots=True)
class Compatibility:
    """Sentences on what callers would miss, and on what the declarations leave open."""

    breaks: tuple[str, ...]
    open: tuple[str, ...]


def compatibility(candidate: Contract, champion: Contract) -> Compatibility:
    """What the declared specs of the two versions say about replacing the champion by the candidate."""
    breaks = [*_names(candidate.inputs, champion.inputs)]
    unsure: list[str] = []
    for role, pairs in (
        ("input", _pairs(candidate.inputs, champion.inputs)),
        ("output", _pairs(candidate.outputs, champion.outputs)),
    ):
        for ours, theirs in pairs:
            if ours.dims is None or theirs.dims is None:
                unsure.append(f"the shape of {role} '{ours.name}' is not declared")
            else:
                breaks += _tensor(role, ours, theirs, ours.dims, theirs.dims)
    breaks += _missing_outputs(candidate.outputs, champion.outputs)
    return Compatibility(tuple(breaks), tuple(dict.fromkeys(unsure)))


def _names(ours: Sequence[TensorSpec], theirs: Sequence[TensorSpec]) -> Iterator[str]:
    known, wanted = {spec.name for spec in ours}, {spec.name for spec in theirs}
    for name in sorted(wanted - known):
        yield f"input '{name}' of the champion is not taken"
    for name in sorted(known - wanted):
        yield f"input '{name}' is new, so no caller sends it"


def _missing_outputs(ours: Sequence[TensorSpec], theirs: Sequence[TensorSpec]) -> Iterator[str]:
    known = [spec.name for spec in ours]
    for spec in theirs:
        # A version with no declared outputs is judged by what it answers.
        if known and spec.name not in known:
            yield f"output '{spec.name}' of the champion is missing (given: {', '.join(known)})"


def _pairs(
    ours: Sequence[TensorSpec], theirs: Sequence[TensorSpec]
) -> Iterator[tuple[TensorSpec, TensorSpec]]:
    by_name = {spec.name: spec for spec in ours}
    return ((by_name[spec.name], spec) for spec in theirs if spec.name in by_name)


def _tensor(
    role: str, ours: TensorSpec, theirs: TensorSpec, our_dims: tuple[int, ...], their_dims: tuple[int, ...]
) -> Iterator[str]:
    what = f"{role} '{ours.name}'"
    if ours.datatype != theirs.datatype:
        yield f"{what} is {ours.datatype}, the champion's {theirs.datatype}"
    if len(our_dims) != len(their_dims):
        yield f"{what} has shape {list(our_dims)}, the champion's {list(their_dims)}"
        return
    for axis, (mine, its) in enumerate(zip(our_dims, their_dims, strict=True)):
        if role == "input" and mine not in (-1, its):
            length = "any length" if its == -1 else f"length {its}"
            yield f"axis {axis} of {what} takes only length {mine}, the champion's {length}"
        # A variable axis of an output is judged by what is answered.
        if role == "output" and -1 not in (mine, its) and mine != its:
            yield f"axis {axis} of {what} has length {mine}, the champion's {its}"
