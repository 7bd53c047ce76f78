"""Bundles of answered requests as one Parquet part; the only module of serving that uses Arrow.

Called on the log's own thread. Arrow arrays are made from buffers, because Arrow's conversion of
Python values imports pandas, which a server must not carry.
"""

import hashlib
import io
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from importlib import import_module
from math import prod
from random import Random
from typing import Any, TypeGuard

import numpy as np

from serving.core.datatypes import Array
from serving.store.inference_log import MAX_ELEMENTS, OUTPUTS_KEY, output_name, row_columns
from serving.telemetry.sheaf import Bundle, Condensed, Kept

_RAW = ".raw"
_REPEATED = ("model", "version", "variant", "status")
# The columns a reader selects by; they stay whatever the privacy settings say.
_KEPT = frozenset({"time", "row", "model", "version", "variant", "status", "latency_ms"})


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


def parquet(bundles: Sequence[Bundle], privacy: Privacy, raw_ratio: float, chance: Random) -> bytes:
    """Bundles of one version as the content of a Parquet file, one row per batch row."""
    import pyarrow as pa

    groups = _alike([condensed(bundle, raw_ratio, chance) for bundle in bundles])
    tables = [
        pa.Table.from_arrays(
            [_arrow(column, is_binary=name.endswith(_RAW)) for name, column in columns.items()],
            names=list(columns),
        )
        for group in groups
        for columns in [_columns(group, privacy)]
    ]
    whole = pa.concat_tables(tables, promote_options="permissive") if len(tables) > 1 else tables[0]
    return _file(whole, _legible([group[0] for group in groups], privacy))


def condensed(bundle: Bundle, raw_ratio: float, chance: Random) -> Bundle:
    """The bundle with figures in the place of its large tensors, and of their rows those drawn to be kept."""

    def kept(tensors: Mapping[str, Kept]) -> dict[str, Kept]:
        return {
            name: _condensed(pieces, raw_ratio, chance) if _is_large(pieces) else pieces
            for name, pieces in tensors.items()
        }

    freed_bytes = sum(
        piece.nbytes
        for pieces in (*bundle.inputs.values(), *bundle.outputs.values())
        if _is_large(pieces)
        for piece in pieces
    )
    small = replace(bundle, inputs=kept(bundle.inputs), outputs=kept(bundle.outputs))
    return replace(small, size_bytes=max(0, bundle.size_bytes - freed_bytes))


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


def _legible(bundles: Sequence[Bundle], privacy: Privacy) -> list[str]:
    """Names of the outputs whose columns say what the model said; a hash of an answer is no answer."""
    names: dict[str, None] = {}
    for bundle in bundles:
        names |= dict.fromkeys(output_name(name, bundle.inputs) for name in bundle.outputs)
    return [name for name in names if not privacy.touches(name)]


def _alike(bundles: Sequence[Bundle]) -> list[list[Bundle]]:
    """Bundles whose tensors stack: equal names, datatypes and row shapes."""
    groups: dict[object, list[Bundle]] = defaultdict(list)
    for bundle in bundles:
        groups[_signature(bundle)].append(bundle)
    return list(groups.values())


def _signature(bundle: Bundle) -> object:
    """Equal for bundles that stack."""
    marks: list[object] = []
    for tensors in (bundle.inputs, bundle.outputs):
        marks += [(name, _form(kept)) for name, kept in tensors.items()]
        marks.append(None)
    return tuple(marks)


def _form(kept: Kept) -> tuple[int, tuple[int, ...]]:
    """A tensor's datatype, as numpy numbers it, and the shape of one row."""
    return kept.form if isinstance(kept, Condensed) else (kept[0].dtype.num, kept[0].shape[1:])


def _columns(group: Sequence[Bundle], privacy: Privacy) -> dict[str, Array]:
    first = group[0]
    tensors = {name: [each.inputs[name] for each in group] for name in first.inputs}
    tensors |= {
        output_name(name, first.inputs): [each.outputs[name] for each in group] for name in first.outputs
    }
    columns = _fixed(group)
    for name, kept in tensors.items():
        columns |= _tensor(name, kept)
    return {
        name: _hashed(column) if privacy.hashes(name) else column
        for name, column in columns.items()
        if not privacy.drops(name)
    }


def _fixed(group: Sequence[Bundle]) -> dict[str, Array]:
    rows = [len(each) for each in group]
    total, ref = sum(rows), group[0].ref
    seconds = np.concatenate([np.repeat(each.times, each.rows_each) for each in group])
    ids = [np.repeat(_objects(each.ids), each.rows_each) for each in group]
    latencies = [np.repeat(each.latencies, each.rows_each) for each in group]
    return {
        # Microseconds since 1970 fit a float exactly.
        "time": np.rint(seconds * 1e6).astype(np.int64).view("datetime64[us]"),
        "request_id": np.concatenate(ids),
        "row": np.concatenate(
            [np.tile(np.arange(each.rows_each, dtype=np.int32), len(each.ids)) for each in group]
        ),
        "model": np.repeat(_objects([ref.model]), total),
        "version": np.repeat(_objects([ref.version]), total),
        "variant": np.repeat(_objects([each.variant for each in group]), rows),
        "status": np.repeat(_objects([each.status for each in group]), rows),
        "latency_ms": np.concatenate(latencies) * 1000,
    }


def _tensor(name: str, group: Sequence[Kept]) -> dict[str, Array]:
    """The columns of one tensor of bundles that stack."""
    large = [kept.columns for kept in group if isinstance(kept, Condensed)]
    if large:
        return {name + end: np.concatenate([columns[end] for columns in large]) for end in large[0]}
    pieces = [piece for kept in group if not isinstance(kept, Condensed) for piece in kept]
    rows = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
    # Turned over at once: a column taken by itself is read in as many places as it has rows.
    return row_columns(name, np.asfortranarray(rows.reshape(len(rows), prod(rows.shape[1:]))))


def _is_large(kept: Kept) -> TypeGuard[Sequence[Array]]:
    if isinstance(kept, Condensed):
        return False
    return prod(kept[0].shape[1:]) > MAX_ELEMENTS and kept[0].dtype.kind != "O"


def _condensed(pieces: Sequence[Array], raw_ratio: float, chance: Random) -> Condensed:
    # Piece by piece: a copy of all of them together would not fit any cache.
    figures = [row_columns("", piece) for piece in pieces]
    columns = {end: np.concatenate([each[end] for each in figures]) for end in figures[0]}
    if raw_ratio > 0:
        drawn = [_npy(row) if chance.random() < raw_ratio else None for piece in pieces for row in piece]
        columns[_RAW] = _objects(drawn)
    return Condensed(_form(pieces), columns)


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
    buffers = [_present(values), pa.py_buffer(offsets), pa.py_buffer(content)]
    kind = pa.large_binary() if is_binary else pa.large_string()
    return pa.Array.from_buffers(kind, len(values), buffers)


def _present(values: Sequence[Any]) -> Any:
    """Arrow's mark of what is there; None where everything is."""
    import pyarrow as pa

    if None not in values:
        return None
    present = np.array([value is not None for value in values], dtype=np.bool_)
    return pa.py_buffer(np.packbits(present, bitorder="little"))


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
