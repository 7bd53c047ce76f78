"""Translations of generated torch models, converted to Core ML's layer networks, against torch."""

import pytest

from tests.flows.translation.network_cases import NETWORK_CASES
from tests.flows.translation.network_parity import measure
from tests.flows.translation.parity import LIMITS


@pytest.mark.parametrize("name", NETWORK_CASES)
def test_network_answers_like_torch_when_translated(name: str) -> None:
    """The largest difference over all outputs, and over all shapes it was made for, stays within 1e-5."""
    assert measure(name).difference <= LIMITS["fp32"]
