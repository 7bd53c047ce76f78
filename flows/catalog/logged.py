"""Recent inputs from the inference log as one file that the measuring process can read.

Called by `flows.catalog.validate`. The log knows columns, not shapes: each tensor is kept as
`flat:<name>` (rows, elements), or `whole:<name>` where the log holds it in its own shape, with
`valid:<name>` (rows,) saying in which rows it is there. What a model takes of that it decides itself.
"""

import io
import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from serving.core.datatypes import Array
from serving.core.errors import SignalboxError
from serving.store.inference_log import FIXED_COLUMNS, read

if TYPE_CHECKING:
    import pyarrow as pa

FLAT, WHOLE, VALID = "flat:", "whole:", "valid:"

_ELEMENT = re.compile(r"(?P<name>.+)\.(?P<at>\d+)", re.DOTALL)
_RAW = ".raw"
# So that a few refused requests among them leave enough.
_READ_TIMES = 2


class NothingLogged(SignalboxError):
    """There are no inputs to ask again, for the reason given."""


def recent_inputs(folder: Path, model: str, rows: int, target: Path) -> Path:
    """Write the newest `rows` rows of a model that were answered to `target`. Raises `NothingLogged`."""
    table = _answered(read(folder, model, limit=rows * _READ_TIMES), rows)
    if not table.num_rows:
        raise NothingLogged(f"the inference log holds no rows of '{model}' that were answered")
    arrays: dict[str, Array] = {}
    columns = [name for name in table.column_names if name not in FIXED_COLUMNS]
    for name, parts in _elements(columns).items():
        arrays |= _flat(table, name, parts)
    for column in columns:
        if column.endswith(_RAW):
            arrays |= _whole(table, column)
    if not arrays:
        raise NothingLogged(f"the inference log holds no whole tensors of '{model}'")
    np.savez(target, allow_pickle=False, **arrays)
    return target


def _answered(table: "pa.Table", rows: int) -> "pa.Table":
    """What was refused, timed out or failed then proves nothing against a version now."""
    import pyarrow.compute as pc

    if not table.num_rows:
        return table
    found = table.filter(pc.equal(table.column("status"), "ok"))
    return found.slice(max(0, found.num_rows - rows))


def _elements(columns: list[str]) -> dict[str, list[str]]:
    """The columns of each tensor in the order of its elements; a tensor with gaps is none."""
    found: dict[str, dict[int, str]] = defaultdict(dict)
    for column in columns:
        if match := _ELEMENT.fullmatch(column):
            found[match["name"]][int(match["at"])] = column
    whole = {name: parts for name, parts in found.items() if set(parts) == set(range(len(parts)))}
    return {name: [parts[at] for at in range(len(parts))] for name, parts in whole.items()}


def _flat(table: "pa.Table", name: str, columns: list[str]) -> dict[str, Array]:
    import pyarrow.compute as pc

    valid = np.ones(table.num_rows, dtype=np.bool_)
    values = []
    for column in columns:
        held = table.column(column)
        valid &= held.is_valid().to_numpy()
        kind = held.type
        blank = "" if _is_text(kind) else False if str(kind) == "bool" else 0
        array = pc.fill_null(held, blank).to_numpy()
        values.append(array.astype(np.str_) if array.dtype == np.object_ else array)
    return {f"{FLAT}{name}": np.stack(values, axis=1), f"{VALID}{name}": valid}


def _whole(table: "pa.Table", column: str) -> dict[str, Array]:
    """Rows that the log sampled in full; those of another shape than most are left out."""
    rows = [_npy(value) for value in table.column(column).to_pylist()]
    shapes = Counter(row.shape for row in rows if row is not None)
    if not shapes:
        return {}
    (shape, _count), *_others = shapes.most_common(1)
    blank = np.zeros(shape, next(row.dtype for row in rows if row is not None and row.shape == shape))
    kept = [row if row is not None and row.shape == shape else None for row in rows]
    name = column.removesuffix(_RAW)
    return {
        f"{WHOLE}{name}": np.stack([blank if row is None else row for row in kept]),
        f"{VALID}{name}": np.array([row is not None for row in kept]),
    }


def _npy(value: object) -> Array | None:
    if not isinstance(value, bytes):
        return None
    try:
        array: Array = np.load(io.BytesIO(value), allow_pickle=False)
    except (ValueError, EOFError, OSError):
        return None
    return array


def _is_text(kind: object) -> bool:
    return "string" in str(kind)
