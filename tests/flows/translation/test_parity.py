"""Translations of generated torch models against torch itself, in full and in half precision."""

import pytest

from tests.flows.translation.cases import CASES
from tests.flows.translation.parity import LIMITS, measure

_HALF = [name for name, case in CASES.items() if case.half]


@pytest.mark.parametrize("name", CASES)
def test_translation_answers_like_torch_when_in_full_precision(name: str) -> None:
    """The largest difference over all outputs stays within 1e-5."""
    measured = measure(name, "fp32")
    assert measured.difference <= LIMITS["fp32"]


@pytest.mark.parametrize("name", _HALF)
def test_translation_answers_like_torch_when_in_half_precision(name: str) -> None:
    """With coremltools' default, fp16, the relative difference stays within 1e-2."""
    measured = measure(name, "fp16")
    assert measured.difference <= LIMITS["fp16"]
