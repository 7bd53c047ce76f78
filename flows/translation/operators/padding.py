"""Padding of windows: MIL's pad types as ONNX pads, shared by convolutions and pools.

MIL lists pads as (before, after) per dimension; ONNX lists all befores, then all afters.
"""

from collections.abc import Sequence
from dataclasses import dataclass

_AUTO = {"same": "SAME_UPPER", "same_lower": "SAME_LOWER"}


@dataclass(frozen=True, slots=True)
class Window:
    """One spatial dimension's kernel size, stride and dilation."""

    kernel: int
    stride: int
    dilation: int = 1

    @property
    def reach(self) -> int:
        """How many elements the kernel spans."""
        return (self.kernel - 1) * self.dilation + 1


def onnx_pads(pairs: Sequence[tuple[int, int]]) -> list[int]:
    return [before for before, _ in pairs] + [after for _, after in pairs]


def pairs_of(pads: Sequence[int]) -> list[tuple[int, int]]:
    return [(int(before), int(after)) for before, after in zip(pads[::2], pads[1::2], strict=True)]


def known_pads(
    kind: str, pads: Sequence[int], windows: Sequence[Window], sizes: Sequence[int | None]
) -> list[tuple[int, int]] | None:
    """(before, after) per dimension, or None for `same` padding of a size known only at run time."""
    if kind == "custom":
        return pairs_of(pads)
    if kind == "valid":
        return [(0, 0)] * len(windows)
    pairs = []
    for window, size in zip(windows, sizes, strict=True):
        if size is None:
            return None
        total = max((-(-size // window.stride) - 1) * window.stride + window.reach - size, 0)
        small, large = total // 2, total - total // 2
        pairs.append((large, small) if kind == "same_lower" else (small, large))
    return pairs


def pad_attributes(pairs: Sequence[tuple[int, int]] | None, kind: str) -> dict[str, str | list[int]]:
    """ONNX attributes: explicit pads, or ONNX's own rule where sizes are dynamic."""
    return {"auto_pad": _AUTO[kind]} if pairs is None else {"pads": onnx_pads(pairs)}
