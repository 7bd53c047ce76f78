"""Convolution and deconvolution over two and three spatial axes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flows.translation.layers.layer import (
    Inconsistent,
    Layer,
    NoCounterpart,
    Outputs,
    borders,
    choice,
    pair,
    translates,
)
from flows.translation.layers.tape import Tape, Tensor


@dataclass(frozen=True, slots=True)
class Window:
    """How a kernel moves: one number per spatial axis; `pads` are (before, after) pairs.

    `same` is set instead of `pads` for an output of ceil(input / stride): "SAME_UPPER" puts an odd
    padding's extra element at the end, "SAME_LOWER" at the front. The names are ONNX's.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    same: str | None = None

    def __post_init__(self) -> None:
        if min(*self.kernel, *self.strides, *self.dilations) < 1:
            raise Inconsistent(
                f"has kernel {list(self.kernel)}, strides {list(self.strides)} and dilations "
                f"{list(self.dilations)}, none of which may be 0"
            )

    def reach(self) -> tuple[int, ...]:
        """How many input elements the kernel spans on each axis."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))

    def attributes(self) -> dict[str, Any]:
        padding = {"auto_pad": self.same} if self.same else {"pads": flat(self.pads)}
        return {
            "kernel_shape": list(self.kernel),
            "strides": list(self.strides),
            "dilations": list(self.dilations),
            **padding,
        }


def flat(pads: Sequence[tuple[int, int]]) -> list[int]:
    """(before, after) pairs in ONNX's order: all befores, then all afters."""
    return [before for before, _ in pads] + [after for _, after in pads]


def halves(total: int, same: str) -> tuple[int, int]:
    """A total padding or cropping as (before, after)."""
    small, large = total // 2, total - total // 2
    return (small, large) if same == "SAME_UPPER" else (large, small)


def same_mode(params: Any) -> str:
    return "SAME_LOWER" if choice(params.same, "asymmetryMode") == "TOP_LEFT_HEAVY" else "SAME_UPPER"


