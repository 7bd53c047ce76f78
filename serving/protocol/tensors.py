"""Wire tensors to numpy and back: what a client sent is what the model gets, or a 400 naming the tensor.

Called once per tensor of a request. Nothing is allocated from a declared shape: every
array is as large as the data that came with it.
"""

import json
import math
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import orjson

from serving.core.datatypes import DTYPES, FLOATS, Array, datatype_of, is_finite
from serving.core.errors import InvalidRequest
from serving.core.model import TensorSpec

_MAX_RANK = 32


def parse_body(raw: bytes) -> dict[str, Any]:
    """The request as an object. NaN and Infinity are no JSON: their tensor is named in the refusal."""
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        if _may_hold_non_finite(raw, str(error)):
            _refuse_non_finite(raw)
        raise InvalidRequest(f"the body is not valid JSON: {error}") from None
    if not isinstance(body, dict):
        raise InvalidRequest("the body must be a JSON object")
    return body


def check_request_inputs(tensors: object, specs: Sequence[TensorSpec]) -> dict[str, Array]:
    """Arrays by name for exactly the inputs of `specs`, from the `inputs` of a request."""
    if not isinstance(tensors, list):
        raise InvalidRequest("'inputs' must be an array of tensors")
    by_name = {spec.name: spec for spec in specs}
    arrays: dict[str, Array] = {}
    for tensor in tensors:
        name = _name_of(tensor)
        if name in arrays:
            raise InvalidRequest("given more than once", tensor=name)
        if name not in by_name:
            raise InvalidRequest(f"unknown input; the model takes {_listed(by_name)}", tensor=name)
        arrays[name] = decode_json(tensor, by_name[name])
    for name in by_name:
        if name not in arrays:
            raise InvalidRequest(f"missing; the model takes {_listed(by_name)}", tensor=name)
    return arrays


def decode_json(tensor: Mapping[str, Any], spec: TensorSpec) -> Array:
    """The tensor's array, in the datatype and shape that both it and `spec` declare."""
    name = spec.name
    datatype = tensor.get("datatype")
    if datatype != spec.datatype:
        raise InvalidRequest(f"datatype must be {spec.datatype}, not {datatype!r}", tensor=name)
    shape = _shape_of(tensor, spec)
    data = tensor.get("data")
    if not isinstance(data, list):
        raise InvalidRequest("'data' must be an array", tensor=name)
    if len(shape) > 1 and data and type(data[0]) is list:
        data = _flattened(data, shape, name)
    elif len(data) != math.prod(shape):
        problem = f"shape {list(shape)} holds {math.prod(shape)} elements, the data {len(data)}"
        raise InvalidRequest(problem, tensor=name)
    try:
        return _converted(data, datatype, name).reshape(shape)
    except ValueError:  # no data and an absurd length beside a zero one
        raise InvalidRequest(f"shape {list(shape)} is too large", tensor=name) from None


def encode_json(name: str, array: Array) -> dict[str, Any]:
    """The tensor for `orjson.dumps(..., option=OPT_SERIALIZE_NUMPY)`, data flat and row-major.

    Floats must be finite (see `first_non_finite`): JSON has no way to write the others.
    """
    datatype = datatype_of(array.dtype)
    if datatype is None:
        raise InvalidRequest(f"output of type {array.dtype} cannot be sent", tensor=name)
    data: object
    if datatype == "BYTES":
        data = [_text(item, name) for item in array.ravel().tolist()]
    else:
        wire = np.dtype(np.float32) if datatype == "BF16" else DTYPES[datatype]
        data = np.ascontiguousarray(array, dtype=wire).reshape(-1)
    return {"name": name, "shape": list(array.shape), "datatype": datatype, "data": data}


def first_non_finite(outputs: Mapping[str, Array]) -> str | None:
    """Name of the first tensor that holds NaN or an infinity."""
    return next((name for name, array in outputs.items() if not is_finite(array)), None)


def _listed(by_name: Mapping[str, TensorSpec]) -> str:
    return ", ".join(f"'{name}'" for name in by_name) or "no inputs"


def _name_of(tensor: object) -> str:
    name = tensor.get("name") if isinstance(tensor, dict) else None
    if not isinstance(name, str):
        raise InvalidRequest("every entry of 'inputs' must be an object with a 'name'")
    return name


def _shape_of(tensor: Mapping[str, Any], spec: TensorSpec) -> tuple[int, ...]:
    shape = tensor.get("shape")
    if not isinstance(shape, list) or any(type(length) is not int or length < 0 for length in shape):
        raise InvalidRequest("'shape' must be an array of integers of at least 0", tensor=spec.name)
    if len(shape) > _MAX_RANK:
        raise InvalidRequest(f"shape has more than {_MAX_RANK} axes", tensor=spec.name)
    if not spec.accepts_shape(tuple(shape)):
        problem = f"shape {shape} does not fit {spec.wire_shape} (-1 is any length)"
        raise InvalidRequest(problem, tensor=spec.name)
    return tuple(shape)


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
    via = np.dtype(np.float32) if datatype == "BF16" else DTYPES[datatype]
    with np.errstate(over="ignore"):
        array = np.array(data, dtype=via).astype(DTYPES[datatype], copy=False)
    if not is_finite(array):
        raise _out_of_range(data, int(np.argmin(np.isfinite(array))), datatype, name)
    return array


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


def _may_hold_non_finite(raw: bytes, reason: str) -> bool:
    return b"NaN" in raw or b"Infinity" in raw or "infinity" in reason


def _refuse_non_finite(raw: bytes) -> None:
    """Parse again with the lenient standard parser, only to find the culprit; returns if there is none."""
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        return
    tensors = body.get("inputs") if isinstance(body, dict) else None
    for tensor in tensors if isinstance(tensors, list) else ():
        if isinstance(tensor, dict) and _holds_non_finite(tensor.get("data")):
            problem = "data holds NaN, Infinity or a number beyond FP64, which JSON tensors cannot carry"
            raise InvalidRequest(problem, tensor=str(tensor.get("name")))


def _holds_non_finite(data: object) -> bool:
    waiting = [data]
    while waiting:
        item = waiting.pop()
        if isinstance(item, list):
            waiting.extend(item)
        elif isinstance(item, float) and not math.isfinite(item):
            return True
    return False
