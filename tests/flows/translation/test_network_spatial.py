"""Layers over height and width, built one by one, against torch and against Core ML's own formulas."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from serving.core.datatypes import Array
from tests.flows.translation.network_models import built

_RNG = np.random.default_rng(5)
_X = _RNG.standard_normal((2, 4, 9, 8)).astype(np.float32)
_TOLERANCE = 1e-5


def _answer(add: Callable[[Any], None], x: Array = _X) -> Array:
    return built(add, {"x": x.shape}).run(x=x)[0]


def _torch(x: Array) -> torch.Tensor:
    return torch.from_numpy(np.array(x))


def _weights(*shape: int) -> Array:
    return _RNG.standard_normal(shape).astype(np.float32)


def _convolve(border: str, mode: str = "BOTTOM_RIGHT_HEAVY", **options: Any) -> tuple[Array, Array, Array]:
    """The answer, the kernel as torch wants it, and the bias."""
    size = options.pop("size", (3, 4))
    groups = options.pop("groups", 1)
    kernel, bias = _weights(6, 4 // groups, *size), _weights(6)
    answer = _answer(
        lambda builder: builder.add_convolution(
            name="c",
            kernel_channels=4 // groups,
            output_channels=6,
            height=size[0],
            width=size[1],
            border_mode=border,
            same_padding_asymmetry_mode=mode,
            groups=groups,
            W=kernel.transpose(2, 3, 1, 0),
            b=bias,
            has_bias=True,
            input_name="x",
            output_name="y",
            **({"stride_height": 1, "stride_width": 1} | options),
        )
    )
    return answer, kernel, bias


@pytest.mark.parametrize("mode", ["BOTTOM_RIGHT_HEAVY", "TOP_LEFT_HEAVY"])
@pytest.mark.parametrize("strides", [(1, 1), (2, 3)])
def test_convolution_keeps_size_when_padding_is_same(mode: str, strides: tuple[int, int]) -> None:
    """Output sizes are those of ceil(input / stride), and an odd padding's rest lies where the mode says."""
    answer, kernel, bias = _convolve("same", mode, stride_height=strides[0], stride_width=strides[1])
    pads = []
    for size, stride, reach in zip((9, 8), strides, (3, 4), strict=True):
        total = max(0, (-(-size // stride) - 1) * stride + reach - size)
        small, large = total // 2, total - total // 2
        pads.append((small, large) if mode == "BOTTOM_RIGHT_HEAVY" else (large, small))
    padded = functional.pad(_torch(_X), (*pads[1], *pads[0]))
    expected = functional.conv2d(padded, _torch(kernel), _torch(bias), stride=strides).numpy()
    assert expected.shape[2:] == (-(-9 // strides[0]), -(-8 // strides[1]))
    np.testing.assert_allclose(answer, expected, atol=_TOLERANCE)


def test_convolution_follows_every_number_when_valid() -> None:
    """Uneven padding, strides, dilation and groups together."""
    answer, kernel, bias = _convolve(
        "valid",
        groups=2,
        dilation_factors=[2, 1],
        stride_width=2,
        padding_top=1,
        padding_bottom=2,
        padding_left=0,
        padding_right=3,
    )
    padded = functional.pad(_torch(_X), (0, 3, 1, 2))
    expected = functional.conv2d(padded, _torch(kernel), _torch(bias), (1, 2), dilation=(2, 1), groups=2)
    np.testing.assert_allclose(answer, expected.numpy(), atol=_TOLERANCE)


def _deconvolve(border: str, shape: tuple[int, int] | None = None, **pads: int) -> tuple[Array, Array]:
    """The answer, and the whole uncropped deconvolution."""
    kernel = _weights(4, 3, 3, 3)
    answer = _answer(
        lambda builder: builder.add_convolution(
            name="c",
            kernel_channels=4,
            output_channels=3,
            height=3,
            width=3,
            stride_height=2,
            stride_width=2,
            border_mode=border,
            groups=1,
            W=kernel.transpose(2, 3, 0, 1),
            b=None,
            has_bias=False,
            is_deconv=True,
            output_shape=shape,
            input_name="x",
            output_name="y",
            **pads,
        )
    )
    return answer, functional.conv_transpose2d(_torch(_X), _torch(kernel), stride=2).numpy()


def test_deconvolution_crops_when_padding_is_valid() -> None:
    """Amounts of padding are cut off the result."""
    answer, whole = _deconvolve("valid", padding_top=1, padding_right=1)
    np.testing.assert_allclose(answer, whole[:, :, 1:, :-1], atol=_TOLERANCE)


def test_deconvolution_multiplies_size_when_padding_is_same() -> None:
    """The output is stride times the input, cut at the far end."""
    answer, whole = _deconvolve("same")
    assert answer.shape == (2, 3, 18, 16)
    np.testing.assert_allclose(answer, whole[:, :, :18, :16], atol=_TOLERANCE)


@pytest.mark.parametrize(("shape", "kept"), [((17, 15), slice(1, None)), ((18, 16), slice(0, None))])
def test_deconvolution_reaches_a_shape_when_one_is_given(shape: tuple[int, int], kept: slice) -> None:
    """What is too much is cut in halves, the smaller one first."""
    answer, whole = _deconvolve("valid", shape)
    np.testing.assert_allclose(answer, whole[:, :, kept, kept][:, :, : shape[0], : shape[1]], atol=_TOLERANCE)


def _pool(kind: str, padding: str, exclude: bool = True, **options: Any) -> Array:
    given = {"height": 3, "width": 2, "stride_height": 2, "stride_width": 3} | options
    return _answer(
        lambda builder: builder.add_pooling(
            name="p",
            layer_type=kind,
            padding_type=padding,
            exclude_pad_area=exclude,
            input_name="x",
            output_name="y",
            **given,
        )
    )


def _windows(x: Array, pads: list[tuple[int, int]], fill: float) -> Array:
    """(..., rows, columns, 3, 2) windows in steps of (2, 3) over the padded input."""
    padded = np.pad(x, [(0, 0), (0, 0), *pads], constant_values=fill)
    return np.lib.stride_tricks.sliding_window_view(padded, (3, 2), axis=(2, 3))[:, :, ::2, ::3]


_PADS = {"VALID": [(1, 0), (0, 1)], "SAME": [(1, 1), (0, 0)]}


@pytest.mark.parametrize("padding", ["VALID", "SAME"])
def test_pooling_reduces_windows_when_padded(padding: str) -> None:
    """Maximum, L2, and averages that count the padding or do not."""
    edges: dict[str, Any] = {"padding_top": 1, "padding_right": 1} if padding == "VALID" else {}
    pads = _PADS[padding]
    inside = _windows(np.ones_like(_X), pads, 0).sum(axis=(-1, -2))
    zeros = _windows(_X, pads, 0)
    lowest = _windows(_X, pads, -np.inf)
    expected = {
        ("MAX", True): lowest.max(axis=(-1, -2)),
        ("AVERAGE", False): zeros.mean(axis=(-1, -2)),
        ("AVERAGE", True): zeros.sum(axis=(-1, -2)) / inside,
        ("L2", True): np.sqrt((zeros**2).sum(axis=(-1, -2))),
    }
    for (kind, exclude), wanted in expected.items():
        np.testing.assert_allclose(_pool(kind, padding, exclude, **edges), wanted, atol=_TOLERANCE)


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("exclude", [False, True])
def test_pooling_includes_last_pixel_when_asked(padding: int, exclude: bool) -> None:
    """As torch's ceil mode, whose rule for the last window and whose counts are Caffe's."""
    options: dict[str, Any] = {"height": 3, "width": 3, "stride_height": 2, "stride_width": 2}
    sides = ("top", "bottom", "left", "right")
    options |= {f"padding_{side}": padding for side in sides}
    average = _pool("AVERAGE", "INCLUDE_LAST_PIXEL", exclude, **options)
    expected = functional.avg_pool2d(_torch(_X), 3, 2, padding, ceil_mode=True, count_include_pad=not exclude)
    np.testing.assert_allclose(average, expected.numpy(), atol=_TOLERANCE)
    highest = _pool("MAX", "INCLUDE_LAST_PIXEL", **options)
    expected = functional.max_pool2d(_torch(_X), 3, 2, padding, ceil_mode=True)
    np.testing.assert_allclose(highest, expected.numpy(), atol=_TOLERANCE)


@pytest.mark.parametrize("kind", ["MAX", "AVERAGE", "L2"])
def test_pooling_leaves_one_pixel_when_global(kind: str) -> None:
    """The kernel is the whole image, whatever is stored."""
    answer = _pool(kind, "VALID", is_global=True)
    expected = {
        "MAX": _X.max((2, 3), keepdims=True),
        "AVERAGE": _X.mean((2, 3), keepdims=True),
        "L2": np.sqrt((_X**2).sum((2, 3), keepdims=True)),
    }
    np.testing.assert_allclose(answer, expected[kind], atol=_TOLERANCE)


@pytest.mark.parametrize("mode", ["CUSTOM", "VALID", "SAME"])
def test_pooling_of_volumes_follows_its_mode_when_averaging(mode: str) -> None:
    """Three axes, with padding that does not count."""
    x = _weights(1, 2, 4, 5, 6)
    answer = _answer(
        lambda builder: builder.add_pooling3d(
            "p", "x", "y", "AVERAGE", 2, 2, 3, 2, 2, 3, mode, 1, 0, 0, 1, 0, 0, True
        ),
        x,
    )
    pads = {"CUSTOM": (0, 0, 0, 1, 1, 0), "VALID": (0,) * 6, "SAME": (0, 0, 0, 1, 0, 0)}[mode]
    total = functional.avg_pool3d(functional.pad(_torch(x), pads), (2, 2, 3), (2, 2, 3))
    counted = functional.avg_pool3d(functional.pad(torch.ones(x.shape), pads), (2, 2, 3), (2, 2, 3))
    np.testing.assert_allclose(answer, (total / counted).numpy(), atol=_TOLERANCE)


@pytest.mark.parametrize("kind", ["MAX", "AVERAGE"])
def test_pooling_of_volumes_leaves_one_voxel_when_global(kind: str) -> None:
    """Three axes become 1."""
    x = _weights(1, 2, 4, 5, 6)
    answer = _answer(lambda builder: builder.add_global_pooling3d("p", "x", "y", kind), x)
    expected = x.max((2, 3, 4)) if kind == "MAX" else x.mean((2, 3, 4))
    np.testing.assert_allclose(answer.reshape(1, 2), expected, atol=_TOLERANCE)


@pytest.mark.parametrize(
    ("kind", "mode"), [("constant", "constant"), ("reflection", "reflect"), ("replication", "replicate")]
)
def test_padding_fills_the_border_when_of_each_kind(kind: str, mode: str) -> None:
    """Left, right, top and bottom each have their own amount."""
    answer = _answer(
        lambda builder: builder.add_padding(
            "p",
            left=1,
            right=2,
            top=3,
            bottom=0,
            value=0.5,
            input_name="x",
            output_name="y",
            padding_type=kind,
        )
    )
    value = 0.5 if kind == "constant" else None
    expected = functional.pad(_torch(_X), (1, 2, 3, 0), mode, value).numpy()
    np.testing.assert_array_equal(answer, expected)


def test_crop_cuts_edges_when_of_one_input() -> None:
    """Amounts of 0 cut nothing."""
    answer = _answer(lambda builder: builder.add_crop("c", 1, 0, 2, 3, None, ["x"], "y"))
    np.testing.assert_array_equal(answer, _X[:, :, 2:-3, 1:])


def test_crop_takes_a_reference_size_when_of_two_inputs() -> None:
    """The second input gives the size, the offset where it starts."""
    reference = np.zeros((2, 4, 5, 3), np.float32)
    network = built(
        lambda builder: builder.add_crop("c", 0, 0, 0, 0, [1, 2], ["x", "r"], "y"),
        {"x": _X.shape, "r": reference.shape},
    )
    np.testing.assert_array_equal(network.run(x=_X, r=reference)[0], _X[:, :, 1:6, 2:5])


def _interpolated(x: Array, axis: int, grid: Array) -> Array:
    """Linear interpolation at the given places of one axis."""
    low = np.clip(np.floor(grid).astype(int), 0, x.shape[axis] - 1)
    high = np.minimum(low + 1, x.shape[axis] - 1)
    share = (grid - low).reshape([-1 if at == axis % x.ndim else 1 for at in range(x.ndim)])
    return np.asarray(np.take(x, low, axis) * (1 - share) + np.take(x, high, axis) * share)


def _grid(size: int, points: int, mode: str) -> Array:
    """As the specification words it."""
    last = size - 1
    if mode == "ALIGN_ENDPOINTS_MODE" and points == 1:
        return np.array([last / 2])
    if mode in ("STRICT_ALIGN_ENDPOINTS_MODE", "ALIGN_ENDPOINTS_MODE"):
        return np.linspace(0, last, points)
    if mode == "UPSAMPLE_MODE":
        return np.minimum(last, np.linspace(0, size - size / points, points))
    spacing = max(1, last) / points
    return np.minimum(last, np.linspace(spacing / 2, spacing / 2 + (points - 1) * spacing, points))


_MODES = ["STRICT_ALIGN_ENDPOINTS_MODE", "ALIGN_ENDPOINTS_MODE", "UPSAMPLE_MODE", "ROI_ALIGN_MODE"]


@pytest.mark.parametrize("mode", _MODES)
@pytest.mark.parametrize("sizes", [(13, 5), (1, 16), (3, 1)])
def test_resize_samples_its_grid_when_in_each_mode(mode: str, sizes: tuple[int, int]) -> None:
    """Larger, smaller, and single points."""
    answer = _answer(lambda builder: builder.add_resize_bilinear("r", "x", "y", *sizes, mode))
    rows = _interpolated(_X, 2, _grid(9, sizes[0], mode))
    np.testing.assert_allclose(answer, _interpolated(rows, 3, _grid(8, sizes[1], mode)), atol=_TOLERANCE)


@pytest.mark.parametrize("linear", ["DEFAULT", "ALIGN_CORNERS_TRUE", "ALIGN_CORNERS_FALSE"])
def test_upsample_samples_its_grid_when_bilinear(linear: str) -> None:
    """The three grids of the specification."""
    answer = _answer(lambda builder: builder.add_upsample("u", 2, 3, "x", "y", "BILINEAR", linear))
    result = _X
    for axis, factor in ((2, 2), (3, 3)):
        size = _X.shape[axis]
        points = size * factor
        steps = np.arange(points)
        places = {
            "DEFAULT": steps * size / points,
            "ALIGN_CORNERS_TRUE": steps * (size - 1) / (points - 1),
            "ALIGN_CORNERS_FALSE": (steps + 0.5) * size / points - 0.5,
        }[linear]
        result = _interpolated(result, axis, np.clip(places, 0, size - 1))
    np.testing.assert_allclose(answer, result, atol=_TOLERANCE)


def test_upsample_repeats_pixels_when_nearest() -> None:
    """Whole factors, different for height and width."""
    answer = _answer(lambda builder: builder.add_upsample("u", 2, 3, "x", "y", "NN"))
    np.testing.assert_array_equal(answer, _X.repeat(2, 2).repeat(3, 3))


@pytest.mark.parametrize("mode", _MODES)
@pytest.mark.parametrize("boxes", ["CORNERS_HEIGHT_FIRST", "CENTER_SIZE_WIDTH_FIRST"])
def test_crop_resize_samples_regions_when_boxes_choose_their_image(mode: str, boxes: str) -> None:
    """Each box names its image, and its corners in one of the orders."""
    x = _weights(1, 2, 3, 9, 8)
    corners = np.array([[0, 1.0, 2.0, 6.0, 5.0], [1, 0.5, 0.0, 4.5, 7.0]], np.float32)
    given = corners.copy()
    if boxes == "CENTER_SIZE_WIDTH_FIRST":
        top, left, bottom, right = corners[:, 1:].T
        given[:, 1:] = np.stack([(left + right) / 2, (top + bottom) / 2, right - left, bottom - top], 1)
    network = built(
        lambda builder: builder.add_crop_resize("c", ["x", "b"], "y", 4, 3, mode, False, boxes, 1.0),
        {"x": x.shape, "b": (2, 1, 5, 1, 1)},
    )
    answer = network.run(x=x, b=given.reshape(2, 1, 5, 1, 1))[0]
    for place, (image, top, left, bottom, right) in enumerate(corners):
        rows = _interpolated(x[0, int(image)], 1, _region(top, bottom, 4, mode, 8))
        expected = _interpolated(rows, 2, _region(left, right, 3, mode, 7))
        np.testing.assert_allclose(answer[place, 0], expected, atol=_TOLERANCE)


def _region(start: float, end: float, points: int, mode: str, last: int) -> Array:
    length = end - start
    if mode == "UPSAMPLE_MODE":
        places = start + np.arange(points) * (length + 1) / points
    elif mode == "ROI_ALIGN_MODE":
        places = start + (np.arange(points) + 0.5) * max(1, length) / points
    else:
        places = np.linspace(start, end, points)
    return np.clip(places, 0, last)


def test_crop_resize_takes_every_image_when_boxes_name_none() -> None:
    """Boxes of four shares of the image apply to the whole batch."""
    x = _weights(1, 2, 3, 9, 8)
    network = built(
        lambda builder: builder.add_crop_resize("c", ["x", "b"], "y", 5, 4, _MODES[0], True),
        {"x": x.shape, "b": (1, 1, 4, 1, 1)},
    )
    answer = network.run(x=x, b=np.array([0, 0, 1, 1], np.float32).reshape(1, 1, 4, 1, 1))[0]
    expected = _interpolated(_interpolated(x[0], 2, np.linspace(0, 8, 5)), 3, np.linspace(0, 7, 4))
    np.testing.assert_allclose(answer[0], expected, atol=_TOLERANCE)


@pytest.mark.parametrize("mode", ["SPACE_TO_DEPTH", "DEPTH_TO_SPACE", "PIXEL_SHUFFLE"])
def test_blocks_move_between_axes_when_reorganised(mode: str) -> None:
    """A block's place comes before the channel, except in a pixel shuffle."""
    x = _weights(1, 8, 4, 6)
    answer = _answer(lambda builder: builder.add_reorganize_data("r", "x", "y", mode, 2), x)
    if mode == "SPACE_TO_DEPTH":
        expected = x.reshape(1, 8, 2, 2, 3, 2).transpose(0, 3, 5, 1, 2, 4).reshape(1, 32, 2, 3)
    elif mode == "DEPTH_TO_SPACE":
        expected = x.reshape(1, 2, 2, 2, 4, 6).transpose(0, 3, 4, 1, 5, 2).reshape(1, 2, 8, 12)
    else:
        expected = functional.pixel_shuffle(_torch(x), 2).numpy()
    np.testing.assert_array_equal(answer, expected)
