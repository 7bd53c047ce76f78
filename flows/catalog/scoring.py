"""Running the evaluation set through candidate and champion, batch by batch, on the same rows.

Called by `flows.catalog.measure`. Rows are taken in a fixed random order, so that a set sorted by
class is still fairly sampled when time runs out before its end.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np

from flows.catalog.evaluation import EvaluationSet, misfit
from flows.catalog.facts import Answer, Metric, Score, Source, Trial
from flows.catalog.scores import metric_of, points, unscorable
from flows.catalog.subject import Subject
from flows.catalog.trials import Begin
from serving.core.datatypes import DTYPES, Array
from serving.core.model import TensorSpec

_MAX_BATCH_ROWS = 64
_SEED = 0


@dataclass(frozen=True, slots=True)
class Evaluated:
    trial: Trial
    score: Score


@dataclass(slots=True)
class _Tally:
    """One side's running result; `problem` ends its scoring, `answer` is None until it was asked."""

    subject: Subject
    contract: Sequence[TensorSpec]
    problem: str | None = None
    answer: Answer | None = None
    points: float = 0.0
    rows: int = 0

    def ask(self, inputs: Mapping[str, Array], begin: Begin) -> Array | None:
        """Answer a batch; the output to score, or None with `problem` set."""
        begin(self.subject.side, f"answering the {Source.EVALUATION}")
        reply = self.subject.ask(fitted(inputs, self.subject.model.inputs), self.contract)
        self.answer = _first_of(self.answer or Answer(), reply.answer)
        if reply.outputs is None:
            self.problem = f"the {self.subject.side} raised on it"
            return None
        named = (spec.name for spec in self.contract or self.subject.model.outputs)
        name = next((name for name in named if name in reply.outputs), next(iter(reply.outputs)))
        return reply.outputs[name]

    def add(self, metric: Metric, output: Array, labels: Array) -> None:
        self.problem = unscorable(metric, output, labels)
        if self.problem is None:
            self.points += points(metric, output, labels)
            self.rows += len(labels)


def evaluate(
    evaluation: EvaluationSet,
    candidate: Subject,
    champion: Subject | None,
    *,
    model_type: str | None,
    budget_seconds: float,
    begin: Begin,
) -> Evaluated:
    """Both sides' results on as many rows as the time allows. The set must fit the candidate."""
    ours = _Tally(candidate, champion.model.outputs if champion else ())
    theirs = _Tally(champion, (), problem=misfit(evaluation, champion.model.inputs)) if champion else None
    metric: Metric | None = None
    started = perf_counter()
    for rows in _batches(evaluation, candidate):
        inputs = {name: array[rows] for name, array in evaluation.inputs.items()}
        output = ours.ask(inputs, begin)
        other = theirs.ask(inputs, begin) if theirs and theirs.problem is None else None
        if output is None:
            break
        metric = metric or metric_of(model_type, output)
        if metric is None:
            ours.problem = f"a model of type '{model_type}' has neither accuracy nor error"
            break
        ours.add(metric, output, evaluation.labels[rows])
        if theirs and other is not None:
            theirs.add(metric, other, evaluation.labels[rows])
        if ours.problem is not None or perf_counter() - started > budget_seconds:
            break
    answered = Trial(Source.EVALUATION, ours.rows, ours.answer or Answer(), theirs.answer if theirs else None)
    return Evaluated(answered, _score(metric, evaluation, ours, theirs))


def fitted(inputs: Mapping[str, Array], specs: Sequence[TensorSpec]) -> dict[str, Array]:
    """The inputs a model takes, in the one type that files cannot hold."""
    bf16 = {spec.name for spec in specs if spec.datatype == "BF16"}
    return {n: array.astype(DTYPES["BF16"]) if n in bf16 else array for n, array in inputs.items()}


def _batches(evaluation: EvaluationSet, candidate: Subject) -> Iterator[Array]:
    """Row numbers in batches of the length the model takes; of any length, they begin with one row and
    double, so that a slow model shows before a batch takes for ever.
    """
    order = np.random.default_rng(_SEED).permutation(evaluation.rows)
    fixed = next((spec.dims[0] for spec in candidate.model.inputs if spec.dims and spec.dims[0] > 0), None)
    length, start = fixed or 1, 0
    while start + (fixed or 1) <= len(order):
        yield order[start : start + length]
        start += length
        length = fixed or min(2 * length, _MAX_BATCH_ROWS)


def _score(metric: Metric | None, evaluation: EvaluationSet, ours: _Tally, theirs: _Tally | None) -> Score:
    score = Score(metric, ours.rows, evaluation.rows, problem=ours.problem)
    if ours.problem is None and ours.rows == 0:
        return replace(score, problem="the evaluation set has fewer rows than the model takes at once")
    if ours.problem is None:
        score = replace(score, candidate=ours.points / ours.rows)
    if theirs is None or theirs.problem is not None or theirs.rows != ours.rows or ours.rows == 0:
        return replace(score, champion_problem=theirs.problem if theirs else None)
    return replace(score, champion=theirs.points / theirs.rows)


def _first_of(earlier: Answer, later: Answer) -> Answer:
    """The first finding of each kind."""
    return Answer(
        error=earlier.error or later.error,
        out_of_spec=earlier.out_of_spec or later.out_of_spec,
        off_contract=earlier.off_contract or later.off_contract,
        non_finite=earlier.non_finite or later.non_finite,
    )
