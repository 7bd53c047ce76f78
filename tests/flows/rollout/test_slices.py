"""The tag that declares slices: lists and groups of classes, and a sentence for all else."""

import pytest

from flows.rollout.slices import Slices, slices_of


@pytest.mark.parametrize(
    ("tag", "slices"),
    [
        (None, {}),
        (" ", {}),
        ('["7", 9]', {"7": ("7",), "9": ("9",)}),
        ('{"rare": ["7", 9], "cat": ["cat"]}', {"rare": ("7", "9"), "cat": ("cat",)}),
    ],
)
def test_slices_are_read(tag: str | None, slices: Slices) -> None:
    assert slices_of(tag) == slices


@pytest.mark.parametrize(
    ("tag", "words"),
    [
        ("[", "is not JSON"),
        ("7", "must be a list like"),
        ('{"rare": "7"}', "slice 'rare' of tag signalbox.slices must list classes"),
        ('{"rare": []}', "slice 'rare'"),
        ("[true]", "slice 'True'"),
        (str(list(range(65))), "declares 65 slices, at most 64 may be"),
    ],
)
def test_tag_is_refused_in_a_sentence(tag: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        slices_of(tag)
