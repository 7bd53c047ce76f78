"""Asking candidate and champion the same recorded inputs, and the candidate the same thing in two ways.

Called by `flows.catalog.measure` in its own process. Judges nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from time import perf_counter

import numpy as np

from flows.catalog.agreement import disagreement
from flows.catalog.facts import Comparison, Latency, Quantiles, Side, Source, Trial
from flows.catalog.subject import Subject
from serving.core.datatypes import FLOATS, Array, datatype_of
from serving.core.model import TensorSpec
from serving.formats.probe import in_datatypes, named_example, zeros

Begin = Callable[[Side, str], None]

ROWS = 8
"""Rows of a batch that is compared with its rows alone."""

_TILED_SHARES = (1.0, 0.75, 0.5, 0.25)
_WARM_UP_CALLS = 10
_WARM_UP_SHARE = 0.2
_MIN_CALLS = 3


def recorded_inputs(candidate: Subject, champion: Subject | None) -> dict[Source, dict[str, Array]]:
    """Everything but the evaluation set that the candidate can be asked, by where it comes from."""
    specs, artifact = candidate.model.inputs, candidate.artifact
    found: dict[Source, dict[str, Array] | None] = {
        Source.GOLDEN: in_datatypes(specs, artifact.golden.inputs) if artifact.golden else None,
        Source.EXAMPLE: named_example(specs, artifact.example),
        Source.CHAMPION: _example_of(champion, specs) if champion else None,
        Source.ZEROS: zeros(specs),
    }
    return {source: inputs for source, inputs in found.items() if inputs is not None}


def try_out(
    source: Source,
    inputs: Mapping[str, Array],
    candidate: Subject,
    champion: Subject | None,
    begin: Begin,
) -> Trial:
    begin(Side.CANDIDATE, f"answering the {source}")
    contract = champion.model.outputs if champion else ()
    ours = candidate.ask(inputs, contract)
    theirs = None
    if champion is not None:
        begin(Side.CHAMPION, f"answering the {source}")
        theirs = champion.ask(inputs).answer
    return Trial(source, _length(inputs), ours.answer, theirs)


def batch_invariance(
    source: Source,
    inputs: Mapping[str, Array],
    candidate: Subject,
    champion: Subject | None,
    begin: Begin,
    count: int = ROWS,
) -> Comparison | None:
    """Rows answered together against the same rows alone; None where rows cannot be told apart.

    The champion is only asked where the candidate differs: what it shares is no step back.
    """
    if not candidate.is_batched:
        return None
    rows = several_rows(inputs, count)
    begin(Side.CANDIDATE, f"answering rows of the {source} together and alone")
    try:
        ours = _together_against_alone(candidate, rows)
    except _NoBatch:
        return None
    theirs = None
    if ours is not None and champion is not None and champion.is_batched:
        begin(Side.CHAMPION, f"answering rows of the {source} together and alone")
        try:
            theirs = _together_against_alone(champion, rows)
        except _NoBatch:
            theirs = "it has no batch axis"
    return Comparison(source, _length(rows), ours, theirs)


def determinism(
    source: Source,
    inputs: Mapping[str, Array],
    candidate: Subject,
    champion: Subject | None,
    begin: Begin,
    count: int = ROWS,
) -> Comparison:
    """The same inputs answered twice. The champion is only asked where the candidate differs."""
    rows = {name: array[:count] for name, array in inputs.items()} if candidate.is_batched else inputs
    begin(Side.CANDIDATE, f"answering the {source} twice")
    ours = _once_against_twice(candidate, rows)
    theirs = None
    if ours is not None and champion is not None:
        begin(Side.CHAMPION, f"answering the {source} twice")
        theirs = _once_against_twice(champion, rows)
    return Comparison(source, _length(rows), ours, theirs)


def time_calls(
    source: Source,
    inputs: Mapping[str, Array],
    candidate: Subject,
    champion: Subject | None,
    *,
    calls: int,
    budget_seconds: float,
) -> Latency | None:
    """Single-row calls taken in turn, so that a busy machine slows both alike; None if one side raises."""
    row = {name: array[:1] for name, array in inputs.items()} if candidate.is_batched else dict(inputs)
    subjects = [candidate] if champion is None else [candidate, champion]
    try:
        _in_turn(subjects, row, _WARM_UP_CALLS, budget_seconds * _WARM_UP_SHARE)
        times_ms = _in_turn(subjects, row, calls, budget_seconds)
    except Exception:  # a model is foreign code; raising on these inputs is a finding of the trials
        return None
    theirs = _quantiles(times_ms[Side.CHAMPION]) if champion else None
    return Latency(source, len(times_ms[Side.CANDIDATE]), _quantiles(times_ms[Side.CANDIDATE]), theirs)


def _in_turn(
    subjects: Sequence[Subject], row: Mapping[str, Array], calls: int, budget_seconds: float
) -> dict[Side, list[float]]:
    """Milliseconds of each call by side; fewer calls than asked for where the time is up before."""
    asked = [(subject, subject.own(row)) for subject in subjects]
    times_ms: dict[Side, list[float]] = {subject.side: [] for subject in subjects}
    started = perf_counter()
    for call in range(calls):
        if call >= _MIN_CALLS and perf_counter() - started > budget_seconds:
            break
        for subject, own in asked if call % 2 else reversed(asked):
            begun = perf_counter()
            subject.model.predict(own)
            times_ms[subject.side].append((perf_counter() - begun) * 1000)
    return times_ms


def several_rows(inputs: Mapping[str, Array], count: int = ROWS) -> dict[str, Array]:
    """Up to `count` rows; of a single one, four: itself and fractions of its floating-point values."""
    if _length(inputs) > 1:
        return {name: array[:count] for name, array in inputs.items()}
    return {name: _tiled(array)[:count] for name, array in inputs.items()}


class _NoBatch(Exception):
    """The first axis of the outputs does not follow that of the inputs, or a row alone is refused."""


def _together_against_alone(subject: Subject, rows: Mapping[str, Array]) -> str | None:
    count = _length(rows)
    singles = [subject.ask({name: array[at : at + 1] for name, array in rows.items()}) for at in range(count)]
    answers = [single.outputs for single in singles if single.outputs is not None]
    if len(answers) < count or any(not _has_rows(answer, 1) for answer in answers):
        raise _NoBatch
    together = subject.ask(rows)
    if together.outputs is None:
        return f"{count} rows at once {together.answer.error}"
    if not _has_rows(together.outputs, count):
        raise _NoBatch
    alone = {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}
    return disagreement(together.outputs, alone)


def _once_against_twice(subject: Subject, inputs: Mapping[str, Array]) -> str | None:
    once, twice = subject.ask(inputs), subject.ask(inputs)
    if once.outputs is None or twice.outputs is None:
        return once.answer.error or twice.answer.error
    return disagreement(twice.outputs, once.outputs)


def _example_of(champion: Subject, specs: tuple[TensorSpec, ...]) -> dict[str, Array] | None:
    """The champion's own recorded inputs, if the candidate takes such inputs at all."""
    artifact = champion.artifact
    example = artifact.golden.inputs if artifact.golden else artifact.example
    return named_example(specs, named_example(champion.model.inputs, example))


def _tiled(array: Array) -> Array:
    if datatype_of(array.dtype) not in FLOATS:
        return np.concatenate([array] * len(_TILED_SHARES))
    return np.concatenate([(array * share).astype(array.dtype) for share in _TILED_SHARES])


def _has_rows(outputs: Mapping[str, Array], count: int) -> bool:
    return all(array.ndim > 0 and len(array) == count for array in outputs.values())


def _length(inputs: Mapping[str, Array]) -> int:
    return max((len(array) for array in inputs.values() if array.ndim), default=1)


def _quantiles(times_ms: list[float]) -> Quantiles:
    return Quantiles(float(np.quantile(times_ms, 0.5)), float(np.quantile(times_ms, 0.95)))
