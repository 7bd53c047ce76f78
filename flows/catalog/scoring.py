"""Running the evaluation set through candidate and champion, batch by batch, on the same rows.

Called by `flows.catalog.measure`. Rows are taken in a fixed random order, so that a set sorted by
class is still fairly sampled when time runs out before its end.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter

import numpy as np

from flows.catalog import scores
from flows.catalog.embeddings import MAX_ROWS, similarity, votes
from flows.catalog.evaluation import EvaluationSet, misfit
from flows.catalog.facts import Answer, Metric, Score, Similarity, Source, Trial
from flows.catalog.results import difference, positive_class, results
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
    similarity: Similarity | None = None


@dataclass(frozen=True, slots=True)
class Effort:
    """How the set is scored, how sure the intervals are, and how long asking may take."""

    model_type: str | None
    confidence: float
    budget_seconds: float


@dataclass(slots=True)
class _Tally:
    """One side's running result; `problem` ends its scoring, `answer` is None until it was asked."""

    subject: Subject
    contract: Sequence[TensorSpec]
    problem: str | None = None
    answer: Answer | None = None
    guesses: list[Array] = field(default_factory=list)
    rows: int = 0

    def ask(self, inputs: Mapping[str, Array], begin: Begin) -> Array | None:
        """Answer a batch; the output to score, or None with `problem` set."""
        begin(self.subject.side, f"answering the {Source.EVALUATION}")
        reply = self.subject.ask(fitted(inputs, self.subject.model.inputs), self.contract)
        self.answer = first_of(self.answer or Answer(), reply.answer)
        if reply.outputs is None:
            self.problem = f"the {self.subject.side} raised on it"
            return None
        return self.subject.chosen(reply.outputs, self.contract)

    def add(self, metric: Metric, output: Array, truth: Array) -> None:
        self.problem = scores.unscorable(metric, output, truth)
        if self.problem is None:
            self.guesses.append(scores.guesses(metric, output))
            self.rows += len(truth)


def evaluate(
    evaluation: EvaluationSet, candidate: Subject, champion: Subject | None, effort: Effort, begin: Begin
) -> Evaluated:
    """Both sides' results on as many rows as the time allows. The set must fit the candidate."""
    ours = _Tally(candidate, champion.model.outputs if champion else ())
    theirs = _Tally(champion, (), problem=misfit(evaluation, champion.model.inputs)) if champion else None
    metric: Metric | None = None
    order = _shuffled(evaluation.rows)
    started = perf_counter()
    for rows in _batches(order, candidate):
        inputs = {name: array[rows] for name, array in evaluation.inputs.items()}
        output = ours.ask(inputs, begin)
        other = theirs.ask(inputs, begin) if theirs and theirs.problem is None else None
        if output is None:
            break
        has_routes = evaluation.routes is not None
        metric = metric or scores.metric_of(effort.model_type, output, has_routes=has_routes)
        if metric is None:
            known = "classifier, predictor, extractor or router"
            ours.problem = f"a model's type is {known}, not '{effort.model_type}'"
            break
        truth = evaluation.truth(metric)[rows]
        ours.add(metric, output, truth)
        if theirs and other is not None:
            theirs.add(metric, other, truth)
        is_enough = metric is Metric.NEIGHBOURS and ours.rows >= MAX_ROWS
        if ours.problem is not None or is_enough or perf_counter() - started > effort.budget_seconds:
            break
    answered = Trial(Source.EVALUATION, ours.rows, ours.answer or Answer(), theirs.answer if theirs else None)
    begin(candidate.side, f"being scored on the {Source.EVALUATION}")
    truth = evaluation.truth(metric or Metric.ACCURACY)[order[: ours.rows]]
    return _scored(
        Evaluated(answered, Score(metric, ours.rows, evaluation.rows)), ours, theirs, truth, effort
    )


def fitted(inputs: Mapping[str, Array], specs: Sequence[TensorSpec]) -> dict[str, Array]:
    """The inputs a model takes, in the one type that files cannot hold."""
    bf16 = {spec.name for spec in specs if spec.datatype == "BF16"}
    return {n: array.astype(DTYPES["BF16"]) if n in bf16 else array for n, array in inputs.items()}


def first_of(earlier: Answer, later: Answer) -> Answer:
    """The first finding of each kind."""
    return Answer(
        error=earlier.error or later.error,
        out_of_spec=earlier.out_of_spec or later.out_of_spec,
        off_contract=earlier.off_contract or later.off_contract,
        non_finite=earlier.non_finite or later.non_finite,
    )


def _shuffled(rows: int) -> Array:
    order: Array = np.random.default_rng(_SEED).permutation(rows)
    return order


def _batches(order: Array, candidate: Subject) -> Iterator[Array]:
    """Row numbers in batches of the length the model takes; of any length, they begin with one row and
    double, so that a slow model shows before a batch takes for ever.
    """
    fixed = candidate.fixed_rows
    length, start = fixed or 1, 0
    while start + (fixed or 1) <= len(order):
        yield order[start : start + length]
        start += length
        length = fixed or min(2 * length, _MAX_BATCH_ROWS)


def _scored(found: Evaluated, ours: _Tally, theirs: _Tally | None, truth: Array, effort: Effort) -> Evaluated:
    """The figures of both sides, and what differs, where there are answers to make them of."""
    score, metric = found.score, found.score.metric
    least = 2 if metric is Metric.NEIGHBOURS else 1
    if ours.problem is not None or metric is None or ours.rows < least:
        lacking = ours.problem or "the evaluation set has fewer rows than it takes to score one answer"
        return replace(found, score=replace(score, problem=lacking))
    own, alike = _guessed(metric, ours, truth), None
    score = replace(
        score, candidate=results(metric, own, truth, effort.confidence), notes=_notes(metric, truth)
    )
    if theirs is None or theirs.problem is not None or theirs.rows != ours.rows:
        return replace(found, score=replace(score, champion_problem=theirs.problem if theirs else None))
    other = _guessed(metric, theirs, truth)
    if metric is Metric.NEIGHBOURS:
        alike = similarity(np.concatenate(ours.guesses), np.concatenate(theirs.guesses))
    score = replace(
        score,
        champion=results(metric, other, truth, effort.confidence),
        difference=difference(metric, own, other, truth, effort.confidence),
    )
    return replace(found, score=score, similarity=alike)


def _guessed(metric: Metric, side: _Tally, truth: Array) -> Array:
    together = np.concatenate(side.guesses)
    return votes(together, truth) if metric is Metric.NEIGHBOURS else together


def _notes(metric: Metric, truth: Array) -> dict[str, str]:
    """What a reader needs to know of the figures."""
    positive = positive_class(truth) if metric.is_share else None
    return {} if positive is None else {"positive_class": positive}
