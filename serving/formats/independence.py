"""Whether a model answers each row for itself, so that rows of several callers may be answered together.

Asked once after a load. Declared shapes only make it possible; what counts is that rows answered
together equal the same rows answered alone.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from serving.core.datatypes import FLOATS, Array, datatype_of
from serving.core.model import TensorSpec
from serving.formats.artifact import Artifact
from serving.formats.loader import LoadedModel
from serving.formats.probe import probe_inputs

_ROWS = 3
_RTOL = 1e-3
_ATOL = 1e-4


def are_rows_independent(model: LoadedModel, artifact: Artifact) -> bool:
    """False for whatever cannot be shown: unknown shapes, a fixed first axis, an answer that differs."""
    if not _may_be(model.inputs) or not _may_be(model.outputs):
        return False
    probe = probe_inputs(model, artifact)
    if probe is None:
        return False
    rows = {name: _varied(array) for name, array in probe.inputs.items()}
    try:
        together = model.predict(rows)
        alone = [model.predict(_row(rows, at)) for at in range(_ROWS)]
    except Exception:  # foreign code; one row at a time is what it was tested with
        return False
    return all(_is_row_of(together, answer, at) for at, answer in enumerate(alone))


def _may_be(specs: Sequence[TensorSpec]) -> bool:
    return bool(specs) and all(
        bool(spec.dims) and spec.dims is not None and spec.dims[0] == -1 for spec in specs
    )


def _varied(array: Array) -> Array:
    """Three rows: the first one of the probe, and of floats also fractions of it, so that rows differ."""
    first = array[:1]
    if datatype_of(array.dtype) not in FLOATS:
        return np.concatenate([first] * _ROWS)
    return np.concatenate([(first * share).astype(array.dtype) for share in (1.0, 0.5, 0.25)])


def _row(inputs: Mapping[str, Array], at: int) -> dict[str, Array]:
    return {name: array[at : at + 1] for name, array in inputs.items()}


def _is_row_of(together: Mapping[str, Array], alone: Mapping[str, Array], at: int) -> bool:
    return together.keys() == alone.keys() and all(
        _is_same(together[name], array, at) for name, array in alone.items()
    )


def _is_same(together: Array, alone: Array, at: int) -> bool:
    if together.ndim == 0 or len(together) != _ROWS or alone.shape != (1, *together.shape[1:]):
        return False
    if together.dtype != alone.dtype:
        return False
    if datatype_of(alone.dtype) not in FLOATS:
        return bool(np.array_equal(together[at], alone[0]))
    one, other = together[at].astype(np.float64), alone[0].astype(np.float64)
    return bool(np.allclose(one, other, rtol=_RTOL, atol=_ATOL, equal_nan=True))
