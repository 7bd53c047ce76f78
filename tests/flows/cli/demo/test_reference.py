"""Telling by its outputs which version answered."""

from pathlib import Path

import numpy as np

from flows.cli.demo.reference import Reference, half_faint, inverted, read_reference, real_scans, with_raising

SCANS = np.zeros((2, 1, 8, 8), np.float32)


def logits(value: float) -> np.ndarray:
    return np.full((2, 10), value, np.float32)


def test_answer_matches_when_it_is_the_named_versions_own() -> None:
    """Rounding is forgiven; another version's outputs, another shape and an unknown version are not."""
    reference = Reference(SCANS, {"1": logits(1.0), "2": logits(2.0)})
    assert reference.matches("1", slice(1, 2), logits(1.0001)[:1])
    assert not reference.matches("1", slice(1, 2), logits(2.0)[:1])
    assert not reference.matches("1", slice(1, 2), logits(1.0)[:1, :9])
    assert not reference.matches("4", slice(1, 2), logits(1.0)[:1])


def test_versions_are_told_apart_when_every_scan_differs() -> None:
    """One scan answered alike would hide an answer of the wrong version."""
    almost = logits(2.0)
    almost[1] = 1.0
    assert Reference(SCANS, {"1": logits(1.0), "2": logits(2.0)}).tells_apart()
    assert not Reference(SCANS, {"1": logits(1.0), "2": almost}).tells_apart()


def test_reference_is_the_same_when_read_back(tmp_path: Path) -> None:
    """What one process measured the other compares with."""
    Reference(SCANS, {"1": logits(1.0), "2": logits(2.0)}).save(tmp_path / "folder" / "reference.npz")
    found = read_reference(tmp_path / "folder" / "reference.npz")
    assert sorted(found.outputs) == ["1", "2"]
    assert found.scans.shape == SCANS.shape
    assert found.matches("2", slice(0, 2), logits(2.0))


def test_inverted_scans_are_scans_when_looked_at_alone() -> None:
    """Each pixel keeps its range; only which is ink and which is paper changes."""
    scans = real_scans()
    turned = inverted(scans)
    assert (turned.dtype, turned.shape) == (scans.dtype, scans.shape)
    assert (turned.min(), turned.max()) == (0.0, 1.0)
    assert np.array_equal(inverted(turned), scans)


def test_every_second_scan_is_faint_when_scans_are_mixed() -> None:
    """At half its brightness; the others are as they were."""
    scans = real_scans()
    mixed = half_faint(scans)
    assert np.array_equal(mixed[::2], scans[::2])
    assert np.array_equal(mixed[1::2], scans[1::2] / 2)


def test_no_answer_to_a_faint_scan_passes_when_its_version_raises() -> None:
    """Of the other scans it has answers of its own."""
    mixed = with_raising(Reference(SCANS, {"2": logits(2.0)}), Reference(SCANS, {"6": logits(6.0)}))
    assert mixed.tells_apart()
    assert mixed.matches("6", slice(0, 1), logits(6.0)[:1])
    assert not mixed.matches("6", slice(1, 2), logits(6.0)[:1])
    assert mixed.matches("2", slice(0, 2), logits(2.0))
