"""Odd inputs: every datatype's extremes, and the batches that can be made of a row."""

import ml_dtypes
import numpy as np
import pytest

from flows.catalog.facts import Source
from flows.catalog.odd import odd_inputs
from serving.core.datatypes import DTYPES


def test_batches_are_made_when_rows_can_be_joined() -> None:
    """One row, the largest batch and none, all in the shape of a row that was answered."""
    found = odd_inputs({"x": np.ones((8, 3), np.float32)}, is_batched=True, max_rows=64)
    shapes = {source: inputs["x"].shape for source, inputs in found.items()}
    assert shapes[Source.SINGLE] == (1, 3)
    assert shapes[Source.MAXIMUM] == (64, 3)
    assert shapes[Source.EMPTY] == (0, 3)
    assert {shapes[source] for source in (Source.LARGE, Source.HIGHEST, Source.LOWEST)} == {(1, 3)}


def test_batches_are_left_out_when_the_first_axis_is_fixed() -> None:
    """Whole inputs only, of the shape that was answered."""
    found = odd_inputs({"x": np.ones((4, 3), np.float32)}, is_batched=False, max_rows=64)
    assert set(found) == {Source.LARGE, Source.HIGHEST, Source.LOWEST, Source.NEGATIVE_ZEROS}
    assert found[Source.HIGHEST]["x"].shape == (4, 3)


@pytest.mark.parametrize("datatype", sorted(DTYPES))
def test_extremes_are_those_of_the_datatype_when_made(datatype: str) -> None:
    """Kept in their type, and really its limits."""
    one = np.full((1, 2), "a" if datatype == "BYTES" else 1, DTYPES[datatype])
    found = odd_inputs({"x": one}, is_batched=True, max_rows=2)
    arrays = {source: inputs["x"] for source, inputs in found.items()}
    assert {array.dtype for array in arrays.values()} == {DTYPES[datatype]}
    if datatype in ("FP16", "FP32", "FP64", "BF16"):
        limits = ml_dtypes.finfo(DTYPES[datatype])  # type: ignore[no-untyped-call]
        assert (arrays[Source.HIGHEST] == limits.max).all()
        assert (arrays[Source.LOWEST] == -limits.max).all()
        assert np.isfinite(arrays[Source.LARGE].astype(np.float64)).all()
        assert np.signbit(arrays[Source.NEGATIVE_ZEROS].astype(np.float64)).all()
    elif datatype not in ("BYTES", "BOOL"):
        assert (arrays[Source.HIGHEST] == np.iinfo(DTYPES[datatype]).max).all()
        assert (arrays[Source.LOWEST] == np.iinfo(DTYPES[datatype]).min).all()
        assert Source.NEGATIVE_ZEROS not in arrays
