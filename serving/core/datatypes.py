"""The Open Inference Protocol's datatypes beside numpy's; the one table every tensor goes through.

Strings have no numpy type of their own: a BYTES array has dtype object and holds `str` (or `bytes`).
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

import ml_dtypes
import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]

DTYPES: Mapping[str, np.dtype[Any]] = MappingProxyType(
    {
        "BOOL": np.dtype(np.bool_),
        "UINT8": np.dtype(np.uint8),
        "UINT16": np.dtype(np.uint16),
        "UINT32": np.dtype(np.uint32),
        "UINT64": np.dtype(np.uint64),
        "INT8": np.dtype(np.int8),
        "INT16": np.dtype(np.int16),
        "INT32": np.dtype(np.int32),
        "INT64": np.dtype(np.int64),
        "FP16": np.dtype(np.float16),
        "FP32": np.dtype(np.float32),
        "FP64": np.dtype(np.float64),
        "BF16": np.dtype(ml_dtypes.bfloat16),
        "BYTES": np.dtype(np.object_),
    }
)

FLOATS = frozenset({"FP16", "FP32", "FP64", "BF16"})

_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def datatype_of(dtype: np.dtype[Any]) -> str | None:
    """Protocol name of a numpy dtype, of either byte order; None for one the protocol cannot carry."""
    name = _NAMES.get(dtype)
    if name is not None:
        return name
    if dtype.kind in "US":
        return "BYTES"
    return _NAMES.get(dtype.newbyteorder("="))


def is_finite(array: Array) -> bool:
    """Whether no element is NaN or infinite; true of everything that is not a float."""
    if array.dtype.kind == "f":
        # Looking for a byte takes half of the time that numpy's `all` needs to get going.
        return b"\0" not in np.isfinite(array).tobytes()
    if array.dtype == DTYPES["BF16"]:
        with np.errstate(invalid="ignore"):  # widening a signalling NaN would warn
            return bool(np.isfinite(array).all())
    return True
