"""The bodies `mlflow models serve` takes, as arrays for a model's inputs: JSON in four forms, or CSV.

Source: MLflow's scoring protocol. A table without names that match fills the one input of a model row by
row; a model with several inputs takes one column for each, and leaves other columns alone, as MLflow does.
"""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from serving.core.datatypes import FLOATS, Array
from serving.core.errors import InvalidRequest, UnsupportedContent
from serving.core.model import TensorSpec
from serving.formats.loader import LoadedModel
from serving.protocol.json_data import decode_list
from serving.protocol.tensors import parse_body, shape_of


@dataclass(frozen=True, slots=True)
class Table:
    """A dataframe: rows of cells. `is_text` where every cell came as text, as CSV's do."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    is_text: bool = False


@dataclass(frozen=True, slots=True)
class Scoring:
    """One request: a table, tensors by input name, or the data of the only input."""

    data: object

    def table(self, specs: tuple[TensorSpec, ...]) -> Table | None:
        """The data as a table, where that is what it is for a model of these inputs.

        Columns by name are a table for a model with one input, unless one of them is that input.
        """
        if isinstance(self.data, Table):
            return self.data
        if isinstance(self.data, dict) and len(specs) == 1 and specs[0].name not in self.data:
            return _of_columns(self.data)
        return None

    def fit(self, model: LoadedModel) -> dict[str, Array]:
        """Arrays for a model's inputs. Raises `InvalidRequest` naming the tensor."""
        return self.read(model.inputs)

    def read(self, specs: tuple[TensorSpec, ...]) -> dict[str, Array]:
        """Arrays that fit `specs`. Raises `InvalidRequest` naming the tensor."""
        values: Mapping[str, Any]
        if (table := self.table(specs)) is not None:
            values = _of_table(table, specs)
        elif isinstance(self.data, dict):
            values = _of_names(self.data, specs)
        else:
            values = {_only(specs).name: self.data}
        return {spec.name: _array(values[spec.name], spec) for spec in specs}


def parse_scoring(raw: bytes, content_type: str) -> Scoring:
    """Raises `UnsupportedContent` for a content type MLflow's server would not take either."""
    kind, *parameters = [part.strip().lower() for part in content_type.split(";")]
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name != "charset":
            raise UnsupportedContent(f"content type parameter '{name[:40]}' is not known; known is charset")
        if value.strip('"') != "utf-8":
            raise UnsupportedContent("only UTF-8 is read here")
    if kind == "text/csv":
        return Scoring(_csv(raw))
    if kind in ("application/json", ""):
        return Scoring(_json(parse_body(raw)))
    raise UnsupportedContent(
        f"content type '{kind[:80]}' is not read here; known are application/json and text/csv"
    )


def _json(body: Mapping[str, Any]) -> object:
    given = [name for name in _FORMS if name in body]
    if len(given) != 1:
        found = f"not {' and '.join(given)}" if given else "none is there"
        raise InvalidRequest(f"the body must have exactly one of {', '.join(_FORMS)}; {found}")
    [name] = given
    return _FORMS[name](body[name])


def _split(value: object) -> Table:
    rows = value.get("data") if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(rows, list):
        raise InvalidRequest("'dataframe_split' must be an object with 'columns' and 'data'")
    if not all(isinstance(row, list) for row in rows):
        raise InvalidRequest("'data' of 'dataframe_split' must be an array of rows")
    width = len(rows[0]) if rows else 0
    columns = value.get("columns", [str(number) for number in range(width)])
    if not isinstance(columns, list):
        raise InvalidRequest("'columns' of 'dataframe_split' must be an array of names")
    return _even(Table([str(column) for column in columns], rows))


def _records(value: object) -> Table:
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise InvalidRequest("'dataframe_records' must be an array of objects")
    columns = list(value[0]) if value else []
    for number, row in enumerate(value):
        if row.keys() != value[0].keys():
            odd = min(row.keys() ^ value[0].keys())
            raise InvalidRequest(f"row {number} and the first row do not both have '{odd}'")
    return Table(columns, [[row[column] for column in columns] for row in value])


