"""Records of answers as one Parquet part; the only module of serving that uses Arrow.

Called on the log's own thread. Arrow arrays are made from buffers, because Arrow's conversion of
Python values imports pandas, which a server must not carry.
"""

import hashlib
import io
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from importlib import import_module
from random import Random
from typing import Any, NamedTuple

import numpy as np

from serving.core.datatypes import Array
from serving.core.model import VersionRef
from serving.store.inference_log import MAX_ELEMENTS, OUTPUTS_KEY, output_name, row_columns

_RAW = ".raw"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = datetime.resolution
_REPEATED = ("model", "version", "variant", "status")
# The columns a reader selects by; they stay whatever the privacy settings say.
_KEPT = frozenset({"time", "row", "model", "version", "variant", "status", "latency_ms"})


class Record(NamedTuple):
    """One answered request. `rows` is None where the first axis is no batch: then it is one row."""

    at: datetime
    ref: VersionRef
    request_id: str
    variant: str
    status: str
    latency_seconds: float
    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]
    rows: int | None


@dataclass(frozen=True, slots=True)
class Privacy:
    """Name globs of columns that are left out, or written as the SHA-256 of their value's text."""

    drop: tuple[str, ...] = ()
    hash: tuple[str, ...] = ()

    def drops(self, column: str) -> bool:
        return column not in _KEPT and any(fnmatchcase(column, glob) for glob in self.drop)

    def touches(self, tensor: str) -> bool:
        """Whether a column of this tensor is not written as it is."""
        columns = [f"{tensor}.{index}" for index in range(MAX_ELEMENTS)]
        return any(self.drops(column) or self.hashes(column) for column in columns)

    def hashes(self, column: str) -> bool:
        return column not in _KEPT and any(fnmatchcase(column, glob) for glob in self.hash)


def import_arrow() -> None:
    """Takes a third of a second, which the first rows of a busy server should not meet."""
    import_module("pyarrow.parquet")


def parquet(records: Sequence[Record], privacy: Privacy, raw_ratio: float, chance: Random) -> bytes:
    """Records of one version as the content of a Parquet file, one row per batch row."""
    import pyarrow as pa

    groups = list(_alike(records))
    tables = [
        pa.Table.from_arrays(
            [_arrow(column, is_binary=name.endswith(_RAW)) for name, column in columns.items()],
            names=list(columns),
        )
        for group in groups
        for columns in [_columns(group, privacy, raw_ratio, chance)]
    ]
    whole = pa.concat_tables(tables, promote_options="permissive")
    return _file(whole, _legible([group[0] for group in groups], privacy))


def table_file(columns: Mapping[str, Array]) -> bytes:
    """Columns, (rows,) each, as the content of a Parquet file."""
    import pyarrow as pa

    arrays = [_arrow(column, is_binary=False) for column in columns.values()]
    return _file(pa.Table.from_arrays(arrays, names=list(columns)), ())


def _file(table: Any, outputs: Sequence[str]) -> bytes:
    import pyarrow.parquet as pq

    file = io.BytesIO()
    # A quiet model fills a part with a few rows, so what is written per column and not per row counts.
    with pq.ParquetWriter(
        file,
        table.schema,
        compression="zstd",
        compression_level=1,
        write_statistics=["time"],
        # Of numbers nearly every one is different: a dictionary costs three times the time, and bytes.
        use_dictionary=[name for name in _REPEATED if name in table.column_names],
        store_schema=False,
    ) as writer:
        writer.add_key_value_metadata({OUTPUTS_KEY: json.dumps(outputs)})
        writer.write_table(table)
    return file.getvalue()


def _legible(records: Sequence[Record], privacy: Privacy) -> list[str]:
    """Names of the outputs whose columns say what the model said; a hash of an answer is no answer."""
    names: dict[str, None] = {}
    for record in records:
        names |= dict.fromkeys(output_name(name, record.inputs) for name in record.outputs)
    return [name for name in names if not privacy.touches(name)]


def _alike(records: Sequence[Record]) -> Iterator[list[Record]]:
    """Records whose tensors stack: equal names, datatypes and row shapes."""
    groups: dict[object, list[Record]] = defaultdict(list)
    for record in records:
        groups[_signature(record)].append(record)
    yield from groups.values()


def _signature(record: Record) -> object:
    """Equal for records that stack. A tensor without the batch axis is told apart from one that has it."""
    rows = record.rows
    marks: list[object] = [rows is None]
    for tensors in (record.inputs, record.outputs):
        for name, array in tensors.items():
            shape = array.shape
            has_rows = rows is not None and shape and shape[0] == rows
            marks += (name, array.dtype.num, shape[1:] if has_rows else (None, shape))
        marks.append(None)
    return tuple(marks)


def _has_rows(array: Array, rows: int | None) -> bool:
    return rows is not None and array.ndim > 0 and array.shape[0] == rows


