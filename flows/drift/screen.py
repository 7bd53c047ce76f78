"""Which columns can be compared, decided before Evidently sees them: one bad column ends its whole report.

A column that cannot be measured keeps its place in our report, with the reason.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import pandas as pd

from flows.drift.verdict import ColumnDrift, ColumnState
from flows.drift.windows import Frame, finite

_MAX_CATEGORIES = 100


class Kind(StrEnum):
    NUMBER = "number"
    CATEGORY = "category"


@dataclass(frozen=True, slots=True)
class Pair:
    """One column's usable values on both sides."""

    column: str
    kind: Kind
    reference: Any
    current: Any
    note: str | None


@dataclass(frozen=True, slots=True)
class Screened:
    """`pairs` go to Evidently, `settled` are judged already."""

    pairs: list[Pair]
    settled: list[ColumnDrift]


def screen(reference: Frame, current: Frame, minimum_rows: int) -> Screened:
    """Every column of the reference, in its order."""
    found = [_screened(column, reference, current, minimum_rows) for column in reference.columns]
    return Screened(
        [one for one in found if isinstance(one, Pair)],
        [one for one in found if isinstance(one, ColumnDrift)],
    )


def _screened(column: str, reference: Frame, current: Frame, minimum_rows: int) -> Pair | ColumnDrift:
    if column not in current.columns:
        return _unmeasured(column, "not in the current window")
    before, now = _values(reference[column]), _values(current[column])
    for name, values in (("reference", before), ("current window", now)):
        if not len(values):
            return _unmeasured(column, f"no usable value in the {name}")
        if len(values) < minimum_rows:
            return _unmeasured(column, f"insufficient data: {len(values)} usable values in the {name}")
    kinds = {_kind(before), _kind(now)}
    if len(kinds) > 1:
        return _unmeasured(column, "numbers on one side, text on the other")
    kind = kinds.pop()
    if kind is Kind.CATEGORY and before.nunique() > _MAX_CATEGORIES:
        return _unmeasured(column, f"more than {_MAX_CATEGORIES} different texts in the reference")
    if before.nunique() == 1 and now.nunique() == 1 and before.iloc[0] == now.iloc[0]:
        return ColumnDrift(
            column, ColumnState.STABLE, "constant", distance=0.0, note="the same value throughout"
        )
    return Pair(column, kind, before, now, _note(len(current) - len(now), len(current)))


def _values(column: Any) -> Any:
    values = finite(column)
    return values.astype(np.int8) if pd.api.types.is_bool_dtype(values) else values


def _kind(values: Any) -> Kind:
    return Kind.NUMBER if pd.api.types.is_numeric_dtype(values) else Kind.CATEGORY


def _note(unusable: int, rows: int) -> str | None:
    return f"{unusable} of {rows} values are empty or not finite" if unusable else None


def _unmeasured(column: str, reason: str) -> ColumnDrift:
    return ColumnDrift(column, ColumnState.NOT_MEASURED, note=reason)
