"""How far the answers of several versions of one model lie apart; what the four formats are compared with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two versions and the largest absolute difference between any two of their numbers."""

    one: str
    other: str
    difference: float

    def __str__(self) -> str:
        return f"{self.one:<14} {self.other:<14} {self.difference:.2e}"


def pairs(answers: Mapping[str, Array]) -> list[Pair]:
    """Every pair, in the order of `answers`. Shapes must agree."""
    return [
        Pair(one, other, float(np.max(np.abs(answers[one] - answers[other]))))
        for one, other in combinations(answers, 2)
    ]


def lines(found: Sequence[Pair], asked: int) -> list[str]:
    return [f"largest difference over {asked} inputs", *(f"  {pair}" for pair in found)]
