"""The two sides of a comparison as data frames: rows of the inference log, or a declared set.

The current window is the newest rows. The reference is the declared evaluation set, else the first
rows of the log; the two never overlap.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from flows.drift.verdict import Window
from serving.core.datatypes import Array
from serving.store.inference_log import FIXED_COLUMNS, read, row_columns

Frame: TypeAlias = Any
"""A pandas data frame; pandas ships no types."""

SEED = 7


@dataclass(frozen=True, slots=True)
class Side:
    """One window with its rows."""

    window: Window
    frame: Frame


@dataclass(frozen=True, slots=True)
class Span:
    """Which rows of the log count: the newest `rows`, thinned evenly to `sample` where they are more."""

    folder: Path
    model: str
    version: str | None
    rows: int
    sample: int


def declared_side(inputs: Mapping[str, Array], sample: int) -> Side:
    """The inputs of an evaluation set, in the columns the log would hold them in."""
    columns: dict[str, Array] = {}
    for name, rows in inputs.items():
        columns |= row_columns(name, rows)
    frame = pd.DataFrame(columns)
    if len(frame) > sample:
        frame = frame.sample(sample, random_state=SEED)
    return Side(Window("evaluation set", len(frame)), frame)


def current_side(span: Span) -> Side:
    return _side("newest rows", _rows(span, span.rows))


def first_and_current(span: Span) -> tuple[Side, Side]:
    """The log's first rows and its newest; a log too short for both is split in the middle."""
    first, newest = _rows(span, span.rows, oldest=True), _rows(span, span.rows)
    if len(first) and first["time"].max() >= newest["time"].min():
        everything = _rows(span, 2 * span.rows)
        half = len(everything) // 2
        first, newest = everything.iloc[:half], everything.iloc[half:]
    return _side("first rows of the log", first), _side("newest rows", newest)


def _rows(span: Span, limit: int, *, oldest: bool = False) -> Frame:
    sample = span.sample if limit > span.sample else None
    table = read(span.folder, span.model, version=span.version, limit=limit, oldest=oldest, sample=sample)
    return table.to_pandas()


def _side(source: str, frame: Frame) -> Side:
    if not len(frame):
        return Side(Window(source, 0), pd.DataFrame())
    since, until = _moment(frame["time"].min()), _moment(frame["time"].max())
    kept = [name for name in frame.columns if name not in FIXED_COLUMNS and not name.endswith(".raw")]
    return Side(Window(source, len(frame), since, until), frame[kept])


def _moment(value: Any) -> datetime:
    moment: datetime = value.to_pydatetime()
    return moment


def finite(values: Any) -> Any:
    """A column's usable values: without nulls, NaN and infinity."""
    present = values.dropna()
    return present[np.isfinite(present)] if pd.api.types.is_numeric_dtype(present) else present
