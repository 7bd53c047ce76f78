"""Embeddings of the same rows by two versions: how alike they are, and what neighbours say of a row.

Pure; called by `flows.catalog.scoring` for extractors. Neighbours are by cosine, each row without itself.
"""

import numpy as np

from flows.catalog.facts import Similarity
from serving.core.datatypes import Array

MAX_ROWS = 2000
"""Rows looked at: the work grows with their square."""

_VOTERS = 5
_NEIGHBOURS = 10
_PORTION = 256


def votes(embeddings: Array, labels: Array) -> Array:
    """The class that most of a row's five nearest rows have, of several the nearest's: (rows,)."""
    classes, numbers = np.unique(labels, return_inverse=True)
    nearest = numbers[_nearest(embeddings, _VOTERS)]
    counts = np.stack([(nearest == at).sum(axis=1) for at in range(len(classes))], axis=1)
    # The first of the nearest rows whose class has the most votes decides.
    leads = np.take_along_axis(counts, nearest, axis=1) == counts.max(axis=1, keepdims=True)
    found: Array = classes[np.take_along_axis(nearest, leads.argmax(axis=1)[:, None], axis=1)[:, 0]]
    return found


def similarity(ours: Array, theirs: Array) -> Similarity | None:
    """Both (rows, width), widths may differ; None for a single row, which has no neighbours."""
    if len(ours) < 2:
        return None
    neighbours = min(_NEIGHBOURS, len(ours) - 1)
    pairs = zip(_nearest(ours, neighbours), _nearest(theirs, neighbours), strict=True)
    overlap = float(np.mean([len(np.intersect1d(one, other)) / neighbours for one, other in pairs]))
    if ours.shape[1] != theirs.shape[1]:
        return Similarity(len(ours), neighbours, overlap)
    cosines = (_unit(ours) * _unit(theirs)).sum(axis=1)
    low = float(np.quantile(cosines, 0.05))
    return Similarity(len(ours), neighbours, overlap, float(cosines.mean()), low)


def _nearest(embeddings: Array, count: int) -> Array:
    """Row numbers of each row's nearest others, nearest first: (rows, count)."""
    unit, count = _unit(embeddings), min(count, len(embeddings) - 1)
    found = []
    for start in range(0, len(unit), _PORTION):
        near = unit[start : start + _PORTION] @ unit.T
        near[np.arange(len(near)), np.arange(start, start + len(near))] = -np.inf
        found.append(np.argsort(-near, axis=1, kind="stable")[:, :count])
    return np.concatenate(found)


def _unit(embeddings: Array) -> Array:
    wide = embeddings.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    unit: Array = wide / np.where(lengths > 0, lengths, 1.0)
    return unit
