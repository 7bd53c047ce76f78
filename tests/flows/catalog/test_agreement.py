"""Two answers agree within what floating point allows, and exactly for all else."""

from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest

from flows.catalog.agreement import disagreement

Array = npt.NDArray[Any]
ONE = np.array([1.0, np.nan], np.float32)


@pytest.mark.parametrize(
    ("got", "want", "problem"),
    [
        pytest.param(ONE, ONE, None, id="equal, NaN included"),
        pytest.param(ONE * np.float32(1.0005), ONE, None, id="within tolerance"),
        pytest.param(ONE * np.float32(1.01), ONE, "up to 0.01", id="beyond tolerance"),
        pytest.param(np.array([np.inf], np.float32), ONE[:1], "differs", id="infinity"),
        pytest.param(ONE[:1], ONE, "is FP32 [1] once and FP32 [2] once", id="other shape"),
        pytest.param(ONE.astype(np.float64), ONE, "FP64", id="other type"),
        pytest.param(np.array([1, 2]), np.array([1, 2]), None, id="integers"),
        pytest.param(np.array([1, 2]), np.array([1, 3]), "'y' differs", id="one integer off"),
        pytest.param(np.array(["a"], object), np.array(["b"], object), "'y' differs", id="text"),
        pytest.param(ONE.astype(ml_dtypes.bfloat16), ONE.astype(ml_dtypes.bfloat16), None, id="BF16"),
    ],
)
def test_answers_are_compared_by_their_type_when_given(got: Array, want: Array, problem: str | None) -> None:
    """Floats may differ by rounding; integers and text may not."""
    found = disagreement({"y": got}, {"y": want})
    assert (found is None) == (problem is None)
    assert (problem or "") in (found or "")


def test_answers_disagree_when_an_output_is_missing() -> None:
    """An output that only one of them has is a difference, whichever that is."""
    assert "'z'" in (disagreement({"y": ONE}, {"y": ONE, "z": ONE}) or "")
    assert "'z'" in (disagreement({"y": ONE, "z": ONE}, {"y": ONE}) or "")