def _instances(value: object) -> object:
    """Row by row: either rows of the one input, or objects with a row of each input."""
    if not isinstance(value, list):
        raise InvalidRequest("'instances' must be an array")
    if not value or not isinstance(value[0], dict):
        return value
    table = _records(value)
    return {name: [row[at] for row in table.rows] for at, name in enumerate(table.columns)}


def _csv(raw: bytes) -> Table:
    try:
        rows = [row for row in csv.reader(io.StringIO(raw.decode("utf-8-sig"))) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidRequest(f"the body is not CSV in UTF-8: {error}") from None
    if not rows:
        raise InvalidRequest("the CSV has no header line")
    return _even(Table(rows[0], rows[1:], is_text=True))


def _even(table: Table) -> Table:
    for number, row in enumerate(table.rows):
        if len(row) != len(table.columns):
            raise InvalidRequest(f"row {number} has {len(row)} cells for {len(table.columns)} columns")
    return table


def _of_columns(data: Mapping[str, Any]) -> Table | None:
    """None where they are no columns of one length."""
    columns = list(data.values())
    if not all(isinstance(column, list) and len(column) == len(columns[0]) for column in columns):
        return None
    return Table(list(data), [list(row) for row in zip(*columns, strict=True)])


def _same(value: object) -> object:
    return value


_FORMS: Mapping[str, Callable[[object], object]] = {
    "inputs": _same,
    "instances": _instances,
    "dataframe_split": _split,
    "dataframe_records": _records,
}


def _only(specs: tuple[TensorSpec, ...]) -> TensorSpec:
    if len(specs) != 1:
        raise InvalidRequest(f"the model takes {_names(specs)}: give the data of each by its name")
    return specs[0]


def _of_names(data: Mapping[str, Any], specs: tuple[TensorSpec, ...]) -> Mapping[str, Any]:
    for name in data:
        if name not in {spec.name for spec in specs}:
            raise InvalidRequest(f"unknown input; the model takes {_names(specs)}", tensor=str(name))
    for spec in specs:
        if spec.name not in data:
            raise InvalidRequest(f"missing; the model takes {_names(specs)}", tensor=spec.name)
    return data


def _of_table(table: Table, specs: tuple[TensorSpec, ...]) -> dict[str, Any]:
    if len(specs) == 1 and list(table.columns) != [specs[0].name]:
        return {specs[0].name: [_cells(row, specs[0], table) for row in table.rows]}
    values = {}
    for spec in specs:
        if spec.name not in table.columns:
            raise InvalidRequest(f"no such column; the model takes {_names(specs)}", tensor=spec.name)
        at = list(table.columns).index(spec.name)
        cells = _cells([row[at] for row in table.rows], spec, table)
        is_matrix = spec.dims is not None and len(spec.dims) == 2
        values[spec.name] = [[cell] if is_matrix and not isinstance(cell, list) else cell for cell in cells]
    return values


def _cells(cells: Sequence[Any], spec: TensorSpec, table: Table) -> list[Any]:
    if not table.is_text or spec.datatype == "BYTES":
        return list(cells)
    return [_number(cell.strip(), spec) for cell in cells]


def _number(text: str, spec: TensorSpec) -> float | int | bool:
    if spec.datatype == "BOOL" and text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return float(text) if spec.datatype in FLOATS else _whole(text)
    except ValueError:
        raise InvalidRequest(f"'{text[:40]}' is not a number", tensor=spec.name) from None


def _whole(text: str) -> float | int:
    try:
        return int(text)
    except ValueError:
        return float(text)


def _array(value: object, spec: TensorSpec) -> Array:
    tensor = {"shape": _shape(value)}
    shape = shape_of(tensor, spec)
    return decode_list(value if isinstance(value, list) else [value], spec.datatype, shape, spec.name)


def _shape(value: object) -> list[int]:
    """Lengths along the first element of each axis; whether all agree is for the decoder to say."""
    shape = []
    while isinstance(value, list):
        shape.append(len(value))
        value = value[0] if value else None
    return shape


def _names(specs: tuple[TensorSpec, ...]) -> str:
    return ", ".join(f"'{spec.name}'" for spec in specs)
