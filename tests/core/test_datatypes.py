"""The datatype table: complete, and the same in both directions."""

import numpy as np
import pytest

from serving.core.datatypes import DTYPES, datatype_of, is_finite


@pytest.mark.parametrize("name", DTYPES)
def test_datatype_returns_its_own_name_when_looked_up_by_dtype(name: str) -> None:
    """The table reads the same both ways."""
    assert datatype_of(DTYPES[name]) == name


@pytest.mark.parametrize(
    ("dtype", "name"), [(">f4", "FP32"), (">i8", "INT64"), ("<U3", "BYTES"), ("S5", "BYTES"), ("c8", None)]
)
def test_datatype_of_knows_foreign_dtypes_when_they_can_be_carried(dtype: str, name: str | None) -> None:
    """Byte order does not matter, text is BYTES, complex numbers have no name."""
    assert datatype_of(np.dtype(dtype)) == name


@pytest.mark.parametrize("name", ["FP16", "FP32", "FP64", "BF16"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_is_finite_says_no_when_one_element_is_not(name: str, value: float) -> None:
    """Every float datatype is looked at."""
    assert not is_finite(np.array([0.0, value]).astype(DTYPES[name]))


def test_is_finite_does_not_warn_when_a_bfloat16_nan_is_signalling() -> None:
    """A model may answer any bit pattern."""
    assert not is_finite(np.array([0x7F81], dtype=np.uint16).view(DTYPES["BF16"]))


@pytest.mark.parametrize("name", ["BOOL", "INT64", "BYTES", "BF16"])
def test_is_finite_says_yes_when_nothing_can_be_wrong(name: str) -> None:
    """Datatypes without NaN are finite by nature."""
    assert is_finite(np.zeros(2).astype(DTYPES[name]))
