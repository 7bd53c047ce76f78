"""What all answers to an evaluation set come to: figures with intervals, and the paired difference.

Pure; called by `flows.catalog.scoring` once both sides were asked. Every figure is over the same rows.
"""

import numpy as np
from scipy.sparse import csr_array

from flows.catalog.facts import Difference, Estimate, Metric
from flows.catalog.intervals import (
    chance_of_drop,
    drop_interval,
    percentiles,
    resampled,
    resampled_counts,
    share_interval,
)
from serving.core.datatypes import Array

_NO_BOUND = 1e9
"""Stands for a ratio to an error of nothing: JSON has no infinity."""


def results(metric: Metric, guesses: Array, truth: Array, confidence: float) -> tuple[Estimate, ...]:
    """The figures of one side, that of the metric first. Embeddings come as what their neighbours vote."""
    if metric is Metric.ERROR:
        return _predicted(guesses, truth.astype(np.float64), confidence)
    if metric is Metric.REGRET:
        return _routed(guesses, truth, confidence)
    return _classified(guesses, truth, confidence)


def difference(metric: Metric, ours: Array, theirs: Array, truth: Array, confidence: float) -> Difference:
    """How much worse `ours` is than `theirs`: of shares the drop, of losses the ratio."""
    is_same = bool(np.array_equal(ours, theirs))
    if metric.is_share:
        return _drop(ours == truth, theirs == truth, confidence, is_same=is_same)
    return _ratio(losses(metric, ours, truth), losses(metric, theirs, truth), confidence, is_same=is_same)


def losses(metric: Metric, guesses: Array, truth: Array) -> Array:
    """What each row's answer costs, (rows,) of at least 0."""
    if metric is Metric.ERROR:
        errors: Array = np.abs(guesses - truth.astype(np.float64))
        return errors
    chosen = np.take_along_axis(truth, guesses.astype(np.int64)[:, None], axis=1)[:, 0]
    lost: Array = truth.max(axis=1) - chosen
    return lost


def _drop(ours: Array, theirs: Array, confidence: float, *, is_same: bool) -> Difference:
    worse, better = int((theirs & ~ours).sum()), int((ours & ~theirs).sum())
    found = drop_interval(worse, better, len(ours), confidence)
    chance = chance_of_drop(worse, better)
    return Difference((worse - better) / len(ours), found.low, found.high, chance, worse, better, is_same)


def _ratio(ours: Array, theirs: Array, confidence: float, *, is_same: bool) -> Difference:
    pairs = np.stack([ours, theirs], axis=1)
    drawn = resampled(pairs, _ratios)[:, 0]
    found = percentiles(drawn, confidence)
    value = float(_ratios(pairs.sum(axis=0, keepdims=True))[0, 0])
    chance = float((1 + (drawn <= 1).sum()) / (1 + len(drawn)))
    worse, better = int((ours > theirs).sum()), int((ours < theirs).sum())
    return Difference(value, found.low, found.high, chance, worse, better, is_same)


def _ratios(sums: Array) -> Array:
    ours, theirs = sums[:, 0], sums[:, 1]
    safe = np.where(theirs > 0, theirs, 1.0)
    ratio = np.where(theirs > 0, ours / safe, np.where(ours > 0, _NO_BOUND, 1.0))
    return np.minimum(ratio, _NO_BOUND)[:, None]


def _predicted(guesses: Array, truth: Array, confidence: float) -> tuple[Estimate, ...]:
    centred, errors = truth - truth.mean(), guesses - truth
    rows = np.stack([np.ones(len(truth)), np.abs(errors), errors**2, centred, centred**2], axis=1)
    return _estimates(("mae", "rmse", "r2"), rows, confidence)


def _errors(sums: Array) -> Array:
    """MAE, RMSE and R² from sums; R² of labels that are all alike is 1 for no error, else 0."""
    count, absolute, squared, label, label_squared = sums.T
    spread = label_squared - label**2 / count
    varied = spread > 1e-12 * np.maximum(label_squared, 1e-300)
    explained = np.where(varied, 1 - squared / np.where(varied, spread, 1.0), np.where(squared > 0, 0.0, 1.0))
    return np.stack([absolute / count, np.sqrt(squared / count), explained], axis=1)


