"""Embeddings: what neighbours vote, and how alike two spaces are."""

import numpy as np
import pytest

from flows.catalog.embeddings import similarity, votes
from tests.flows.catalog.folders import Array

CHANCE = np.random.default_rng(5)


def clusters(spread: float, rows: int = 60) -> Array:
    """Rows around three axes of six, in turn."""
    noise = CHANCE.normal(0, spread, (rows, 6)).astype(np.float32)
    found: Array = np.eye(6, dtype=np.float32)[np.arange(rows) % 3] + noise
    return found


def test_neighbours_vote_for_their_class_when_clusters_are_apart() -> None:
    """Each row is left out of its own vote; text labels serve as well."""
    labels = np.arange(60) % 3
    assert (votes(clusters(0.05), labels) == labels).all()
    named = np.array(["a", "b", "c"], dtype=object)[labels]
    assert (votes(clusters(0.05), named) == named).all()
    lonely = labels.copy()
    lonely[0] = 7
    assert votes(clusters(0.05), lonely)[0] != 7


def test_nearest_decides_when_votes_are_even() -> None:
    """Two of each class among four neighbours: the nearest row's class wins."""
    rows = np.array([[1, 0], [1, 0.1], [1, 0.2], [1, 0.4], [1, 0.5]], np.float32)
    labels = np.array([9, 1, 2, 1, 2])
    assert votes(rows, labels)[0] == 1


def test_similarity_is_whole_when_a_space_is_only_turned() -> None:
    """Neighbours survive a rotation, cosines to the old embeddings do not."""
    ours = clusters(0.3)
    turned = np.roll(ours, 1, axis=1)
    same, other = similarity(ours, ours), similarity(ours, turned)
    assert same is not None
    assert other is not None
    assert same.overlap == 1.0
    assert same.cosine_mean == pytest.approx(1.0)
    assert other.overlap == 1.0
    assert other.cosine_mean is not None
    assert other.cosine_mean < 0.9


def test_similarity_compares_neighbours_only_when_widths_differ() -> None:
    """Another width has no cosine, and neighbours all the same."""
    ours = clusters(0.3)
    found = similarity(ours, np.concatenate([ours, np.zeros_like(ours)], axis=1))
    assert found is not None
    assert (found.overlap, found.cosine_mean, found.cosine_p05) == (1.0, None, None)
    assert similarity(ours[:1], ours[:1]) is None


def test_zero_embedding_has_neighbours_when_it_has_no_direction() -> None:
    """No NaN from a length of nothing."""
    rows = clusters(0.1)
    rows[0] = 0
    found = similarity(rows, rows)
    assert found is not None
    assert found.overlap == 1.0
