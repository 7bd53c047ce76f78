"""The inference log on disk: where its parts lie, how rows become columns, and how they are read back.

Serving writes parts through this layout, the drift flow reads them; a reference set is turned into
columns by the same function, so what is compared is named alike. DuckDB is loaded by readers only.
"""

import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

import numpy as np

from serving.core.datatypes import Array

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)

MAX_ELEMENTS = 256
_PIECE_ELEMENTS = 8000
"""Elements per row up to which a tensor is logged whole, one column each."""

OUTPUTS_KEY = "signalbox.outputs"
"""Key of a part's own list of tensors that are outputs and are written as they are, as JSON."""

FIXED_COLUMNS = ("time", "request_id", "row", "model", "version", "variant", "status", "latency_ms")

_PART_TIME = "%Y%m%dT%H%M%S.%fZ"
_FIRST_STEP = 64


def log_folder(home: Path) -> Path:
    """Where the log of all models lies under `SIGNALBOX_HOME`."""
    return home / "inference-log"


def model_folder(folder: Path, model: str) -> Path:
    """A model's own folder: its name as one safe path component, unique per name."""
    name = quote(model, safe="")
    return folder / (name if re.fullmatch(r"[^.].*", model, re.DOTALL) else "%2E" + name[1:])


def logged_models(folder: Path) -> list[str]:
    """Models that have a folder in the log."""
    if not folder.is_dir():
        return []
    return sorted(unquote(entry.name) for entry in folder.iterdir() if entry.is_dir())


def row_columns(name: str, rows: Array) -> dict[str, Array]:
    """The columns of one tensor's rows, (count, ...) of any datatype, each column (count,).

    Up to 256 elements per row: one column per element, `<name>.<index>` in C order. More: `.mean`,
    `.std`, `.min` and `.max`; of large text nothing.
    """
    matrix = rows.reshape(len(rows), int(np.prod(rows.shape[1:], dtype=np.int64)))
    if matrix.shape[1] <= MAX_ELEMENTS:
        return {f"{name}.{index}": column for index, column in enumerate(_plain(matrix).T)}
    if matrix.dtype.kind not in "biuf" and matrix.dtype.name != "bfloat16":
        return {}
    matrix = _plain(matrix)
    # Infinite elements make NaN here, which is what should be seen.
    with np.errstate(all="ignore"):
        mean = matrix.mean(1, dtype=np.float64)
        std = np.sqrt(_squares(matrix, mean) / matrix.shape[1])
        low, high = (ends.astype(np.float64) for ends in (matrix.min(1), matrix.max(1)))
    figures = (mean, std, low, high)
    return {f"{name}.{figure}": column for figure, column in zip(_FIGURES, figures, strict=True)}


