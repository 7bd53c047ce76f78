"""What a drift check found and what it means; pure, so every rule here can be tabulated.

A column has drifted when Evidently's test says so and chance does not explain it: its p-value,
adjusted for the number of columns (Holm), is below `ALPHA`. One drifted column is drift.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

ALPHA = 0.05
_NAMED = 5


class Verdict(StrEnum):
    DRIFT = "drift"
    NO_DRIFT = "no_drift"
    INSUFFICIENT_DATA = "insufficient_data"
    NOT_MEASURED = "not_measured"


class ColumnState(StrEnum):
    DRIFTED = "drifted"
    STABLE = "stable"
    NOT_MEASURED = "not_measured"


@dataclass(frozen=True, slots=True)
class Score:
    """What the tests say of one column, before columns are looked at together.

    `distance` is 0 to 1 whatever the method: the largest gap between the two distributions.
    """

    column: str
    method: str
    score: float
    threshold: float
    failed: bool
    p_value: float
    distance: float
    shift: float | None


@dataclass(frozen=True, slots=True)
class ColumnDrift:
    """One column's verdict. `shift` is the median's way from the reference, signed; None for text."""

    column: str
    state: ColumnState
    method: str | None = None
    score: float | None = None
    threshold: float | None = None
    p_value: float | None = None
    distance: float | None = None
    shift: float | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Window:
    """Where one side of the comparison came from."""

    source: str
    rows: int
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class DriftReport:
    """A drift check of one model. `version` is None where rows of every version were read."""

    model: str
    version: str | None
    verdict: Verdict
    message: str
    reference: Window | None
    current: Window | None
    columns: tuple[ColumnDrift, ...] = ()
    not_compared: tuple[str, ...] = ()

    @property
    def drifted(self) -> tuple[ColumnDrift, ...]:
        """Drifted columns, the furthest first."""
        found = (column for column in self.columns if column.state is ColumnState.DRIFTED)
        return tuple(sorted(found, key=lambda column: -(column.distance or 0.0)))

    @property
    def share(self) -> float | None:
        """Drifted columns among the measured ones."""
        measured = sum(column.state is not ColumnState.NOT_MEASURED for column in self.columns)
        return len(self.drifted) / measured if measured else None

    def as_json(self) -> dict[str, Any]:
        body = asdict(self) | {"share": self.share, "drifted": [column.column for column in self.drifted]}
        return {name: _plain(value) for name, value in body.items()}


def insufficient(reference_rows: int, current_rows: int, minimum_rows: int) -> str | None:
    """Why two windows cannot be compared, with the numbers; None when they can."""
    if min(reference_rows, current_rows) >= minimum_rows:
        return None
    return (
        f"insufficient data: {current_rows} rows in the current window and {reference_rows} in the "
        f"reference, {minimum_rows} needed in each"
    )


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """P-values adjusted for their number, so that the chance of any false alarm stays below alpha.

    Source: S. Holm, A simple sequentially rejective multiple test procedure, 1979.
    """
    adjusted: dict[str, float] = {}
    highest = 0.0
    for rank, (name, p_value) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        highest = max(highest, min(1.0, p_value * (len(p_values) - rank)))
        adjusted[name] = highest
    return adjusted


def judge(scores: Collection[Score]) -> list[ColumnDrift]:
    """Each measured column's verdict, all columns taken together."""
    adjusted = holm({score.column: score.p_value for score in scores})
    return [
        ColumnDrift(
            score.column,
            ColumnState.DRIFTED if score.failed and adjusted[score.column] < ALPHA else ColumnState.STABLE,
            method=score.method,
            score=score.score,
            threshold=score.threshold,
            p_value=adjusted[score.column],
            distance=score.distance,
            shift=score.shift,
        )
        for score in scores
    ]


def decide(columns: Sequence[ColumnDrift]) -> Verdict:
    if any(column.state is ColumnState.DRIFTED for column in columns):
        return Verdict.DRIFT
    measured = any(column.state is ColumnState.STABLE for column in columns)
    return Verdict.NO_DRIFT if measured else Verdict.NOT_MEASURED


def sentence(columns: Sequence[ColumnDrift]) -> str:
    """The outcome in words, naming the columns that moved furthest."""
    measured = [column for column in columns if column.state is not ColumnState.NOT_MEASURED]
    drifted = [column for column in measured if column.state is ColumnState.DRIFTED]
    skipped = len(columns) - len(measured)
    besides = f"; {skipped} could not be measured" if skipped else ""
    if not measured:
        return f"none of {len(columns)} columns could be measured"
    if not drifted:
        return f"none of {len(measured)} measured columns drifted{besides}"
    worst = sorted(drifted, key=lambda column: -(column.distance or 0.0))[:_NAMED]
    named = ", ".join(column.column + _direction(column.shift) for column in worst)
    return f"{len(drifted)} of {len(measured)} measured columns drifted, furthest {named}{besides}"


@dataclass(frozen=True, slots=True)
class Announcement:
    """Whether people are told of a drift, and which columns they have been told of so far."""

    is_due: bool
    columns: tuple[str, ...]


def announcement(report: DriftReport, announced: Collection[str]) -> Announcement:
    """Tell of a drift once: again only when it spreads to other columns, or after it was over.

    `announced` are the columns told of at the last check, empty when that found no drift.
    """
    drifted = {column.column for column in report.drifted}
    if report.verdict is Verdict.NO_DRIFT:
        return Announcement(False, ())
    return Announcement(not drifted <= set(announced), tuple(sorted(drifted | set(announced))))


def _direction(shift: float | None) -> str:
    return "" if not shift else f" ({shift:+.3g})"


def _plain(value: Any) -> Any:
    """JSON has no times, enums or tuples."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, StrEnum) else value
