"""Whether two answers are the same answer, as far as floating point can tell."""

from collections.abc import Mapping

import numpy as np

from serving.core.datatypes import FLOATS, Array, datatype_of

RTOL = 1e-3
ATOL = 1e-4


def disagreement(got: Mapping[str, Array], want: Mapping[str, Array]) -> str | None:
    """The first difference in words, None where there is none. Equal NaNs agree."""
    for name in sorted(want.keys() | got.keys()):
        if name not in got or name not in want:
            return f"output '{name}' is not always there"
        problem = _difference(name, got[name], want[name])
        if problem is not None:
            return problem
    return None


def _difference(name: str, got: Array, want: Array) -> str | None:
    if got.shape != want.shape or got.dtype != want.dtype:
        return f"output '{name}' is {_form(got)} once and {_form(want)} once"
    if datatype_of(want.dtype) not in FLOATS:
        return None if np.array_equal(got, want) else f"output '{name}' differs"
    one, other = got.astype(np.float64), want.astype(np.float64)
    if np.allclose(one, other, rtol=RTOL, atol=ATOL, equal_nan=True):
        return None
    with np.errstate(invalid="ignore"):  # infinity less infinity
        gaps = np.abs(one - other)
    largest = float(np.max(gaps, initial=0.0, where=np.isfinite(gaps)))
    return f"output '{name}' differs by up to {largest:.3g}"


def _form(array: Array) -> str:
    return f"{datatype_of(array.dtype) or array.dtype} {list(array.shape)}"
