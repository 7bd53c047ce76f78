"""Sampling an image at computed points: resample, affine transforms and crops of boxes."""

from collections.abc import Callable

import numpy as np
from onnx import TensorProto

from flows.translation.call import Call
from serving.core.datatypes import Array

_FLOAT = TensorProto.FLOAT
_ROUNDING = 1e-5  # a point this little outside the image is one on its edge
_MODES = {"bilinear": "linear", "nearest": "nearest"}


def _resample(call: Call) -> str:
    corners, mode = call.flag("align_corners"), call.text("sampling_mode").lower()
    if mode not in _MODES:
        raise call.refused(f"samples with '{mode}', which has no ONNX counterpart")
    return call.add(
        "GridSample",
        call.tensor("x"),
        _normalised(call, corners),
        mode=_MODES[mode],
        padding_mode=_padding(call, corners),
        align_corners=int(corners),
    )


def _padding(call: Call, corners: bool) -> str:
    """ONNX reflects about pixel centres where corners are aligned and about pixel edges otherwise."""
    mode = call.text("padding_mode")
    if mode == "border":
        return "border"
    if mode == "constant" and call.number("padding_value", 0.0) == 0:
        return "zeros"
    if (mode, corners) in (("reflection", True), ("symmetric", False)):
        return "reflection"
    raise call.refused(f"pads with '{mode}' in a way that has no ONNX counterpart")


def _normalised(call: Call, corners: bool) -> str:
    """Points as ONNX wants them, from -1 to 1."""
    mode, points = call.text("coordinates_mode"), call.floats("coordinates")
    if mode == "normalized_minus_one_to_one":
        return points
    if mode == "normalized_zero_to_one":
        return call.add("Sub", call.add("Mul", points, call.graph.number(2.0)), call.graph.number(1.0))
    if mode != "unnormalized":
        raise call.refused(f"gives its points in '{mode}' coordinates, which have no ONNX counterpart")
    sizes = _width_and_height(call)
    one, two = call.graph.number(1.0), call.graph.number(2.0)
    if corners:
        span = call.add("Max", call.add("Sub", sizes, one), one)
        return call.add("Sub", call.add("Div", call.add("Mul", points, two), span), one)
    doubled = call.add("Add", call.add("Mul", points, two), one)
    return call.add("Sub", call.add("Div", doubled, sizes), one)


def _width_and_height(call: Call) -> str:
    """[W, H] of the image as float32."""
    sizes = call.add("Shape", call.tensor("x"), start=2)
    return call.cast(call.add("Gather", sizes, call.graph.ints(1, 0)), _FLOAT)


def _affine(call: Call) -> str:
    source = call.tensor("x")
    batch = call.add("Shape", source, start=0, end=1)
    matrix = call.add("Reshape", call.tensor("transform_matrix"), call.graph.ints(-1, 2, 3))
    theta = call.add("Expand", matrix, call.add("Concat", batch, call.graph.ints(1, 1), axis=0))
    channels = call.add("Shape", source, start=1, end=2)
    target = call.graph.ints(call.integer("output_height"), call.integer("output_width"))
    corners = int(call.flag("align_corners"))
    size = call.add("Concat", batch, channels, target, axis=0)
    grid = call.add("AffineGrid", theta, size, align_corners=corners)
    return call.add("GridSample", source, grid, mode="linear", padding_mode="zeros", align_corners=corners)


def _crop_resize(call: Call) -> str:
    """Each box is sampled on its own grid, from -1 at the image's first pixel to 1 at its last."""
    if not call.has("boxes"):
        raise call.refused("is the version of iOS 16 and older, with a region of rank 5")
    corners = _corners(call)
    rows = _line(call, corners[:2], call.integer("target_height", 1), (1, -1, 1))
    columns = _line(call, corners[2:], call.integer("target_width", 1), (1, 1, -1))
    shape = call.add("Shape", call.add("Add", rows, columns))
    points = [call.add("Expand", line, shape) for line in (columns, rows)]
    grid = call.add("Concat", *(call.add("Unsqueeze", one, call.graph.ints(-1)) for one in points), axis=-1)
    images = call.add("Gather", call.tensor("x"), _box_indices(call), axis=0)
    inside = call.add("GridSample", images, grid, mode="linear", padding_mode="border", align_corners=1)
    furthest = call.add("Max", *(call.add("Abs", one) for one in points))
    outside = call.add("Greater", furthest, call.graph.number(1.0 + _ROUNDING))
    beyond = call.add("Unsqueeze", outside, call.graph.ints(1))
    return call.add("Where", beyond, call.graph.number(call.number("pad_value", 0.0)), inside)


def _box_indices(call: Call) -> str:
    if call.has("box_indices"):
        return call.longs("box_indices")
    count = call.add("Squeeze", call.add("Shape", call.tensor("boxes"), start=0, end=1))
    return call.add("Range", call.graph.integer(0), count, call.graph.integer(1))


def _corners(call: Call) -> list[str]:
    """First row, last row, first column, last column of every box, each (N, 1, 1), from -1 to 1."""
    mode = call.text("box_coordinate_mode", "CORNERS_HEIGHT_FIRST")
    boxes = call.add("Mul", call.floats("boxes"), call.graph.number(call.number("spatial_scale", 1.0)))
    order = [0, 2, 1, 3] if mode.endswith("HEIGHT_FIRST") else [1, 3, 0, 2]
    parts = [call.add("Gather", boxes, call.graph.ints(at), axis=1) for at in order]
    if mode.startswith("CENTER_SIZE"):
        parts = [edge for at in (0, 2) for edge in _edges(call, parts[at], parts[at + 1])]
    result = []
    for at, part in enumerate(parts):
        size = call.cast(call.add("Shape", call.tensor("x"), start=2 + at // 2, end=3 + at // 2), _FLOAT)
        span = call.add("Max", call.add("Sub", size, call.graph.number(1.0)), call.graph.number(1.0))
        share = part if call.flag("normalized_coordinates") else call.add("Div", part, span)
        doubled = call.add("Mul", share, call.graph.number(2.0))
        result.append(
            call.add("Unsqueeze", call.add("Sub", doubled, call.graph.number(1.0)), call.graph.ints(-1))
        )
    return result


def _edges(call: Call, centre: str, size: str) -> tuple[str, str]:
    half = call.add("Mul", size, call.graph.number(0.5))
    return call.add("Sub", centre, half), call.add("Add", centre, half)


def _line(call: Call, ends: list[str], count: int, shape: tuple[int, int, int]) -> str:
    """`count` points between the two ends of each box, laid out along rows or columns by `shape`."""
    along = call.graph.constant(_shares(call, count).astype(np.float32).reshape(shape), "shares")
    return call.add("Add", ends[0], call.add("Mul", call.add("Sub", ends[1], ends[0]), along))


def _shares(call: Call, count: int) -> Array:
    """Where between a box's first and last pixel its points lie, 0 to 1."""
    mode = call.text("sampling_mode", "DEFAULT")
    if mode in ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS"):
        middle = 0.5 if mode == "ALIGN_CORNERS" else 0.0
        return np.linspace(0, 1, count) if count > 1 else np.array([middle])
    if mode == "OFFSET_CORNERS":
        return (np.arange(count) + 0.5) / count
    raise call.refused(f"samples with '{mode}', which depends on the size of each box")


TRANSLATORS: dict[str, Callable[[Call], str]] = {
    "affine": _affine,
    "crop_resize": _crop_resize,
    "resample": _resample,
}