def _squares(matrix: Array, mean: Array) -> Array:
    """The sum of squared distances from each row's mean, (count,), a piece of the rows at a time.

    In double precision a picture is a megabyte, which would be fresh memory and fit no near cache.
    """
    count, width = matrix.shape
    step = max(_PIECE_ELEMENTS // max(count, 1), MAX_ELEMENTS)
    room = np.empty((count, min(step, width)), np.float64)
    total = np.zeros(count, np.float64)
    for start in range(0, width, step):
        piece = matrix[:, start : start + step]
        apart = np.subtract(piece, mean[:, None], out=room[:, : piece.shape[1]], dtype=np.float64)
        total += np.einsum("ij,ij->i", apart, apart)
    return total


_FIGURES = ("mean", "std", "min", "max")


def output_name(name: str, inputs: Iterable[str]) -> str:
    """What an output is called in the log: its own name, unless an input has it too."""
    return f"output.{name}" if name in inputs else name


@dataclass(frozen=True, slots=True)
class Part:
    """One file of the log. `newest_at` is the time of its newest row."""

    path: Path
    newest_at: datetime
    size_bytes: int


def part_path(folder: Path, model: str, newest_at: datetime, worker: str, number: int) -> Path:
    """Where a part goes: by day, then by time, the worker that wrote it and its running number."""
    moment = newest_at.astimezone(UTC)
    name = f"{moment.strftime(_PART_TIME)}-{worker}-{number}.parquet"
    return model_folder(folder, model) / moment.strftime("%Y-%m-%d") / name


def parts(folder: Path, model: str | None = None) -> list[Part]:
    """Every part of one model, or of all, oldest first. Files being written are none."""
    root = folder if model is None else model_folder(folder, model)
    pattern = "*/*/[!.]*.parquet" if model is None else "*/[!.]*.parquet"
    found = [part for path in root.glob(pattern) if (part := _part(path)) is not None]
    return sorted(found, key=lambda part: (part.newest_at, part.path.name))


def label_part_path(folder: Path, model: str, newest_at: datetime, worker: str, number: int) -> Path:
    """Where a part of a model's labels goes; no part of the log lies as deep."""
    moment = newest_at.astimezone(UTC)
    name = f"{moment.strftime(_PART_TIME)}-{worker}-{number}.parquet"
    return model_folder(folder, model) / "labels" / moment.strftime("%Y-%m-%d") / name


def label_parts(folder: Path, model: str | None = None) -> list[Part]:
    """Every part of the labels of one model, or of all, oldest first."""
    root = folder if model is None else model_folder(folder, model)
    pattern = "labels/*/[!.]*.parquet" if model is not None else "*/labels/*/[!.]*.parquet"
    found = [part for path in root.glob(pattern) if (part := _part(path)) is not None]
    return sorted(found, key=lambda part: (part.newest_at, part.path.name))


def read_labels(
    folder: Path, model: str, since: datetime | None = None, until: datetime | None = None
) -> "pa.Table":
    """The labels that came for a model's answers with `since <= time < until`, oldest first.

    Of each row's labels only the last: columns `time`, `request_id`, `row`, `version`, `variant`,
    `answered_at`, `said` and `label.<index>`. No labels: a table without columns.
    """
    paths = [part.path for part in label_parts(folder, model) if since is None or part.newest_at >= since]
    if not paths:
        return _no_rows()
    where, values = _Query(since, until, None, None, False, None).where()
    with _duckdb().connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        last = "row_number() OVER (PARTITION BY request_id, row, version, variant ORDER BY time DESC) = 1"
        statement = f"SELECT * FROM {_SOURCE} WHERE {where} QUALIFY {last} ORDER BY time, request_id, row"
        return connection.sql(statement, params=[_names(paths), *values]).to_arrow_table()


def read(
    folder: Path,
    model: str,
    since: datetime | None = None,
    until: datetime | None = None,
    *,
    version: str | None = None,
    limit: int | None = None,
    oldest: bool = False,
    sample: int | None = None,
) -> "pa.Table":
    """The rows logged for a model with `since <= time < until`, oldest first.

    `limit` keeps the newest rows, with `oldest` the oldest; `sample` then keeps that many of them,
    chosen evenly and the same each time. A column that a part lacks is null there. No rows: a table
    without columns. A damaged part is left out and named in the log.
    """
    chosen = [part for part in parts(folder, model) if since is None or part.newest_at >= since]
    query = _Query(since, until, version, limit, oldest, sample)
    try:
        return query.run([part.path for part in chosen])
    except _duckdb().Error as error:
        readable = [part.path for part in chosen if _is_readable(part.path)]
        if len(readable) == len(chosen):
            raise
        damaged = len(chosen) - len(readable)
        log.warning("log_parts_left_out model=%s parts=%d error=%s", model, damaged, error)
        return query.run(readable)


@dataclass(frozen=True, slots=True)
class _Query:
    since: datetime | None
    until: datetime | None
    version: str | None
    limit: int | None
    oldest: bool
    sample: int | None

    def run(self, paths: Sequence[Path]) -> "pa.Table":
        with _duckdb().connect() as connection:
            connection.execute("SET TimeZone = 'UTC'")
            enough = self._enough(connection, paths)
            if not enough:
                return _no_rows()
            statement, values = self._statement(enough)
            return connection.sql(statement, params=values).to_arrow_table()

    def _enough(self, connection: Any, paths: Sequence[Path]) -> list[Path]:
        """As few parts, from the wanted end, as hold `limit` matching rows: a log has many thousands."""
        if self.limit is None:
            return list(paths)
        ordered = list(paths) if self.oldest else list(reversed(paths))
        for count in _growing(len(ordered)):
            where, values = self.where()
            statement = f"SELECT count(*) FROM {_SOURCE} WHERE {where}"
            [(found,)] = connection.execute(statement, [_names(ordered[:count]), *values]).fetchall()
            if found >= self.limit:
                # Parts of several workers overlap in time by one flush, so a few more belong to the end.
                return ordered[: count + _FIRST_STEP]
        return ordered

    def _statement(self, paths: Sequence[Path]) -> tuple[str, list[object]]:
        where, values = self.where()
        chosen = f"SELECT * FROM {_SOURCE} WHERE {where}"
        if self.limit is not None:
            direction = "ASC" if self.oldest else "DESC"
            chosen += f" ORDER BY time {direction}, row {direction} LIMIT {self.limit:d}"
        if self.sample is not None:
            chosen = f"SELECT * FROM ({chosen}) USING SAMPLE reservoir({self.sample:d} ROWS) REPEATABLE (7)"
        return f"SELECT * FROM ({chosen}) ORDER BY time, row", [_names(paths), *values]

    def where(self) -> tuple[str, list[object]]:
        bounds: Mapping[str, object] = {
            "time >= ?": self.since,
            "time < ?": self.until,
            "version = ?": self.version,
        }
        given = {condition: value for condition, value in bounds.items() if value is not None}
        return " AND ".join(given) or "true", list(given.values())


_SOURCE = "read_parquet(?, union_by_name = true, hive_partitioning = false)"


def _names(paths: Iterable[Path]) -> list[str]:
    return [str(path) for path in paths]


def _growing(total: int) -> Iterator[int]:
    count = _FIRST_STEP
    while count < total:
        yield count
        count *= 4
    if total:
        yield total


def _part(path: Path) -> Part | None:
    """None for a foreign file, and for one that was just deleted."""
    try:
        moment = datetime.strptime(path.name.partition("-")[0], _PART_TIME).replace(tzinfo=UTC)
        return Part(path, moment, path.stat().st_size)
    except (ValueError, FileNotFoundError):
        return None


def _is_readable(path: Path) -> bool:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        pq.read_metadata(path)
    except (OSError, pa.ArrowException):
        return False
    return True


def _plain(matrix: Array) -> Array:
    """Half precision as FP32, which holds it exactly and every reader knows."""
    is_half = matrix.dtype == np.float16 or matrix.dtype.name == "bfloat16"
    return matrix.astype(np.float32) if is_half else matrix


def _no_rows() -> "pa.Table":
    import pyarrow as pa

    return pa.table({})


def _duckdb() -> Any:
    import duckdb

    return duckdb
