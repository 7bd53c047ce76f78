"""Pools of one to three spatial dimensions.

Ceil mode and one-sided padding are turned into explicit pads wherever sizes are known: runtimes and
frameworks disagree about which padded elements an average counts, and explicit pads leave no choice.
"""

from collections.abc import Callable, Sequence
from itertools import zip_longest

import numpy as np

from flows.translation.call import Call
from flows.translation.operators.padding import Window, known_pads, onnx_pads, pad_attributes

Pairs = list[tuple[int, int]]


def _windows(call: Call) -> list[Window]:
    kernels, strides = call.integers("kernel_sizes"), call.integers("strides")
    return [Window(kernel, stride or 1) for kernel, stride in zip_longest(kernels, strides)]


def _tail(size: int, window: Window, pair: tuple[int, int]) -> int:
    """Elements that ceil mode's last window reaches beyond the padded input."""
    padded = size + sum(pair)
    count = -(-(padded - window.kernel) // window.stride) + 1
    # The last window must start inside the input or its padding before it.
    if (count - 1) * window.stride >= size + pair[0] and sum(pair) > 0:
        count -= 1
    return max((count - 1) * window.stride + window.kernel - padded, 0)


def _tails(call: Call, windows: Sequence[Window], pairs: Pairs | None) -> list[int] | None:
    """`_tail` per dimension, zeros without ceil mode, None where sizes are only known at run time."""
    if not call.flag("ceil_mode"):
        return [0] * len(windows)
    sizes = call.shape("x")[2:]
    known = [size for size in sizes if size is not None]
    if pairs is None or len(known) != len(sizes):
        return None
    tails = [_tail(*one) for one in zip(known, windows, pairs, strict=True)]
    if any(tail >= window.kernel for tail, window in zip(tails, windows, strict=True)):
        raise call.refused("has a last window that lies wholly outside of its input")
    return tails


def _pool(call: Call, operator: str, source: str, pairs: Pairs | None, **attributes: int) -> str:
    windows = _windows(call)
    return call.add(
        operator,
        source,
        kernel_shape=[window.kernel for window in windows],
        strides=[window.stride for window in windows],
        **pad_attributes(pairs, call.text("pad_type")),
        **attributes,
    )


def _given(call: Call) -> Pairs | None:
    return known_pads(call.text("pad_type"), call.integers("pad"), _windows(call), call.shape("x")[2:])


def _longer(pairs: Pairs, tails: Sequence[int]) -> Pairs:
    return [(before, after + tail) for (before, after), tail in zip(pairs, tails, strict=True)]


def _max_pool(call: Call) -> str:
    pairs = _given(call)
    tails = _tails(call, _windows(call), pairs)
    if pairs is None or tails is None:
        return _pool(call, "MaxPool", call.tensor("x"), pairs, ceil_mode=int(call.flag("ceil_mode")))
    return _pool(call, "MaxPool", call.tensor("x"), _longer(pairs, tails))


def _avg_pool(call: Call) -> str:
    pairs = _given(call)
    counted = not call.flag("exclude_padding_from_average")
    tails = _tails(call, _windows(call), pairs)
    if pairs is None or tails is None:
        modes = {"ceil_mode": int(call.flag("ceil_mode")), "count_include_pad": int(counted)}
        return _pool(call, "AveragePool", call.tensor("x"), pairs, **modes)
    if not counted:
        return _pool(call, "AveragePool", call.tensor("x"), _longer(pairs, tails), count_include_pad=0)
    if not any(tails):
        return _pool(call, "AveragePool", call.tensor("x"), pairs, count_include_pad=1)
    # The declared padding counts, what lies beyond it does not: only the first becomes real zeros.
    pads = call.graph.ints(*onnx_pads([(0, 0), (0, 0), *pairs]))
    padded = call.add("Pad", call.tensor("x"), pads)
    return _pool(call, "AveragePool", padded, [(0, tail) for tail in tails], count_include_pad=0)


def _l2_pool(call: Call) -> str:
    """sqrt of the window's sum of squares, from the average of squares, for which all pads are tested."""
    source = call.tensor("x")
    square = call.add("Mul", source, source)
    pairs = _given(call)
    tails = _tails(call, _windows(call), pairs)
    if pairs is None or tails is None:
        modes = {"ceil_mode": int(call.flag("ceil_mode"))}
        return _pool(call, "LpPool", source, pairs, p=2, **modes)
    mean = _pool(call, "AveragePool", square, _longer(pairs, tails), count_include_pad=1)
    size = float(np.prod([window.kernel for window in _windows(call)]))
    return call.add("Sqrt", call.add("Mul", mean, call.graph.number(size)))


TRANSLATORS: dict[str, Callable[[Call], str]] = {
    "avg_pool": _avg_pool,
    "l2_pool": _l2_pool,
    "max_pool": _max_pool,
}
