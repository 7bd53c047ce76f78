"""What labels said of answers: right and wrong by class, errors of numbers, and how late labels came.

Sums only, so that spans of time add up and a corrected label can be taken back. Pure.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import sqrt
from typing import Any

from serving.core.sketch import Sketch

# A model of more classes keeps its accuracy; which class was taken for which is then not kept.
MAX_PAIRS = 4096


@dataclass(frozen=True, slots=True)
class Scored:
    """Rows with a label. Of classes: `right`, and `pairs` of (true, said) class with their count.

    Of numbers: sums of absolute and squared errors. `pairs` that did not fit are missing there alone.
    """

    classified: int = 0
    right: int = 0
    pairs: Mapping[tuple[str, str], int] = field(default_factory=dict)
    measured: int = 0
    absolute: float = 0.0
    squared: float = 0.0
    delays: Sketch = field(default_factory=Sketch)

    @property
    def labelled(self) -> int:
        return self.classified + self.measured

    @property
    def accuracy(self) -> float | None:
        return self.right / self.classified if self.classified else None

    @property
    def mae(self) -> float | None:
        return self.absolute / self.measured if self.measured else None

    @property
    def rmse(self) -> float | None:
        return sqrt(max(0.0, self.squared) / self.measured) if self.measured else None

    def plus(self, other: "Scored", times: int = 1) -> "Scored":
        """Of both; `times` of -1 takes back what was added before, maybe to another span."""
        pairs = dict(self.pairs)
        for pair, count in other.pairs.items():
            if pair in pairs or len(pairs) < MAX_PAIRS:
                pairs[pair] = pairs.get(pair, 0) + times * count
        return Scored(
            self.classified + times * other.classified,
            self.right + times * other.right,
            {pair: count for pair, count in pairs.items() if count},
            self.measured + times * other.measured,
            self.absolute + times * other.absolute,
            self.squared + times * other.squared,
            self.delays.plus(other.delays, times),
        )

    def averages(self) -> dict[str, float]:
        """Precision, recall and F1, each the plain mean over the classes that occur; empty without pairs.

        Source: macro averaging as in scikit-learn's `precision_recall_fscore_support`, where what is
        undefined counts as 0.
        """
        if not self.pairs or sum(self.pairs.values()) < self.classified:
            return {}
        per_class = [self._of_class(name) for name in sorted({name for pair in self.pairs for name in pair})]
        return {
            name: sum(scores[name] for scores in per_class) / len(per_class)
            for name in ("precision", "recall", "f1")
        }

    def _of_class(self, name: str) -> dict[str, float]:
        hit = self.pairs.get((name, name), 0)
        said = sum(count for (_, other), count in self.pairs.items() if other == name)
        true = sum(count for (other, _), count in self.pairs.items() if other == name)
        return {
            "precision": hit / said if said else 0.0,
            "recall": hit / true if true else 0.0,
            "f1": 2 * hit / (said + true),
        }

    def as_json(self) -> dict[str, Any]:
        """A short form for the store."""
        if self == NOT_SCORED:
            return {}
        pairs = [[true, said, count] for (true, said), count in sorted(self.pairs.items())]
        return {
            "n": [self.classified, self.right, self.measured, self.absolute, self.squared],
            "p": pairs,
            "d": self.delays.as_numbers(),
        }

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> "Scored":
        if not told:
            return NOT_SCORED
        classified, right, measured, absolute, squared = told["n"]
        pairs = {(true, said): count for true, said, count in told["p"]}
        delays = Sketch.from_numbers(told["d"])
        return cls(classified, right, pairs, measured, absolute, squared, delays)


NOT_SCORED = Scored()


def total_scored(parts: Iterable[Scored]) -> Scored:
    """The sum of many."""
    whole = NOT_SCORED
    for part in parts:
        if part is not NOT_SCORED:
            whole = whole.plus(part)
    return whole
