"""Changing height and width by interpolation, of the whole or of regions.

ONNX's Resize knows most of Core ML's grids. The others are a product with a matrix of weights:
row i of the matrix for one axis holds how much each element counts at grid point i.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from flows.translation.layers.activation import scaled
from flows.translation.layers.layer import (
    Inconsistent,
    Layer,
    NoCounterpart,
    Outputs,
    choice,
    pair,
    translates,
)
from flows.translation.layers.tape import Tape, Tensor
from serving.core.datatypes import Array

_GRIDS = {"DEFAULT": "asymmetric", "ALIGN_CORNERS_TRUE": "align_corners", "ALIGN_CORNERS_FALSE": "half_pixel"}


@translates("upsample")
def upsample(tape: Tape, layer: Layer) -> Outputs:
    """By a factor for each axis; a fractional one is allowed only in bilinear mode."""
    params = layer.params
    layer.require_rank(3)
    factors = [float(one) for one in params.fractionalScalingFactor] or [*pair(params.scalingFactor, 1)]
    if len(factors) != 2 or min(factors) <= 0:
        raise Inconsistent(f"scales height and width by {factors}")
    x = tape.fold(layer.x)
    if choice(params, "mode") == "NN":
        done = _resized(tape, x, factors, mode="nearest", grid="asymmetric", nearest="floor")
    else:
        grid = _GRIDS[choice(params, "linearUpsampleMode")]
        done = _resized(tape, x, factors, mode="linear", grid=grid)
    return tape.unfold(done, layer.x)


def _resized(
    tape: Tape, x: Tensor, factors: list[float], mode: str, grid: str, nearest: str | None = None
) -> Tensor:
    """To whole sizes where they are known: the grid then spans input / output, not 1 / factor."""
    spatial = x.sizes(2)
    attributes = {"mode": mode, "coordinate_transformation_mode": grid, "nearest_mode": nearest}
    if spatial is None:
        scales = tape.constant(np.array([1, 1, *factors], np.float32))
        return tape.add("Resize", x, None, scales, **attributes)
    sizes = [int(np.floor(np.float32(size * factor))) for size, factor in zip(spatial, factors, strict=True)]
    return _to_size(tape, x, [*_checked((sizes[0], sizes[1]))], attributes)


def _checked(sizes: tuple[int, int]) -> tuple[int, int]:
    if min(sizes) < 1:
        raise Inconsistent(f"makes an image of {sizes[0]} by {sizes[1]} elements")
    return sizes


def _to_size(tape: Tape, x: Tensor, sizes: list[int], attributes: dict[str, str | None]) -> Tensor:
    done = tape.add(
        "Resize",
        x,
        None,
        None,
        tape.ints(*sizes),
        axes=[2, 3],
        keep_aspect_ratio_policy="stretch",
        **attributes,
    )
    return Tensor(done.name, (*x.shape[:2], *sizes), done.dtype)


@translates("resizeBilinear")
def bilinear(tape: Tape, layer: Layer) -> Outputs:
    layer.require_rank(3)
    sizes = [*_checked(pair(layer.params.targetSize, 1))]
    method = choice(layer.params.mode, "samplingMethod")
    x = tape.fold(layer.x)
    if method == "UPSAMPLE_MODE":
        done = _to_size(tape, x, sizes, _linear("asymmetric"))
    elif method == "STRICT_ALIGN_ENDPOINTS_MODE" or (method == "ALIGN_ENDPOINTS_MODE" and 1 not in sizes):
        done = _to_size(tape, x, sizes, _linear("align_corners"))
    else:
        done = _by_matrices(tape, x, sizes, method)
    return tape.unfold(done, layer.x)


def _linear(grid: str) -> dict[str, str | None]:
    return {"mode": "linear", "coordinate_transformation_mode": grid}


def _by_matrices(tape: Tape, x: Tensor, sizes: list[int], method: str) -> Tensor:
    spatial = x.sizes(2)
    if spatial is None:
        raise NoCounterpart(f"samples an input of open height or width in mode '{method}'")
    rows, columns = (
        tape.constant(_weights(grid_points(size, points, method), size))
        for size, points in zip(spatial, sizes, strict=True)
    )
    return tape.add("MatMul", tape.add("MatMul", rows, x), tape.transpose(columns, [1, 0]))


def grid_points(size: int, points: int, method: str) -> Array:
    """Where `points` samples lie in [0, size - 1]. Source: SamplingMode, NeuralNetwork.proto."""
    last = size - 1.0
    match method:
        case "ALIGN_ENDPOINTS_MODE" if points == 1:
            return np.array([last / 2])
        case "STRICT_ALIGN_ENDPOINTS_MODE" | "ALIGN_ENDPOINTS_MODE":
            return np.linspace(0, last, points)
        case "UPSAMPLE_MODE":
            return np.minimum(last, np.linspace(0, size - size / points, points))
    spacing = max(1.0, last) / points
    start = 0.5 * spacing
    return np.minimum(last, np.linspace(start, start + (points - 1) * spacing, points))


def _weights(grid: Array, size: int) -> Array:
    """(points, size) float32: linear interpolation gives an element 1 minus its distance, or 0."""
    return np.asarray(np.maximum(0, 1 - np.abs(grid[:, None] - np.arange(size))), np.float32)


@dataclass(frozen=True, slots=True)
class _Span:
    """Where the regions begin and end on one axis, each of shape (regions, 1)."""

    start: Tensor
    end: Tensor
    size: int
    points: int


@translates("cropResize")
def regions(tape: Tape, layer: Layer) -> Outputs:
    """Images (1, B, C, H, W) and boxes (N, 1, 4 or 5, 1, 1) give (N, B or 1, C, height, width)."""
    params = layer.params
    image, boxes = layer.require(2)[:2]
    sizes, targets = image.sizes(3), _checked(pair(params.targetSize, 1))
    if image.rank != 5 or image.shape[0] != 1 or boxes.rank != 5 or boxes.shape[2] not in (4, 5):
        raise Inconsistent(f"takes boxes of shape {list(boxes.shape)} out of {list(image.shape)}")
    if sizes is None:
        raise NoCounterpart("crops out of an input of open height or width")
    chosen = boxes.shape[2] == 5
    flat = tape.squeeze(boxes, 1, 3, 4)
    rows, columns = (
        _region_weights(tape, span, choice(params.mode, "samplingMethod"))
        for span in _spans(tape, params, flat, sizes, targets)
    )
    if chosen:
        first = tape.add("Slice", flat, tape.ints(0), tape.ints(1), tape.ints(1))
        places = tape.integers(tape.squeeze(first, 1))
        source = tape.unsqueeze(tape.add("Gather", tape.squeeze(image, 0), places, axis=0), 1)
    else:
        source = image
    rows, columns = tape.unsqueeze(rows, 1, 2), tape.unsqueeze(tape.transpose(columns, [0, 2, 1]), 1, 2)
    return tape.add("MatMul", tape.add("MatMul", rows, source), columns)


def _spans(
    tape: Tape, params: Any, boxes: Tensor, sizes: tuple[int, ...], targets: tuple[int, int]
) -> tuple[_Span, _Span]:
    """Height's and width's, in elements."""
    mode = choice(params.boxIndicesMode, "boxMode")
    offset = 1 if boxes.shape[1] == 5 else 0
    numbers = [
        tape.add("Slice", boxes, tape.ints(at), tape.ints(at + 1), tape.ints(1))
        for at in range(offset, offset + 4)
    ]
    if "WIDTH_FIRST" in mode:
        numbers = [numbers[1], numbers[0], numbers[3], numbers[2]]
    spans = []
    for axis, size in enumerate(sizes):
        first, second = numbers[axis], numbers[axis + 2]
        if mode.startswith("CENTER_SIZE"):
            half = scaled(tape, second, 0.5)
            first, second = tape.add("Sub", first, half), tape.add("Add", first, half)
        factor = params.spatialScale or 1.0
        if params.normalizedCoordinates:
            factor *= size - 1
        ends = (scaled(tape, first, factor), scaled(tape, second, factor))
        spans.append(_Span(*ends, size, targets[axis]))
    return spans[0], spans[1]


def _region_weights(tape: Tape, span: _Span, method: str) -> Tensor:
    """(regions, points, size): as `_weights`, for grids that depend on the boxes."""
    grid = _region_grid(tape, span, method)
    inside = tape.add("Clip", grid, tape.number(0), tape.number(span.size - 1))
    elements = tape.constant(np.arange(span.size, dtype=np.float32))
    distance = tape.add("Abs", tape.add("Sub", tape.unsqueeze(inside, 2), elements))
    return tape.add("Relu", tape.add("Sub", tape.number(1), distance))


def _region_grid(tape: Tape, span: _Span, method: str) -> Tensor:
    """(regions, points): `grid_points` with a box's ends in the place of 0 and size - 1."""
    length = tape.add("Sub", span.end, span.start)
    points = span.points
    match method:
        case "ALIGN_ENDPOINTS_MODE" if points == 1:
            shares = np.array([0.5])
        case "STRICT_ALIGN_ENDPOINTS_MODE" | "ALIGN_ENDPOINTS_MODE":
            shares = np.linspace(0, 1, points)
        case "UPSAMPLE_MODE":
            shares = np.arange(points) / points
            length = scaled(tape, length, 1.0, 1.0)
        case _:
            shares = (np.arange(points) + 0.5) / points
            length = tape.add("Max", length, tape.number(1))
    steps = tape.constant(shares.astype(np.float32)[None])
    return tape.add("Add", span.start, tape.add("Mul", length, steps))
