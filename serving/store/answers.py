"""Answers in the inference log by request id, for labels that come back for them.

What ids a part holds is remembered as four bytes each, so that looking for the same few ids in thousands
of parts reads each part once. Called on the joiner's thread; uses Arrow, never pandas.
"""

import hashlib
import json
import logging
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.core.labels import Elements
from serving.core.model import VersionRef
from serving.store.inference_log import OUTPUTS_KEY, Part

log = logging.getLogger(__name__)

_Codes = npt.NDArray[np.uint32]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_WANTED_COLUMNS = ("time", "request_id", "row", "model", "version", "variant", "status")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedAnswer:
    """One row of the log. `rows` is how many its request had in this part."""

    request_id: str
    row: int
    rows: int
    ref: VersionRef
    variant: str
    at: datetime
    outputs: Mapping[str, Elements]


class AnswerIndex:
    """Confined to one thread. `max_bytes` bounds what is remembered of parts."""

    def __init__(self, max_bytes: int = 64 << 20) -> None:
        self._max_bytes = max_bytes
        self._codes: OrderedDict[Path, _Codes] = OrderedDict()
        self._held_bytes = 0

    def may_hold(self, part: Part, codes: _Codes) -> bool:
        """Whether a part may hold one of the ids with these codes; wrong once in many millions."""
        return bool(np.isin(self._codes_of(part), codes).any())

    def answers(self, part: Part, request_ids: Iterable[str]) -> list[LoggedAnswer]:
        """The part's rows of these requests; none of a part that is damaged or gone."""
        wanted = {text: given for given in request_ids for text in _written(given)}
        try:
            return list(_answers(part.path, wanted))
        except _unreadable() as error:
            log.warning("log_part_unreadable path=%s error=%s", part.path, error)
            return []

    def _codes_of(self, part: Part) -> _Codes:
        known = self._codes.get(part.path)
        if known is not None:
            self._codes.move_to_end(part.path)
            return known
        codes = _read_codes(part.path)
        self._codes[part.path] = codes
        self._held_bytes += codes.nbytes
        while self._held_bytes > self._max_bytes and len(self._codes) > 1:
            _, gone = self._codes.popitem(last=False)
            self._held_bytes -= gone.nbytes
        return codes


def codes_of(request_ids: Iterable[str]) -> _Codes:
    """The codes under which a part may hold these ids, sorted."""
    return np.unique(_codes(text for given in request_ids for text in _written(given)))


def _written(request_id: str) -> tuple[str, str]:
    """The forms in which the log may hold an id: as it is, or hashed where the settings ask for that."""
    return request_id, hashlib.sha256(request_id.encode()).hexdigest()


def _codes(texts: Iterable[str]) -> _Codes:
    return np.array([zlib.crc32(text.encode()) for text in texts], np.uint32)


def _read_codes(path: Path) -> _Codes:
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            if "request_id" not in file.schema_arrow.names:
                return np.empty(0, np.uint32)
            column = file.read(columns=["request_id"], use_threads=False).column(0)
        return np.unique(_codes(text for text in column.to_pylist() if text is not None))
    except _unreadable() as error:
        log.warning("log_part_unreadable path=%s error=%s", path, error)
        return np.empty(0, np.uint32)


def _answers(path: Path, wanted: Mapping[str, str]) -> Iterator[LoggedAnswer]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        names = file.schema_arrow.names
        if not set(_WANTED_COLUMNS) <= set(names):
            return
        outputs = _output_columns(names, _outputs_told(file))
        columns = [*_WANTED_COLUMNS, *(column for each in outputs.values() for column in each)]
        table = file.read(columns=columns, use_threads=False)
    ids = table.column("request_id").to_pylist()
    counts: dict[str, int] = {}
    for text in ids:
        counts[text] = counts.get(text, 0) + 1
    places = [place for place, text in enumerate(ids) if text in wanted]
    if not places:
        return
    chosen = _rows(table, places)
    for place, row in zip(places, chosen, strict=True):
        yield _answer(row, wanted[ids[place]], counts[ids[place]], outputs)


def _answer(
    row: Mapping[str, Any], request_id: str, rows: int, outputs: Mapping[str, list[str]]
) -> LoggedAnswer:
    said = {
        name: [row[column] for column in columns]
        for name, columns in outputs.items()
        if columns and row[columns[0]] is not None
    }
    return LoggedAnswer(
        request_id=request_id,
        row=row["row"],
        rows=rows,
        ref=VersionRef(row["model"], row["version"]),
        variant=row["variant"],
        at=_EPOCH + timedelta(microseconds=row["time"]),
        outputs=said if row["status"] == "ok" else {},
    )


def _rows(table: Any, places: list[int]) -> list[dict[str, Any]]:
    """Rows of a table by their places, with times as microseconds since 1970."""
    import pyarrow as pa

    at = table.column_names.index("time")
    plain = table.set_column(at, "time", table.column("time").cast(pa.int64()))
    chosen = {name: plain.column(name) for name in plain.column_names}
    return [{name: column[place].as_py() for name, column in chosen.items()} for place in places]


def _outputs_told(file: Any) -> list[str]:
    told = (file.metadata.metadata or {}).get(OUTPUTS_KEY.encode(), b"[]")
    names: list[str] = json.loads(told)
    return names


def _output_columns(names: Iterable[str], outputs: Iterable[str]) -> dict[str, list[str]]:
    """The element columns of every output, in the order of the elements."""
    present = set(names)
    found: dict[str, list[str]] = {}
    for output in outputs:
        columns: list[str] = []
        while (column := f"{output}.{len(columns)}") in present:
            columns.append(column)
        found[output] = columns
    return found


def _unreadable() -> tuple[type[Exception], ...]:
    import pyarrow as pa

    return (OSError, pa.ArrowException)
