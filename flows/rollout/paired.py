"""Labels of rows that both versions answered: what tells two versions apart with the fewest of them.

Sums alone, of the whole and by true class, from which slices are put together. Pure.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from serving.core.labels import class_name
from serving.core.scored import Scored
from serving.store.labels import Twice


@dataclass(frozen=True, slots=True)
class Agreement:
    """Rows by who of the two was right. The champion alone is `lost`, the challenger alone `won`."""

    both: int = 0
    lost: int = 0
    won: int = 0
    neither: int = 0

    @property
    def rows(self) -> int:
        return self.both + self.lost + self.won + self.neither

    @property
    def drop(self) -> float:
        """How much less accurate the challenger is; below 0 where it is better."""
        return (self.lost - self.won) / self.rows if self.rows else 0.0

    @property
    def accuracies(self) -> tuple[float, float]:
        """The champion's and the challenger's; 0 of no rows."""
        rows = self.rows or 1
        return (self.both + self.lost) / rows, (self.both + self.won) / rows

    def plus(self, other: "Agreement") -> "Agreement":
        return Agreement(
            self.both + other.both,
            self.lost + other.lost,
            self.won + other.won,
            self.neither + other.neither,
        )


@dataclass(frozen=True, slots=True)
class Errors:
    """Rows of numbers: sums of absolute errors, and of the squared growth from champion's to challenger's."""

    rows: int = 0
    champion: float = 0.0
    challenger: float = 0.0
    squared_growth: float = 0.0

    @property
    def means(self) -> tuple[float, float]:
        """The champion's and the challenger's mean error; 0 of no rows."""
        rows = self.rows or 1
        return self.champion / rows, self.challenger / rows

    @property
    def standard_error(self) -> float:
        """Of the mean growth from the champion's error to the challenger's on the same row."""
        if self.rows < 2:
            return 0.0
        mean = (self.challenger - self.champion) / self.rows
        return float((max(0.0, self.squared_growth / self.rows - mean**2) / (self.rows - 1)) ** 0.5)


@dataclass(frozen=True, slots=True)
class Labelled:
    """All rows with a label that both versions answered. `by_class` is by the true class."""

    classes: Agreement = field(default_factory=Agreement)
    errors: Errors = field(default_factory=Errors)
    by_class: Mapping[str, Agreement] = field(default_factory=dict)


def paired(rows: Iterable[Twice]) -> Labelled:
    """The sums; a label that says nothing of one of the two answers counts nowhere."""
    by_class: dict[str, Agreement] = {}
    errors = Errors()
    for row in rows:
        if row.champion.classified and row.other.classified:
            name = class_name(row.label) if isinstance(row.label, bool | int | float | str) else None
            present = by_class.get(name or "", Agreement())
            by_class[name or ""] = present.plus(_agreement(row.champion, row.other))
        elif row.champion.measured and row.other.measured:
            growth = row.other.absolute - row.champion.absolute
            errors = Errors(
                errors.rows + 1,
                errors.champion + row.champion.absolute,
                errors.challenger + row.other.absolute,
                errors.squared_growth + growth**2,
            )
    return Labelled(total(by_class.values()), errors, by_class)


def total(parts: Iterable[Agreement]) -> Agreement:
    whole = Agreement()
    for part in parts:
        whole = whole.plus(part)
    return whole


def _agreement(champion: Scored, other: Scored) -> Agreement:
    one, two = champion.right > 0, other.right > 0
    return Agreement(int(one and two), int(one and not two), int(two and not one), int(not one and not two))
