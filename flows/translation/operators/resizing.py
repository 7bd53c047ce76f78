"""Resizing of the last dimensions, by scale or to a size.

Each sampling mode of MIL says where the output's grid points lie in the input; the tables say which
coordinate rule of ONNX's Resize puts them there.
"""

from collections.abc import Callable

import numpy as np

from flows.translation.call import Call

_RULES = {
    "STRICT_ALIGN_CORNERS": "align_corners",
    "ALIGN_CORNERS": "align_corners",
    "DEFAULT": "asymmetric",
    "UNALIGN_CORNERS": "half_pixel",
    "OFFSET_CORNERS": "tf_crop_and_resize",
}
_WHOLE = 1e-3  # a scaled size this close to an integer was meant to be that integer


def _resize(call: Call, sizes: list[int] | str, sampling: str, *, linear: bool) -> str:
    """The last dimensions become `sizes`, an int64 vector where they are only known at run time."""
    rule, roi = _RULES[sampling], ""
    count = len(sizes) if isinstance(sizes, list) else call.integer("resized_dims")
    if sampling == "ALIGN_CORNERS" and isinstance(sizes, list) and 1 in sizes:
        # A single output point lies in the middle of the input, unlike STRICT_ALIGN_CORNERS'.
        if set(sizes) != {1}:
            raise call.refused("resizes only some dimensions to a single point with ALIGN_CORNERS")
        rule = "half_pixel"
    if rule == "tf_crop_and_resize":
        if not isinstance(sizes, list):
            raise call.refused("samples OFFSET_CORNERS to a size that is only known at run time")
        roi = _inner_region(call, sizes)
    wanted = call.graph.ints(*sizes) if isinstance(sizes, list) else sizes
    axes = list(range(call.rank("x") - count, call.rank("x")))
    return call.add("Resize", call.tensor("x"), roi, "", wanted, axes=axes, **_modes(rule, linear))


def _inner_region(call: Call, sizes: list[int]) -> str:
    """Half a step in from both ends, which is where OFFSET_CORNERS begins and ends."""
    margins = [0.5 / size for size in sizes]
    return call.graph.constant(np.array([*margins, *(1 - margin for margin in margins)], np.float32), "roi")


def _modes(rule: str, linear: bool) -> dict[str, str]:
    """Nearest takes the pixel a grid point lies in, so half-pixel points are rounded up at ties."""
    if linear:
        return {"mode": "linear", "coordinate_transformation_mode": rule}
    nearest = "floor" if rule == "asymmetric" else "round_prefer_ceil"
    return {"mode": "nearest", "coordinate_transformation_mode": rule, "nearest_mode": nearest}


def _scaled(call: Call, rule: str, *, linear: bool) -> str:
    """By factors. A size that comes out whole is given as a size, which spares the factor's rounding."""
    factors = [call.number("scale_factor_height", 1.0), call.number("scale_factor_width", 1.0)]
    known = [size for size in call.shape("x")[-2:] if size is not None]
    results = [size * factor for size, factor in zip(known, factors, strict=False)]
    fitting = len(known) == 2 and all(abs(result - round(result)) < _WHOLE for result in results)
    if fitting:
        given = ["", "", call.graph.ints(*(round(result) for result in results))]
    else:
        given = ["", call.graph.constant(np.array(factors, np.float32), "scales")]
    axes = [call.rank("x") - 2, call.rank("x") - 1]
    return call.add("Resize", call.tensor("x"), *given, axes=axes, **_modes(rule, linear))


def _upsample_nearest(call: Call) -> str:
    return _scaled(call, "asymmetric", linear=False)


def _upsample_bilinear(call: Call) -> str:
    corners = call.flag("align_corners", default=True)
    half_pixels = call.flag("half_pixel_centers", default=not corners)
    if corners and not half_pixels:
        return _scaled(call, "align_corners", linear=True)
    if corners:
        raise call.refused("both aligns corners and uses half pixel centres")
    return _scaled(call, "half_pixel" if half_pixels else "asymmetric", linear=True)


def _target(call: Call) -> list[int]:
    return [call.integer("target_size_height", 1), call.integer("target_size_width", 1)]


def _resize_nearest(call: Call) -> str:
    return _resize(call, _target(call), "DEFAULT", linear=False)


def _resize_bilinear(call: Call) -> str:
    return _resize(call, _target(call), call.text("sampling_mode", "DEFAULT"), linear=True)


def _resize_any(call: Call) -> str:
    linear = call.text("interpolation_mode", "LINEAR") == "LINEAR"
    if linear and not call.is_float("x"):
        raise call.refused("interpolates integers")
    return _resize(call, _sizes(call), call.text("sampling_mode", "DEFAULT"), linear=linear)


def _sizes(call: Call) -> list[int] | str:
    """The last `resized_dims` of the wanted shape; a 0 keeps the input's size."""
    count, rank = call.integer("resized_dims"), call.rank("x")
    kept = call.shape("x")[rank - count :]
    wanted = call.known("shape")
    if wanted is not None:
        sizes = [int(size) or own for size, own in zip(np.ravel(wanted)[-count:], kept, strict=True)]
        known = [size for size in sizes if size is not None]
        if len(known) == count:
            return known
    own = call.add("Shape", call.tensor("x"), start=rank - count)
    last = call.add("Slice", call.longs("shape"), call.graph.ints(-count), call.graph.ints(2**31 - 1))
    return call.add("Where", call.add("Equal", last, call.graph.ints(0)), own, last)


TRANSLATORS: dict[str, Callable[[Call], str]] = {
    "resize": _resize_any,
    "resize_bilinear": _resize_bilinear,
    "resize_nearest_neighbor": _resize_nearest,
    "upsample_bilinear": _upsample_bilinear,
    "upsample_nearest_neighbor": _upsample_nearest,
}
