"""Keeps coremltools' garbage collections cheap while it converts models for these tests."""

import gc
from collections.abc import Iterator

import pytest

from tests.flows.translation.parity import quiet


@pytest.fixture(scope="package", autouse=True)
def _frozen() -> Iterator[None]:
    """Every conversion collects garbage: what the libraries created at import is taken out of its view."""
    with quiet():
        import coremltools

        assert coremltools.__version__
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
