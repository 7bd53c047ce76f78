"""Tensors made from nothing but a shape, and shapes filled up: fill, range, pad, bands."""

from collections.abc import Callable

import numpy as np
from onnx import TensorProto, helper

from flows.translation.call import Call

_PAD_MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge"}


def _fill(call: Call) -> str:
    return _filled(call, call.longs("shape"))


def _fill_like(call: Call) -> str:
    return _filled(call, call.add("Shape", call.tensor("ref_tensor")))


def _filled(call: Call, shape: str) -> str:
    kind = call.output_type()
    value = helper.make_tensor("value", kind, [1], [call.value("value").item()])
    return call.add("ConstantOfShape", shape, value=value)


def _range_1d(call: Call) -> str:
    return call.add("Range", call.tensor("start"), call.tensor("end"), call.tensor("step"))


def _pad(call: Call) -> str:
    mode, rank = call.text("mode", "constant"), call.rank("x")
    fill = [call.scalar(_pad_value(call), call.type_of("x"))] if mode == "constant" else []
    if call.known("pad") is None:
        pads = call.add("Reshape", call.longs("pad"), call.graph.ints(-1, 2))
        flat = call.add("Reshape", call.add("Transpose", pads, perm=[1, 0]), call.graph.ints(-1))
        return call.add("Pad", call.tensor("x"), flat, *fill, mode=_PAD_MODES[mode])
    pairs = np.reshape(call.value("pad"), (-1, 2)).tolist()
    pairs = [[0, 0]] * (rank - len(pairs)) + pairs
    flat = call.graph.ints(*(before for before, _ in pairs), *(after for _, after in pairs))
    return call.add("Pad", call.tensor("x"), flat, *fill, mode=_PAD_MODES[mode])


def _pad_value(call: Call) -> float:
    return call.number("constant_val", 0.0)


def _band_part(call: Call) -> str:
    """Keep what is at most `lower` below and `upper` above the diagonal; negative keeps all."""
    lower, upper, kind = call.integer("lower", -1), call.integer("upper", -1), call.type_of("x")
    source = call.floats("x")
    if lower >= 0:
        source = call.add("Trilu", source, call.graph.integer(-lower), upper=1)
    if upper >= 0:
        source = call.add("Trilu", source, call.graph.integer(upper), upper=0)
    return source if kind == TensorProto.FLOAT else call.cast(source, kind)


TRANSLATORS: dict[str, Callable[[Call], str]] = {
    "band_part": _band_part,
    "fill": _fill,
    "fill_like": _fill_like,
    "pad": _pad,
    "range_1d": _range_1d,
}