def _estimates(names: tuple[str, ...], rows: Array, confidence: float) -> tuple[Estimate, ...]:
    values = _errors(rows.sum(axis=0, keepdims=True))[0]
    drawn = resampled(rows, _errors)
    found = [percentiles(drawn[:, at], confidence) for at in range(len(names))]
    return tuple(
        Estimate(name, float(value), interval.low, interval.high)
        for name, value, interval in zip(names, values, found, strict=True)
    )


def _routed(guesses: Array, routes: Array, confidence: float) -> tuple[Estimate, ...]:
    lost = losses(Metric.REGRET, guesses, routes)
    rows = np.stack([np.ones(len(lost)), lost], axis=1)
    drawn = resampled(rows, lambda sums: sums[:, 1:] / sums[:, :1])[:, 0]
    found, best = percentiles(drawn, confidence), int((lost <= 0).sum())
    share = share_interval(best, len(lost), confidence)
    return (
        Estimate("regret", float(lost.mean()), found.low, found.high),
        Estimate("best_route", best / len(lost), share.low, share.high),
    )


def _classified(guesses: Array, labels: Array, confidence: float) -> tuple[Estimate, ...]:
    """Accuracy; precision, recall and F1 as means over the classes, of two classes also of the second."""
    correct = int((guesses == labels).sum())
    share = share_interval(correct, len(labels), confidence)
    confusion = _Confusion(guesses, labels)
    values = confusion.figures(confusion.counts[None, :].astype(np.float64))[0]
    drawn = resampled_counts(confusion.counts, confusion.figures)
    found = [percentiles(drawn[:, at], confidence) for at in range(len(confusion.names))]
    return (
        Estimate("accuracy", correct / len(labels), share.low, share.high),
        *(
            Estimate(name, float(value), interval.low, interval.high)
            for name, value, interval in zip(confusion.names, values, found, strict=True)
        ),
    )


def positive_class(labels: Array) -> str | None:
    """The class that a two-class model is asked for: the second of the labels in their order."""
    classes = np.unique(labels)
    return str(classes[1]) if len(classes) == 2 else None


class _Confusion:
    """How often each pair of label and guess occurred; only pairs that did."""

    def __init__(self, guesses: Array, labels: Array) -> None:
        known, numbers = np.unique(np.concatenate([labels, guesses]), return_inverse=True)
        pairs = np.stack([numbers[: len(labels)], numbers[len(labels) :]], axis=1)
        kinds, self.counts = np.unique(pairs, axis=0, return_counts=True)
        is_right = kinds[:, 0] == kinds[:, 1]
        self._labelled = _membership(kinds[:, 0], len(known))
        self._guessed = _membership(kinds[:, 1], len(known))
        self._right = _membership(kinds[:, 0], len(known), is_right)
        # Labels of one class only would make the other class's number a matter of chance.
        self._positive = 1 if len(known) == 2 else None
        plain = ("precision", "recall", "f1")
        self.names = plain if self._positive is None else (*plain, *(f"{name}_positive" for name in plain))

    def figures(self, counts: Array) -> Array:
        """From (resamples, pairs) to (resamples, figures); a class that never occurs counts nowhere."""
        labelled, guessed, right = (counts @ of for of in (self._labelled, self._guessed, self._right))
        each = [_share(right, guessed), _share(right, labelled), _share(2 * right, guessed + labelled)]
        occurs = labelled + guessed > 0
        count = np.maximum(occurs.sum(axis=1), 1)
        found = [(figure * occurs).sum(axis=1) / count for figure in each]
        if self._positive is not None:
            found += [figure[:, self._positive] for figure in each]
        return np.stack(found, axis=1)


def _membership(classes: Array, count: int, counted: Array | None = None) -> csr_array:
    weights = np.ones(len(classes)) if counted is None else counted.astype(np.float64)
    return csr_array((weights, (np.arange(len(classes)), classes)), shape=(len(classes), count))


def _share(part: Array, whole: Array) -> Array:
    found: Array = np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
    return found
