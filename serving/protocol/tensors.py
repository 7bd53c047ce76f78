"""Wire tensors to arrays: what a client sent is what the model gets, or a 400 naming the tensor.

Every transport brings its tensors as mappings with `name`, `datatype`, `shape` and `data`; `data` is a
list where it came as JSON, bytes where it came raw.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from serving.core.datatypes import Array
from serving.core.errors import InvalidRequest
from serving.core.model import TensorSpec
from serving.protocol.json_data import ONLY_BINARY, decode_list, only_binary
from serving.protocol.raw_data import Buffer, decode_raw

_MAX_RANK = 32


def parse_body(raw: Buffer) -> dict[str, Any]:
    """The request as an object. NaN and Infinity are no JSON: their tensor is named in the refusal."""
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        _refuse_non_finite(bytes(raw), str(error))
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
        arrays[name] = decode(tensor, by_name[name])
    for name in by_name:
        if name not in arrays:
            raise InvalidRequest(f"missing; the model takes {_listed(by_name)}", tensor=name)
    return arrays


def decode(tensor: Mapping[str, Any], spec: TensorSpec) -> Array:
    """The tensor's array, in the datatype and shape that both it and `spec` declare."""
    datatype = tensor.get("datatype")
    if datatype != spec.datatype:
        raise InvalidRequest(f"datatype must be {spec.datatype}, not {datatype!r}", tensor=spec.name)
    shape = shape_of(tensor, spec)
    data = tensor.get("data")
    if isinstance(data, list):
        if datatype in ONLY_BINARY:
            raise only_binary(spec.name, datatype)
        return decode_list(data, datatype, shape, spec.name)
    if isinstance(data, bytes | memoryview):
        return decode_raw(data, datatype, shape, spec.name)
    raise InvalidRequest(_no_data(tensor), tensor=spec.name)


def _no_data(tensor: Mapping[str, Any]) -> str:
    parameters = tensor.get("parameters")
    given = parameters if isinstance(parameters, dict) else {}
    if "shared_memory_region" in given:
        return "shared memory is not read by this server: send the data itself"
    if "binary_data_size" in given and "data" not in tensor:
        return "binary data needs the header Inference-Header-Content-Length"
    return "'data' must be an array"


def _listed(by_name: Mapping[str, TensorSpec]) -> str:
    return ", ".join(f"'{name}'" for name in by_name) or "no inputs"


def _name_of(tensor: object) -> str:
    name = tensor.get("name") if isinstance(tensor, dict) else None
    if not isinstance(name, str):
        raise InvalidRequest("every entry of 'inputs' must be an object with a 'name'")
    return name


def shape_of(tensor: Mapping[str, Any], spec: TensorSpec) -> tuple[int, ...]:
    """The tensor's declared shape, which fits `spec`."""
    shape = tensor.get("shape")
    if not isinstance(shape, list) or not _are_lengths(shape):
        raise InvalidRequest("'shape' must be an array of integers of at least 0", tensor=spec.name)
    if len(shape) > _MAX_RANK:
        raise InvalidRequest(f"shape has more than {_MAX_RANK} axes", tensor=spec.name)
    lengths = tuple(shape)
    if not spec.accepts_shape(lengths):
        problem = f"shape {shape} does not fit {spec.wire_shape} (-1 is any length)"
        raise InvalidRequest(problem, tensor=spec.name)
    return lengths


def _are_lengths(shape: list[Any]) -> bool:
    for length in shape:  # noqa: SIM110 - a generator would take longer to begin than to end
        if type(length) is not int or length < 0:
            return False
    return True


def _refuse_non_finite(raw: bytes, reason: str) -> None:
    """Parse again with the lenient standard parser, only to find the culprit; returns if there is none."""
    if b"NaN" not in raw and b"Infinity" not in raw and "infinity" not in reason:
        return
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
