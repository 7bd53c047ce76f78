"""Laws over many arguments: slices like numpy's, pools like torch's."""

from typing import Any

import numpy as np
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from serving.core.datatypes import Array
from tests.flows.translation.programs import Single, answered

X: Array = np.arange(2 * 5 * 7, dtype=np.float32).reshape(2, 5, 7)
IMAGE: Array = np.random.default_rng(3).normal(size=(1, 2, 9, 11)).astype(np.float32)


@st.composite
def _cut(draw: Any, size: int) -> tuple[slice | int, dict[str, int | bool]]:
    """numpy's index of one axis, not empty, and MIL's parameters for it."""
    squeeze = draw(st.booleans())
    step = draw(st.sampled_from([-3, -2, -1, 1, 2, 3]))
    begin = draw(st.integers(-size, size - 1))
    first, last = draw(st.booleans()) and not squeeze, draw(st.booleans())
    position = begin % size if not first else (0 if step > 0 else size - 1)
    reach = draw(st.integers(1, size))
    end = position + reach if step > 0 else position - reach
    # Numpy reads a negative end from the back; without a mask there is no going past the front.
    last = last or end < 0
    cut = slice(None if first else begin, None if last else end, step)
    parameters: dict[str, int | bool] = {"begin": begin, "end": 0 if last else end, "stride": step}
    parameters |= {"begin_mask": first, "end_mask": last, "squeeze_mask": squeeze}
    return (begin if squeeze else cut), parameters


@settings(max_examples=40, deadline=None)
@given(st.tuples(*(_cut(size) for size in X.shape)))
def test_slice_is_numpys_when_masks_and_strides_vary(
    cuts: tuple[tuple[slice | int, dict[str, int | bool]], ...],
) -> None:
    """Begins from the back, steps backwards, masks, single positions."""
    parameters = {name: [one[name] for _, one in cuts] for name in cuts[0][1]}
    (sliced,) = answered(Single("slice_by_index", {"x": X}, parameters))
    np.testing.assert_array_equal(sliced, X[tuple(index for index, _ in cuts)])


@settings(max_examples=40, deadline=None)
@given(
    kernel=st.integers(1, 5),
    stride=st.integers(1, 4),
    data=st.data(),
    ceil=st.booleans(),
    counted=st.booleans(),
    average=st.booleans(),
)
def test_pool_is_torchs_when_windows_vary(
    kernel: int, stride: int, data: st.DataObject, ceil: bool, counted: bool, average: bool
) -> None:
    """Every kernel, stride and padding, cut last windows included."""
    # Without padding MIL keeps a last window that lies outside, which torch leaves out: it is refused.
    assume(not ceil or stride <= kernel)
    pad = data.draw(st.integers(0, kernel // 2))
    parameters: dict[str, Any] = {
        "kernel_sizes": [kernel] * 2,
        "strides": [stride] * 2,
        "pad_type": "custom",
        "pad": [pad] * 4,
        "ceil_mode": ceil,
    }
    image = torch.from_numpy(IMAGE)
    if average:
        parameters["exclude_padding_from_average"] = not counted
        wanted = F.avg_pool2d(image, kernel, stride, pad, ceil, counted)
    else:
        wanted = F.max_pool2d(image, kernel, stride, pad, 1, ceil)
    (pooled,) = answered(Single("avg_pool" if average else "max_pool", {"x": IMAGE}, parameters))
    np.testing.assert_allclose(pooled, wanted.numpy(), atol=1e-5)
