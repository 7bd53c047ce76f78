"""One layer of a network, and the table of functions that write layers as ONNX nodes.

A function in the table takes the tape and the layer and returns the layer's outputs. What it cannot
carry over it says with `NoCounterpart`; what contradicts itself, with `Inconsistent`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from flows.translation.layers.tape import Tape, Tensor
from flows.translation.layers.weights import DamagedWeights, array_of, is_stored
from serving.core.datatypes import Array


class NoCounterpart(Exception):
    """The layer is sound, but this form of it cannot be said in ONNX; the message says what about it."""


class Inconsistent(Exception):
    """The layer contradicts itself or its input: the file is damaged or was put together wrongly."""


@dataclass(frozen=True, slots=True)
class Layer:
    """`kind` is the name of the layer's field in the specification, `params` the message in it."""

    kind: str
    name: str
    params: Any
    inputs: tuple[Tensor, ...]
    outputs: tuple[str, ...]

    @property
    def x(self) -> Tensor:
        """The first input."""
        self.require(1)
        return self.inputs[0]

    def require(self, count: int) -> tuple[Tensor, ...]:
        """At least `count` inputs, or Inconsistent."""
        if len(self.inputs) < count:
            raise Inconsistent(f"has {len(self.inputs)} of at least {count} inputs")
        return self.inputs

    def require_rank(self, least: int) -> Tensor:
        """The first input with at least that many axes, or Inconsistent."""
        if self.x.rank < least:
            raise Inconsistent(f"takes an input of rank {least} or more, not {list(self.x.shape)}")
        return self.x

    def require_volume(self) -> Tensor:
        """The first input as (N, C, D, H, W), or Inconsistent."""
        if self.x.rank != 5:
            raise Inconsistent(f"takes an input of rank 5, not {list(self.x.shape)}")
        return self.x

    def axis(self, axis: int, rank: int | None = None) -> int:
        """`axis` counted from the front, or Inconsistent."""
        rank = self.x.rank if rank is None else rank
        if not -rank <= axis < rank:
            raise Inconsistent(f"names axis {axis} of {rank}")
        return axis % rank

    def weights(self, field: str, *shape: int, channel_axis: int = 0, params: Any = None) -> Array:
        """Decoded values of a weight field, float32 or float16, or Inconsistent."""
        try:
            return array_of(getattr(self.params if params is None else params, field), shape, channel_axis)
        except DamagedWeights as damaged:
            raise Inconsistent(f"field '{field}' holds {damaged}") from damaged

    def optional(self, field: str, *shape: int) -> Array | None:
        """As `weights`, None where nothing is stored."""
        return self.weights(field, *shape) if is_stored(getattr(self.params, field)) else None


Outputs: TypeAlias = Tensor | Sequence[Tensor]
Translator: TypeAlias = Callable[[Tape, Layer], Outputs]

TRANSLATORS: dict[str, Translator] = {}


def translates(*kinds: str) -> Callable[[Translator], Translator]:
    """Enter a function into the table under the given layer kinds."""

    def enter(translator: Translator) -> Translator:
        TRANSLATORS.update(dict.fromkeys(kinds, translator))
        return translator

    return enter


def choice(message: Any, field: str) -> str:
    """The name of an enumeration's value; Inconsistent for one that the specification does not know."""
    kinds = message.DESCRIPTOR.fields_by_name[field].enum_type.values_by_number
    number = getattr(message, field)
    if number not in kinds:
        known = ", ".join(kind.name for kind in kinds.values())
        raise Inconsistent(f"field '{field}' holds {number}, which is none of {known}")
    return str(kinds[number].name)


def pair(values: Sequence[int], default: int) -> tuple[int, int]:
    """A field "of length 2 in the order [H, W]", which an empty list leaves at its default."""
    if not values:
        return default, default
    if len(values) != 2:
        raise Inconsistent(f"has {len(values)} numbers where height and width belong")
    return int(values[0]), int(values[1])


def borders(amounts: Any) -> tuple[tuple[int, int], tuple[int, int]]:
    """((top, bottom), (left, right)); all zero where nothing is stored."""
    edges = amounts.borderAmounts
    if not edges:
        return (0, 0), (0, 0)
    if len(edges) != 2:
        raise Inconsistent(f"has {len(edges)} border amounts where height and width belong")
    top, left = edges
    return (top.startEdgeSize, top.endEdgeSize), (left.startEdgeSize, left.endEdgeSize)


def column(values: Array) -> Array:
    """A vector of per-channel numbers as (C, 1, 1), which broadcasts over any (..., C, H, W)."""
    return np.asarray(values).reshape(-1, 1, 1)
