"""Convolutions, pools and resizing with the options that torch models are seldom converted to."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from serving.core.datatypes import Array
from tests.flows.translation.programs import Single, answered, expected, floats, whole

_RANDOM = np.random.default_rng(8)


def _noise(*shape: int) -> Array:
    return _RANDOM.normal(size=shape).astype(np.float32)


def _torch(function: Any, *arrays: Array, **parameters: Any) -> Array:
    result: Array = function(*(torch.from_numpy(np.asarray(one)) for one in arrays), **parameters).numpy()
    return result


def _same(size: int, kernel: int, stride: int, dilation: int = 1, lower: bool = False) -> tuple[int, int]:
    """TensorFlow's SAME padding: as many windows as strides fit, the odd element at the end."""
    total = max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    halves = (total // 2, total - total // 2)
    return halves[::-1] if lower else halves


IMAGE, KERNEL = _noise(1, 4, 7, 10), _noise(6, 4, 3, 2)


def _conv(x: Array, weight: Array, pad_type: str, **rest: Any) -> Array:
    strides, dilations = rest.get("strides", [1, 1]), rest.get("dilations", [1, 1])
    if pad_type == "custom":
        (top, bottom, left, right) = rest["pad"]
    elif pad_type == "valid":
        top, bottom, left, right = 0, 0, 0, 0
    else:
        pairs = [
            _same(size, kernel, stride, dilation, pad_type == "same_lower")
            for size, kernel, stride, dilation in zip(
                x.shape[2:], weight.shape[2:], strides, dilations, strict=True
            )
        ]
        (top, bottom), (left, right) = pairs
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    return _torch(F.conv2d, padded, weight, stride=strides, dilation=dilations, groups=rest.get("groups", 1))


def _transposed(x: Array, weight: Array, pad_type: str, **rest: Any) -> Array:
    """The full result, cut to the wanted size with the odd element at the end."""
    strides = rest["strides"]
    full = _torch(F.conv_transpose2d, x, weight, stride=strides)
    wanted = rest.get("output_shape", [0, 0, *(n * s for n, s in zip(x.shape[2:], strides, strict=True))])[2:]
    if pad_type == "custom":
        top, _, left, _ = rest["pad"]
        starts = [top, left]
        longer = [
            max(start + want - size, 0)
            for start, want, size in zip(starts, wanted, full.shape[2:], strict=True)
        ]
        full = np.pad(full, ((0, 0), (0, 0), (0, longer[0]), (0, longer[1])))
    else:
        starts = [max(size - want, 0) // 2 for size, want in zip(full.shape[2:], wanted, strict=True)]
        missing = [max(want - size, 0) for size, want in zip(full.shape[2:], wanted, strict=True)]
        full = np.pad(full, ((0, 0), (0, 0), (0, missing[0]), (0, missing[1])))
    rows, columns = (slice(start, start + want) for start, want in zip(starts, wanted, strict=True))
    return full[:, :, rows, columns]


CONVOLUTIONS = [
    Single("conv", {"x": IMAGE}, {"weight": KERNEL, "pad_type": kind, "strides": [2, 3]}, 16, _conv, kind)
    for kind in ("same", "same_lower", "valid")
]
CONVOLUTIONS += [
    Single(
        "conv",
        {"x": IMAGE},
        {"weight": KERNEL, "pad_type": "same", "dilations": [2, 1]},
        15,
        _conv,
        "dilated same",
    ),
    Single(
        "conv",
        {"x": IMAGE},
        {"weight": KERNEL, "pad_type": "custom", "pad": [0, 2, 1, 0]},
        15,
        _conv,
        "one-sided",
    ),
    Single("conv", {"x": IMAGE, "weight": KERNEL}, {"pad_type": "valid"}, 15, _conv, "weight at run time"),
    *(
        Single(
            "conv_transpose",
            {"x": IMAGE},
            {"weight": _noise(4, 3, 3, 2), "pad_type": "same", "strides": strides},
            expected=_transposed,
            note=f"same {strides}",
        )
        for strides in ([2, 2], [1, 1], [3, 2])
    ),
    Single(
        "conv_transpose",
        {"x": IMAGE},
        {
            "weight": _noise(4, 3, 3, 2),
            "pad_type": "custom",
            "pad": [1, 1, 0, 0],
            "strides": [2, 3],
            "output_shape": [1, 3, 14, 30],
        },
        expected=_transposed,
        note="to an output shape",
    ),
]


def _pooled(x: Array, pad_type: str, function: Any, fill: float, **rest: Any) -> Array:
    kernels, strides = rest["kernel_sizes"], rest["strides"]
    pairs = [
        _same(size, kernel, stride, 1, pad_type == "same_lower")
        for size, kernel, stride in zip(x.shape[2:], kernels, strides, strict=True)
    ]
    padded = np.pad(x, ((0, 0), (0, 0), *pairs), constant_values=fill)
    return _torch(function, padded, kernel_size=kernels, stride=strides)


def _max_pool(x: Array, pad_type: str, **rest: Any) -> Array:
    return _pooled(x, pad_type, F.max_pool2d, -np.inf, **rest)


def _avg_pool(x: Array, pad_type: str, exclude_padding_from_average: bool, **rest: Any) -> Array:
    sums = _pooled(x, pad_type, F.avg_pool2d, 0, **rest)
    return (
        sums / _pooled(np.ones_like(x), pad_type, F.avg_pool2d, 0, **rest)
        if exclude_padding_from_average
        else sums
    )


def _l2_pool(x: Array, pad_type: str, **rest: Any) -> Array:
    mean = _pooled(x**2, pad_type, F.avg_pool2d, 0, **rest)
    root: Array = np.sqrt(mean * np.prod(rest["kernel_sizes"]))
    return root


_WINDOW = {"kernel_sizes": [3, 2], "strides": [2, 3]}
POOLS = [
    *(
        Single("max_pool", {"x": IMAGE}, {**_WINDOW, "pad_type": kind}, 16, _max_pool, kind)
        for kind in ("same", "same_lower")
    ),
    *(
        Single(
            "avg_pool",
            {"x": IMAGE},
            {**_WINDOW, "pad_type": kind, "exclude_padding_from_average": excluded},
            16,
            _avg_pool,
            f"{kind} {'without' if excluded else 'with'} padding",
        )
        for kind in ("same", "same_lower")
        for excluded in (True, False)
    ),
    Single("l2_pool", {"x": IMAGE}, {**_WINDOW, "pad_type": "same"}, 15, _l2_pool),
]


def _grid(mode: str, size: int, wanted: int) -> Array:
    """Where MIL's documentation puts each output point in an input of that size."""
    at = np.arange(wanted)
    if mode in ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS"):
        middle = (size - 1) / 2 if mode == "ALIGN_CORNERS" else 0.0
        points = at * (size - 1) / (wanted - 1) if wanted > 1 else np.array([middle])
    elif mode == "DEFAULT":
        points = at * size / wanted
    elif mode == "OFFSET_CORNERS":
        points = (at + 0.5) * max(1, size - 1) / wanted
    else:
        points = at * size / wanted + 0.5 * size / wanted - 0.5
    limited: Array = np.clip(points, 0, size - 1)
    return limited


def _along(x: Array, points: Array, axis: int) -> Array:
    low = np.floor(points).astype(int)
    high = np.minimum(low + 1, x.shape[axis] - 1)
    share = (points - low).reshape([-1 if at == axis else 1 for at in range(x.ndim)])
    mixed: Array = np.take(x, low, axis) * (1 - share) + np.take(x, high, axis) * share
    return mixed


def _bilinear(x: Array, target_size_height: int, target_size_width: int, sampling_mode: str) -> Array:
    rows = _along(x, _grid(sampling_mode, x.shape[-2], target_size_height), x.ndim - 2)
    return _along(rows, _grid(sampling_mode, x.shape[-1], target_size_width), x.ndim - 1)


_MODES = ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS", "DEFAULT", "OFFSET_CORNERS", "UNALIGN_CORNERS")


def _resized(mode: str, height: int, width: int, note: str, x: Array = IMAGE) -> Single:
    sizes = {"target_size_height": height, "target_size_width": width, "sampling_mode": mode}
    return Single("resize_bilinear", {"x": x}, sizes, expected=_bilinear, note=f"{mode} {note}")


def _any_resize(x: Array, shape: Any, sampling_mode: str, **_: Any) -> Array:
    height, width = (want or own for want, own in zip(shape[-2:], x.shape[-2:], strict=True))
    return _bilinear(x, int(height), int(width), sampling_mode)


RESIZES = [
    *(_resized(mode, 9, 6, "larger and smaller") for mode in _MODES),
    *(_resized(mode, 1, 1, "to a point") for mode in _MODES),
    _resized("UNALIGN_CORNERS", 5, 20, "rank 3", IMAGE[0]),
    Single(
        "resize_nearest_neighbor",
        {"x": IMAGE},
        {"target_size_height": 5, "target_size_width": 13},
        expected=lambda x, **_: _torch(F.interpolate, x, size=(5, 13), mode="nearest"),
    ),
    Single(
        "upsample_bilinear",
        {"x": IMAGE},
        {
            "scale_factor_height": 2.0,
            "scale_factor_width": 1.5,
            "align_corners": False,
            "half_pixel_centers": False,
        },
        16,
        lambda x, **_: _bilinear(x, 14, 15, "DEFAULT"),
        "neither corners nor centres",
    ),
    *(
        Single(
            "resize",
            {"x": IMAGE, **({} if fixed else {"shape": whole([9, 0])})},
            {
                **({"shape": whole([9, 0])} if fixed else {}),
                "resized_dims": np.uint32(2),
                "sampling_mode": "UNALIGN_CORNERS",
            },
            17,
            _any_resize,
            "fixed" if fixed else "at run time",
        )
        for fixed in (True, False)
    ),
    Single(
        "resize",
        {"x": IMAGE},
        {
            "shape": whole([9, 5]),
            "resized_dims": np.uint32(2),
            "interpolation_mode": "NEAREST_NEIGHBOR",
            "sampling_mode": "UNALIGN_CORNERS",
        },
        17,
        lambda x, **_: _torch(F.interpolate, x, size=(9, 5), mode="nearest-exact"),
        "nearest",
    ),
]


def _boxed(x: Array, boxes: Array, box_indices: Any, pad_value: float, **_: Any) -> Array:
    """Corner-aligned crops of 3 by 2 points; points outside the image have the padding's value."""
    crops = []
    for (top, left, bottom, right), image in zip(boxes, box_indices, strict=True):
        rows, columns = np.linspace(top, bottom, 3), np.linspace(left, right, 2)
        inside = _along(_along(x[image], np.clip(rows, 0, 6), 1), np.clip(columns, 0, 9), 2)
        outside = ((rows < 0) | (rows > 6))[:, None] | ((columns < 0) | (columns > 9))[None]
        crops.append(np.where(outside, pad_value, inside))
    return np.stack(crops)


def _sampled(x: Array, coordinates: Array, mode: str, corners: bool, padding: str) -> Array:
    return _torch(F.grid_sample, x, coordinates, mode=mode, align_corners=corners, padding_mode=padding)


_POINTS = (_noise(1, 3, 5, 2) * 0.8).astype(np.float32)
_SPAN = floats([10, 7])


def _resampled(coordinates: str, corners: bool, points: Array, note: str) -> Single:
    parameters = {
        "sampling_mode": "bilinear",
        "padding_mode": "constant",
        "padding_value": 0.0,
        "coordinates_mode": coordinates,
        "align_corners": corners,
    }
    return Single(
        "resample",
        {"x": IMAGE, "coordinates": points},
        parameters,
        16,
        lambda x, **_: _sampled(x, _POINTS, "bilinear", corners, "zeros"),
        note,
    )


SAMPLES = [
    _resampled("normalized_minus_one_to_one", True, _POINTS, "-1 to 1"),
    _resampled("normalized_zero_to_one", False, (_POINTS + 1) / 2, "0 to 1"),
    _resampled("unnormalized", True, (_POINTS + 1) / 2 * (_SPAN - 1), "pixels, corners"),
    _resampled("unnormalized", False, ((_POINTS + 1) * _SPAN - 1) / 2, "pixels, edges"),
    Single(
        "crop_resize",
        {"x": _noise(2, 4, 7, 10), "boxes": floats([[1, 2, 4, 8.5], [-2, 0, 6, 9], [0, 3, 5.5, 12]])},
        {
            "box_indices": whole([1, 0, 1]),
            "target_height": 3,
            "target_width": 2,
            "sampling_mode": "ALIGN_CORNERS",
            "pad_value": 0.5,
        },
        17,
        _boxed,
    ),
]
CASES = [*CONVOLUTIONS, *POOLS, *RESIZES, *SAMPLES]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_window_operator_answers_like_its_definition_when_translated(case: Single) -> None:
    """The output has the shape and, within 1e-5, the values of the operator's definition."""
    (wanted,), (given,) = expected(case), answered(case)
    assert given.shape == wanted.shape
    assert float(np.abs(given - wanted).max()) <= 1e-5 * max(1.0, float(np.abs(wanted).max()))


def _ceil(x: Tensor, kernel: int, stride: int, pad: int, counted: bool) -> Tensor:
    return F.avg_pool2d(x, kernel, stride, pad, ceil_mode=True, count_include_pad=counted)


@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize(("kernel", "stride", "pad"), [(3, 2, 1), (2, 2, 0), (3, 3, 1), (4, 3, 2)])
def test_average_counts_like_torch_when_the_last_window_is_cut(
    kernel: int, stride: int, pad: int, counted: bool
) -> None:
    """In ceil mode the declared padding counts where asked, and what lies beyond it never does."""
    case = Single(
        "avg_pool",
        {"x": IMAGE},
        {
            "kernel_sizes": [kernel, kernel],
            "strides": [stride, stride],
            "pad_type": "custom",
            "pad": [pad] * 4,
            "exclude_padding_from_average": not counted,
            "ceil_mode": True,
        },
    )
    (given,) = answered(case)
    wanted = _ceil(torch.from_numpy(IMAGE), kernel, stride, pad, counted).numpy()
    assert given.shape == wanted.shape
    assert float(np.abs(given - wanted).max()) <= 1e-5
