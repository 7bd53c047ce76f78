"""Tensor data as JSON: lists to arrays and back. What does not fit is refused by tensor and element.

Nothing is allocated from a declared shape: every array is as large as the data that came with it.
"""

import math
from array import array as packed_array
from collections.abc import Mapping
from itertools import chain
from typing import Any

import numpy as np

from serving.core.datatypes import DTYPES, FLOATS, Array, datatype_of, is_finite
from serving.core.errors import InvalidRequest

# JSON numbers say nothing of how a half is rounded; the protocol leaves these two to binary tensors.
ONLY_BINARY = frozenset({"FP16", "BF16"})
_ARRAY_CODES = {"FP32": "f", "FP64": "d"}


def decode_list(data: list[Any], datatype: str, shape: tuple[int, ...], name: str) -> Array:
    """The array of a list, nested or flat, that holds exactly what `shape` declares."""
    if len(shape) > 1 and data and type(data[0]) is list:
        data = _flattened(data, shape, name)
    elif len(data) != math.prod(shape):
        problem = f"shape {list(shape)} holds {math.prod(shape)} elements, the data {len(data)}"
        raise InvalidRequest(problem, tensor=name)
    return shaped(_converted(data, datatype, name), shape, name)


def shaped(array: Array, shape: tuple[int, ...], name: str) -> Array:
    """`array`, which holds as many elements as `shape` does, in that shape."""
    try:
        return array.reshape(shape)
    except ValueError:  # no data and an absurd length beside a zero one
        raise InvalidRequest(f"shape {list(shape)} is too large", tensor=name) from None


def encode_json(name: str, array: Array) -> dict[str, Any]:
    """The tensor for `orjson.dumps(..., option=OPT_SERIALIZE_NUMPY)`, data flat and row-major.

    Floats must be finite (see `first_non_finite`): JSON has no way to write the others.
    """
    datatype = wire_datatype(name, array)
    if datatype in ONLY_BINARY:
        raise only_binary(name, datatype)
    return {"name": name, "shape": array.shape, "datatype": datatype, "data": plain(name, array)}


def plain(name: str, array: Array) -> object:
    """The elements, flat and row-major, as something `orjson` can write."""
    datatype = wire_datatype(name, array)
    if datatype == "BYTES":
        return [_text(item, name) for item in array.ravel().tolist()]
    wire = np.dtype(np.float32) if datatype == "BF16" else DTYPES[datatype]
    if array.dtype == wire and array.flags.c_contiguous:
        return array.reshape(-1)
    return np.ascontiguousarray(array, dtype=wire).reshape(-1)


def wire_datatype(name: str, array: Array) -> str:
    """What an output is called on the wire. Raises `InvalidRequest` for a type no wire can carry."""
    datatype = datatype_of(array.dtype)
    if datatype is None:
        raise InvalidRequest(f"output of type {array.dtype} cannot be sent", tensor=name)
    return datatype


def only_binary(name: str, datatype: str) -> InvalidRequest:
    return InvalidRequest(
        f"{datatype} is carried by binary tensors only, not by JSON (tritonclient: binary_data=True)",
        tensor=name,
    )


def first_non_finite(outputs: Mapping[str, Array]) -> str | None:
    """Name of the first tensor that holds NaN or an infinity."""
    return next((name for name, array in outputs.items() if not is_finite(array)), None)


def _flattened(data: list[Any], shape: tuple[int, ...], name: str) -> list[Any]:
    level = [data]
    for axis, length in enumerate(shape):
        if any(type(row) is not list or len(row) != length for row in level):
            problem = f"nested data does not have shape {list(shape)}: axis {axis} is not {length} long"
            raise InvalidRequest(f"{problem} everywhere", tensor=name)
        level = list(chain.from_iterable(level))
    return level


def _converted(data: list[Any], datatype: str, name: str) -> Array:
    if datatype in FLOATS:
        return _floats(data, datatype, name)
    if datatype == "BOOL":
        _require(data, {bool}, "booleans", name)
        return np.array(data, dtype=np.bool_)
    if datatype == "BYTES":
        _require(data, {str}, "strings", name)
        return np.array(data, dtype=np.object_)
    return _integers(data, datatype, name)


def _floats(data: list[Any], datatype: str, name: str) -> Array:
    # Counting one type is the cheapest full check of a list; numpy alone would take "1", null and true.
    if list(map(type, data)).count(float) != len(data):
        _require(data, {float, int}, "numbers", name)
    numbers = _float_array(data, datatype)
    if not is_finite(numbers):
        raise _out_of_range(data, int(np.argmin(np.isfinite(numbers))), datatype, name)
    return numbers


def _float_array(data: list[Any], datatype: str) -> Array:
    """Numbers beyond the datatype's range become infinite."""
    dtype = DTYPES[datatype]
    code = _ARRAY_CODES.get(datatype)
    if code is not None:  # as fast as numpy, which would have to be told not to warn
        return np.frombuffer(packed_array(code, data), dtype)
    via = np.dtype(np.float32) if datatype == "BF16" else dtype
    with np.errstate(over="ignore"):
        return np.array(data, dtype=via).astype(dtype, copy=False)


def _integers(data: list[Any], datatype: str, name: str) -> Array:
    if list(map(type, data)).count(int) != len(data):
        _require(data, {int, float}, "whole numbers", name)
        data = [_whole(number, datatype, name) for number in data]
    try:
        return np.array(data, dtype=DTYPES[datatype])
    except OverflowError:
        limits = np.iinfo(DTYPES[datatype])
        beyond = (at for at, number in enumerate(data) if not limits.min <= number <= limits.max)
        raise _out_of_range(data, next(beyond), datatype, name) from None


def _whole(number: float, datatype: str, name: str) -> int:
    if type(number) is float and not number.is_integer():
        raise InvalidRequest(f"{number} is not a whole number, as {datatype} requires", tensor=name)
    return int(number)


def _out_of_range(data: list[Any], position: int, datatype: str, name: str) -> InvalidRequest:
    problem = f"element {position} ({data[position]}) is beyond the range of {datatype}"
    return InvalidRequest(problem, tensor=name)


_JSON_NAMES = {type(None): "null", str: "a string", bool: "a boolean", list: "an array", dict: "an object"}


def _require(data: list[Any], allowed: set[type], wanted: str, name: str) -> None:
    for strange in set(map(type, data)) - allowed:
        position = next(position for position, item in enumerate(data) if type(item) is strange)
        found = _JSON_NAMES.get(strange, "a number")
        raise InvalidRequest(f"data must be {wanted}, but element {position} is {found}", tensor=name)


def _text(item: object, name: str) -> str:
    if not isinstance(item, bytes):
        return str(item)
    try:
        return item.decode()
    except UnicodeDecodeError:
        raise InvalidRequest("output bytes are not UTF-8, so JSON cannot carry them", tensor=name) from None