def same_pads(window: Window, spatial: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Source: SamePadding in Core ML's NeuralNetwork.proto."""
    pads = []
    for size, stride, reach in zip(spatial, window.strides, window.reach(), strict=True):
        total = max(0, (-(-size // stride) - 1) * stride + reach - size)
        pads.append(halves(total, window.same or "SAME_UPPER"))
    return tuple(pads)


def settled(window: Window, x: Tensor) -> Window:
    """ "Same" padding as numbers where the spatial sizes are known, so that shapes stay known too."""
    spatial = x.sizes(2)
    if window.same is None or spatial is None:
        return window
    return Window(window.kernel, window.strides, window.dilations, same_pads(window, spatial))


@translates("convolution")
def convolution(tape: Tape, layer: Layer) -> Outputs:
    """Weights are (out, in / groups, h, w); a second input, where there is one, takes their place."""
    params = layer.params
    layer.require_rank(3)
    window = _window(params)
    groups = max(1, params.nGroups)
    x = tape.fold(layer.x)
    bias = _bias(tape, layer)
    if params.isDeconvolution:
        shape = (params.kernelChannels, params.outputChannels // groups, *window.kernel)
        kernel = tape.constant(layer.weights("weights", *shape, channel_axis=1), "weights")
        target = [int(size) for size in params.outputShape] or None
        done = _deconvolved(tape, x, kernel, bias, window, groups, target)
    else:
        if len(layer.inputs) > 1:
            kernel = layer.inputs[1]
        else:
            shape = (params.outputChannels, params.kernelChannels, *window.kernel)
            kernel = tape.constant(layer.weights("weights", *shape), "weights")
        _check_channels(x, params.kernelChannels * groups)
        done = tape.add("Conv", x, kernel, bias, group=groups, **settled(window, x).attributes())
    return tape.unfold(done, layer.x)


def _check_channels(x: Tensor, wanted: int) -> None:
    if isinstance(x.shape[1], int) and x.shape[1] != wanted:
        raise Inconsistent(f"takes {wanted} channels, and its input has {x.shape[1]}")


def _window(params: Any) -> Window:
    same = params.WhichOneof("ConvolutionPaddingType") == "same"
    return Window(
        pair(params.kernelSize, 3),
        pair(params.stride, 1),
        pair(params.dilationFactor, 1),
        borders(params.valid.paddingAmounts),
        same_mode(params) if same else None,
    )


def _bias(tape: Tape, layer: Layer) -> Tensor | None:
    if not layer.params.hasBias:
        return None
    return tape.constant(layer.weights("bias", layer.params.outputChannels), "bias")


def _deconvolved(
    tape: Tape,
    x: Tensor,
    kernel: Tensor,
    bias: Tensor | None,
    window: Window,
    groups: int,
    target: Sequence[int] | None,
) -> Tensor:
    """A given output shape overrides the padding's total, but not on which side it lies."""
    _check_channels(x, int(kernel.shape[0]))
    if target is not None and len(target) != len(window.kernel):
        raise Inconsistent(f"has the output shape {list(target)} for {len(window.kernel)} axes")
    spatial = x.sizes(2)
    grown: list[int] = [0] * len(window.kernel)
    pads = list(window.pads)
    if target is not None or window.same is not None:
        if spatial is None:
            if target is not None:
                raise NoCounterpart("has a fixed output shape and an input of open size")
            attributes = window.attributes()
            return tape.add("ConvTranspose", x, kernel, bias, group=groups, **attributes)
        wanted = target or [size * stride for size, stride in zip(spatial, window.strides, strict=True)]
        for axis, (size, stride, reach) in enumerate(
            zip(spatial, window.strides, window.reach(), strict=True)
        ):
            excess = (size - 1) * stride + reach - wanted[axis]
            pads[axis], grown[axis] = _cropping(excess, window, axis)
    return tape.add(
        "ConvTranspose",
        x,
        kernel,
        bias,
        group=groups,
        kernel_shape=list(window.kernel),
        strides=list(window.strides),
        dilations=list(window.dilations),
        pads=flat(pads),
        output_padding=grown,
    )


def _cropping(excess: int, window: Window, axis: int) -> tuple[tuple[int, int], int]:
    """(cropped before, cropped after) and what is added at the end to lose `excess` elements."""
    before = window.pads[axis][0]
    if window.same is not None or before == 0:
        before = halves(max(0, excess), window.same or "SAME_UPPER")[0]
    after = excess - before
    return (before, max(0, after)), max(0, -after)


@translates("convolution3d")
def convolution3d(tape: Tape, layer: Layer) -> Outputs:
    """Input (N, C, D, H, W). Deconvolution stores its weights as (in, out / groups, d, h, w)."""
    params = layer.params
    x = layer.require_volume()
    window, groups = window3d(params), max(1, params.nGroups)
    bias = _bias(tape, layer)
    if params.isDeconvolution:
        shape = (params.inputChannels, params.outputChannels // groups, *window.kernel)
        kernel = tape.constant(layer.weights("weights", *shape, channel_axis=1), "weights")
        target = [int(size) for size in params.outputShape] or None
        return _deconvolved(tape, x, kernel, bias, window, groups, target)
    shape = (params.outputChannels, params.inputChannels // groups, *window.kernel)
    kernel = tape.constant(layer.weights("weights", *shape), "weights")
    _check_channels(x, params.inputChannels)
    return tape.add("Conv", x, kernel, bias, group=groups, **settled(window, x).attributes())


def window3d(params: Any) -> Window:
    """Of a 3-D convolution or pooling; pooling has no dilation."""
    axes = ("Depth", "Height", "Width")
    sides = (("Front", "Back"), ("Top", "Bottom"), ("Left", "Right"))
    padding = choice(params, "paddingType")
    pads = tuple(
        (getattr(params, f"customPadding{before}"), getattr(params, f"customPadding{after}"))
        for before, after in sides
    )
    return Window(
        _numbers(params, "kernel", axes, 3),
        _numbers(params, "stride", axes, 1),
        _numbers(params, "dilation", axes, 1),
        pads if padding == "CUSTOM" else ((0, 0), (0, 0), (0, 0)),
        "SAME_UPPER" if padding == "SAME" else None,
    )


def _numbers(params: Any, prefix: str, axes: Sequence[str], default: int) -> tuple[int, ...]:
    return tuple(int(getattr(params, f"{prefix}{axis}", 0)) or default for axis in axes)
