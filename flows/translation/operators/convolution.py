"""Convolutions and transposed convolutions of one to three spatial dimensions."""

from collections.abc import Callable
from itertools import zip_longest

from flows.translation.call import Call
from flows.translation.operators.padding import Window, known_pads, onnx_pads, pad_attributes, pairs_of


def _windows(call: Call) -> list[Window]:
    kernels = call.shape("weight")[2:]
    if None in kernels:
        raise call.refused("has a kernel whose size is only known at run time")
    strides, dilations = call.integers("strides"), call.integers("dilations")
    return [
        Window(kernel or 0, stride, dilation)
        for kernel, stride, dilation in zip_longest(
            kernels, strides or [1] * len(kernels), dilations or [1] * len(kernels)
        )
    ]


def _conv(call: Call) -> str:
    windows, kind = _windows(call), call.text("pad_type", "valid")
    pairs = known_pads(kind, call.integers("pad"), windows, call.shape("x")[2:])
    inputs = [call.tensor("x"), call.tensor("weight")]
    return call.add(
        "Conv",
        *inputs,
        *([call.tensor("bias")] if call.has("bias") else []),
        kernel_shape=[window.kernel for window in windows],
        strides=[window.stride for window in windows],
        dilations=[window.dilation for window in windows],
        group=call.integer("groups", 1),
        **pad_attributes(pairs, kind),
    )


def _conv_transpose(call: Call) -> str:
    windows = _windows(call)
    pairs, extra = _cropping(call, windows)
    inputs = [call.tensor("x"), call.tensor("weight")]
    return call.add(
        "ConvTranspose",
        *inputs,
        *([call.tensor("bias")] if call.has("bias") else []),
        kernel_shape=[window.kernel for window in windows],
        strides=[window.stride for window in windows],
        dilations=[window.dilation for window in windows],
        group=call.integer("groups", 1),
        pads=onnx_pads(pairs),
        output_padding=extra,
    )


def _cropping(call: Call, windows: list[Window]) -> tuple[list[tuple[int, int]], list[int]]:
    """What is cut off the full result, (before, after) per dimension, and what is added at its end."""
    kind = call.text("pad_type", "valid")
    given = call.integers("pad") if kind == "custom" else [0] * (2 * len(windows))
    pairs, added = [], []
    for (before, after), surplus in zip(pairs_of(given), _surplus(call, windows, kind), strict=True):
        if surplus is not None:
            before = before if kind == "custom" else _first_half(max(surplus, 0), kind)
            after = surplus - before
        pairs.append((before, max(after, 0)))
        added.append(max(-after, 0))
    return pairs, added


def _surplus(call: Call, windows: list[Window], kind: str) -> list[int | None]:
    """By how much the full result exceeds the wanted one, per dimension; None where pads alone decide."""
    wanted = call.integers("output_shape")[2:]
    if not wanted:
        # `same` means size * stride, in which the size cancels out.
        return [window.reach - window.stride if kind.startswith("same") else None for window in windows]
    sizes = [size for size in call.shape("x")[2:] if size is not None]
    if len(sizes) != len(windows):
        raise call.refused("has a fixed output shape for an input of dynamic shape")
    return [
        (size - 1) * window.stride + window.reach - want
        for size, window, want in zip(sizes, windows, wanted, strict=True)
    ]


def _first_half(surplus: int, kind: str) -> int:
    return surplus - surplus // 2 if kind == "same_lower" else surplus // 2


TRANSLATORS: dict[str, Callable[[Call], str]] = {"conv": _conv, "conv_transpose": _conv_transpose}
