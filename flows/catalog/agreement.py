"""Whether two answers are the same answer, as far as floating point can tell."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from serving.core.datatypes import FLOATS, Array, datatype_of


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Floats agree within `absolute` plus `relative` of the wanted value."""

    relative: float
    absolute: float


SINGLE = Tolerance(1e-3, 1e-4)
"""For arithmetic in single precision or better, in whatever order and by whatever library."""

HALF = Tolerance(1e-2, 1e-2)
"""For arithmetic or weights in half precision."""


def disagreement(
    got: Mapping[str, Array], want: Mapping[str, Array], tolerance: Tolerance = SINGLE
) -> str | None:
    """The first difference in words, None where there is none. Equal NaNs agree."""
    for name in sorted(want.keys() | got.keys()):
        if name not in got or name not in want:
            return f"output '{name}' is not always there"
        problem = _difference(name, got[name], want[name], tolerance)
        if problem is not None:
            return problem
    return None


def largest_gap(got: Array, want: Array) -> float:
    """The largest finite distance of two float arrays of one shape."""
    with np.errstate(invalid="ignore"):  # infinity less infinity
        gaps = np.abs(got.astype(np.float64) - want.astype(np.float64))
    return float(np.max(gaps, initial=0.0, where=np.isfinite(gaps)))


def _difference(name: str, got: Array, want: Array, tolerance: Tolerance) -> str | None:
    if got.shape != want.shape or got.dtype != want.dtype:
        return f"output '{name}' is {_form(got)} once and {_form(want)} once"
    if datatype_of(want.dtype) not in FLOATS:
        return None if np.array_equal(got, want) else f"output '{name}' differs"
    one, other = got.astype(np.float64), want.astype(np.float64)
    if np.allclose(one, other, rtol=tolerance.relative, atol=tolerance.absolute, equal_nan=True):
        return None
    return f"output '{name}' differs by up to {largest_gap(got, want):.3g}"


def _form(array: Array) -> str:
    return f"{datatype_of(array.dtype) or array.dtype} {list(array.shape)}"