def _columns(group: Sequence[Record], privacy: Privacy, raw_ratio: float, chance: Random) -> dict[str, Array]:
    tensors = {name: [record.inputs[name] for record in group] for name in group[0].inputs}
    tensors |= {
        output_name(name, group[0].inputs): [record.outputs[name] for record in group]
        for name in group[0].outputs
    }
    columns = _fixed(group)
    for name, arrays in tensors.items():
        columns |= _tensor(name, _stacked(arrays, group), raw_ratio, chance)
    return {
        name: _hashed(column) if privacy.hashes(name) else column
        for name, column in columns.items()
        if not privacy.drops(name)
    }


def _fixed(group: Sequence[Record]) -> dict[str, Array]:
    counts = np.array([_row_count(record) for record in group])
    total, ref = int(counts.sum()), group[0].ref
    # Microseconds since 1970 fit a float exactly.
    times = np.rint(np.array([record.at.timestamp() for record in group]) * 1e6).astype(np.int64)
    return {
        "time": np.repeat(times, counts).view("datetime64[us]"),
        "request_id": np.repeat(_objects([record.request_id for record in group]), counts),
        "row": (np.arange(total) - np.repeat(counts.cumsum() - counts, counts)).astype(np.int32),
        "model": _objects([ref.model] * total),
        "version": _objects([ref.version] * total),
        "variant": np.repeat(_objects([record.variant for record in group]), counts),
        "status": np.repeat(_objects([record.status for record in group]), counts),
        "latency_ms": np.repeat(np.array([record.latency_seconds for record in group]) * 1000, counts),
    }


def _row_count(record: Record) -> int:
    return 1 if record.rows is None else record.rows


def _stacked(arrays: Sequence[Array], group: Sequence[Record]) -> Array:
    """One tensor of all records, (rows, ...); what has no batch axis stands in each of its rows."""
    if _has_rows(arrays[0], group[0].rows):
        return np.concatenate(arrays)
    counts = [_row_count(record) for record in group]
    return np.concatenate(
        [np.broadcast_to(array, (count, *array.shape)) for array, count in zip(arrays, counts, strict=True)]
    )


def _tensor(name: str, rows: Array, raw_ratio: float, chance: Random) -> dict[str, Array]:
    columns = row_columns(name, rows)
    is_large = rows.size > MAX_ELEMENTS * len(rows) and rows.dtype.kind != "O"
    if is_large and raw_ratio > 0:
        sampled = [_npy(row) if chance.random() < raw_ratio else None for row in rows]
        columns[name + _RAW] = _objects(sampled)
    return columns


def _npy(row: Array) -> bytes:
    """A row in numpy's own file format, which carries its datatype and shape."""
    file = io.BytesIO()
    np.save(file, row if row.dtype.kind in "biuf" else row.astype(np.float32), allow_pickle=False)
    return file.getvalue()


def _hashed(column: Array) -> Array:
    hexes = [
        None if value is None else hashlib.sha256(_bytes(value)).hexdigest() for value in column.tolist()
    ]
    return _objects(hexes)


def _objects(values: Sequence[object]) -> Array:
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column


def _bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "backslashreplace")


def _arrow(column: Array, *, is_binary: bool) -> Any:
    import pyarrow as pa

    if column.dtype == object:
        return _arrow_bytes(column, is_binary=is_binary)
    if column.dtype.kind == "b":
        bits = np.packbits(column, bitorder="little")
        return pa.Array.from_buffers(pa.bool_(), len(column), [None, pa.py_buffer(bits)])
    kind = pa.timestamp("us", "UTC") if column.dtype.kind == "M" else pa.from_numpy_dtype(column.dtype)
    return pa.Array.from_buffers(kind, len(column), [None, pa.py_buffer(np.ascontiguousarray(column))])


def _arrow_bytes(column: Array, *, is_binary: bool) -> Any:
    """Variable-length values; text that is no UTF-8 is written with its bytes escaped."""
    import pyarrow as pa

    values = column.tolist()
    content, sizes = _ascii(values) or _encoded(values, is_binary=is_binary)
    offsets = np.zeros(len(values) + 1, dtype=np.int64)
    np.cumsum(sizes, out=offsets[1:])
    present = np.packbits(
        np.array([value is not None for value in values], dtype=np.bool_), bitorder="little"
    )
    buffers = [pa.py_buffer(present), pa.py_buffer(offsets), pa.py_buffer(content)]
    kind = pa.large_binary() if is_binary else pa.large_string()
    return pa.Array.from_buffers(kind, len(values), buffers)


def _ascii(values: Sequence[Any]) -> tuple[bytes, list[int]] | None:
    """Content and sizes of plain text, which is nearly all there is; None for anything else."""
    try:
        joined = "".join(values)
    except TypeError:
        return None
    return (joined.encode(), list(map(len, values))) if joined.isascii() else None


def _encoded(values: Sequence[Any], *, is_binary: bool) -> tuple[bytes, list[int]]:
    encoded = [b"" if value is None else _bytes(value) for value in values]
    if not is_binary:
        encoded = [text.decode("utf-8", "backslashreplace").encode() for text in encoded]
    return b"".join(encoded), list(map(len, encoded))
