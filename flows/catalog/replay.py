"""Recent inputs from the inference log, asked of both sides again.

Called by `flows.catalog.measure`. There are no labels: what counts is that they are answered, that
answers are finite, and how far the two sides are apart.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

import numpy as np

from flows.catalog import scores
from flows.catalog.facts import Answer, Metric, Replay, Source, Trial
from flows.catalog.logged import FLAT, VALID, WHOLE
from flows.catalog.scoring import first_of
from flows.catalog.subject import Reply, Subject
from flows.catalog.trials import Begin
from serving.core.datatypes import DTYPES, Array
from serving.core.model import TensorSpec

_BATCH_ROWS = 32
_TINY = 1e-6

Inputs = Mapping[str, Array]


def logged_inputs(path: Path, specs: Sequence[TensorSpec], *, is_batched: bool) -> dict[str, Array] | str:
    """The inputs a model takes, first axis rows of the log; a sentence where the log cannot give them."""
    with np.load(path, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    found: dict[str, Array] = {}
    valid: Array | None = None
    for spec in specs:
        if f"{VALID}{spec.name}" not in arrays:
            return f"the inference log does not hold input '{spec.name}' whole"
        shaped = _shaped(arrays, spec, is_batched=is_batched)
        if isinstance(shaped, str):
            return shaped
        found[spec.name] = shaped
        own = arrays[f"{VALID}{spec.name}"]
        valid = own if valid is None else valid & own
    if valid is None or not valid.any():
        return "no row of the inference log holds every input"
    return {name: array[valid] for name, array in found.items()}


def replay(
    logged: Inputs,
    candidate: Subject,
    champion: Subject | None,
    *,
    model_type: str | None,
    budget_seconds: float,
    begin: Begin,
) -> Replay:
    """Ask all rows, or as many as the time allows, newest last."""
    tally, started = _Tally(model_type), perf_counter()
    contract = champion.model.outputs if champion else ()
    for inputs in _portions(logged, candidate):
        begin(candidate.side, f"answering the {Source.LOGGED}")
        ours = candidate.ask(inputs, contract)
        theirs = None
        if champion is not None:
            begin(champion.side, f"answering the {Source.LOGGED}")
            theirs = champion.ask(inputs)
        rows = _rows(inputs) if candidate.is_batched else 1
        if rows > 1 and (ours.outputs is None or (theirs is not None and theirs.outputs is None)):
            for row in _alone(inputs):
                alone = champion.ask(row) if champion else None
                tally.add(candidate.ask(row, contract), alone, candidate, contract, 1)
        else:
            tally.add(ours, theirs, candidate, contract, rows)
        if perf_counter() - started > budget_seconds:
            break
    return tally.found()


@dataclass(slots=True)
class _Tally:
    model_type: str | None
    rows: int = 0
    answer: Answer = field(default_factory=Answer)
    other: Answer | None = None
    raised: int = 0
    champion_raised: int = 0
    non_finite: int = 0
    alike: int = 0
    classified: int = 0
    ours: list[Array] = field(default_factory=list)
    theirs: list[Array] = field(default_factory=list)

    def add(
        self, ours: Reply, theirs: Reply | None, candidate: Subject, contract: Sequence[TensorSpec], rows: int
    ) -> None:
        self.rows += rows
        self.answer = first_of(self.answer, ours.answer)
        if theirs is not None:
            self.other = first_of(self.other or Answer(), theirs.answer)
        lost = theirs is not None and theirs.outputs is None
        if ours.outputs is None:
            self.champion_raised += rows if lost else 0
            self.raised += 0 if lost else rows
            return
        self.non_finite += _unusual(ours, rows)
        if theirs is not None and theirs.outputs is not None:
            output = candidate.chosen(ours.outputs, contract)
            self._compare(output, candidate.chosen(theirs.outputs, contract))

    def found(self) -> Replay:
        compared = self.classified or sum(map(len, self.ours))
        return Replay(
            rows=self.rows,
            trial=Trial(Source.LOGGED, self.rows, self.answer, self.other),
            raised=self.raised,
            champion_raised=self.champion_raised,
            non_finite=self.non_finite,
            agreement=self.alike / self.classified if self.classified else None,
            shift=self._shift(),
            compared=compared,
        )

    def _compare(self, output: Array, other: Array) -> None:
        metric = scores.metric_of(self.model_type, output)
        if metric is None or metric is Metric.NEIGHBOURS or output.shape != other.shape or output.ndim == 0:
            return
        if metric is Metric.ERROR:
            if output.size == len(output) and output.dtype.kind in "fiu":
                self.ours.append(output.astype(np.float64).reshape(-1))
                self.theirs.append(other.astype(np.float64).reshape(-1))
            return
        if output.ndim <= 2:
            same = scores.guesses(metric, output) == scores.guesses(metric, other)
            self.alike += int(np.sum(same))
            self.classified += len(output)

    def _shift(self) -> float | None:
        if not self.ours:
            return None
        ours, theirs = np.concatenate(self.ours), np.concatenate(self.theirs)
        usable = np.isfinite(ours) & np.isfinite(theirs)
        if not usable.any():
            return None
        apart, size = np.median(np.abs(ours - theirs)[usable]), np.median(np.abs(theirs[usable]))
        return float(apart / (size + _TINY))


def _unusual(reply: Reply, rows: int) -> int:
    """On how many rows an output is not finite."""
    if reply.outputs is None or not reply.answer.non_finite:
        return 0
    found = np.zeros(rows, dtype=np.bool_)
    for name in reply.answer.non_finite:
        array = reply.outputs[name]
        if array.ndim == 0 or len(array) != rows:
            return rows
        found |= ~np.isfinite(array.astype(np.float64)).reshape(rows, -1).all(axis=1)
    return int(found.sum())


def _portions(logged: Inputs, candidate: Subject) -> Iterator[dict[str, Array]]:
    """Batches where rows may be joined; else each row of the log as the whole input that it was."""
    count = _rows(logged)
    if not candidate.is_batched:
        yield from ({name: array[at] for name, array in logged.items()} for at in range(count))
        return
    for start in range(0, count, _BATCH_ROWS):
        yield {name: array[start : start + _BATCH_ROWS] for name, array in logged.items()}


def _alone(inputs: Inputs) -> Iterator[dict[str, Array]]:
    for at in range(_rows(inputs)):
        yield {name: array[at : at + 1] for name, array in inputs.items()}


def _shaped(arrays: Mapping[str, Array], spec: TensorSpec, *, is_batched: bool) -> Array | str:
    held = arrays.get(f"{WHOLE}{spec.name}", arrays.get(f"{FLAT}{spec.name}"))
    if held is None:
        return f"the inference log does not hold input '{spec.name}' whole"
    if (held.dtype.kind == "U") != (spec.datatype == "BYTES"):
        return f"input '{spec.name}' is not in the inference log as it was: it may be hashed there"
    typed = held.astype(np.object_) if spec.datatype == "BYTES" else held.astype(DTYPES[spec.datatype])
    if spec.dims is None:
        # Nothing is known of the shape: a row of the log is asked as a batch of one.
        return typed[:, None]
    inner = _lengths(spec.dims[1:] if is_batched else spec.dims, held.shape[1:])
    if inner is None:
        counted = f"{math.prod(held.shape[1:])} elements per row in the inference log"
        return f"input '{spec.name}' has {counted}, the model takes {spec.wire_shape}"
    return typed.reshape(len(held), *inner)


def _lengths(dims: Sequence[int], logged: Sequence[int]) -> tuple[int, ...] | None:
    """The shape of a row: as logged if that fits, else with the one free axis filled by what is there."""
    if len(dims) == len(logged) and all(want in (-1, got) for want, got in zip(dims, logged, strict=True)):
        return tuple(logged)
    elements, known = math.prod(logged), math.prod(length for length in dims if length >= 0)
    free = sum(length < 0 for length in dims)
    if free > 1 or known == 0 or elements % known or (free == 0 and elements != known):
        return None
    return tuple(elements // known if length < 0 else length for length in dims)


def _rows(inputs: Inputs) -> int:
    return max((len(array) for array in inputs.values() if array.ndim), default=1)
