"""An inference request as every transport brings it: inputs, outputs asked for, parameters, id.

Source: Open Inference Protocol v2 (REST inference) and Triton's extensions for binary tensors and
classification.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeVar

from serving.core.datatypes import DTYPES, Array
from serving.core.errors import InvalidRequest
from serving.core.model import TensorSpec
from serving.formats.loader import LoadedModel
from serving.protocol.json_data import ONLY_BINARY, only_binary
from serving.protocol.raw_data import Buffer, decode_raw
from serving.protocol.tensors import check_request_inputs, parse_body

Output = TypeVar("Output")
_KNOWN_FIELDS = frozenset({"id", "parameters", "inputs", "outputs", "model_name", "model_version"})
_BYTES_ELEMENT_HEADER = 4


@dataclass(frozen=True, slots=True)
class Wanted:
    """How one output is to be sent: as bytes or JSON, and as the `classes` best of it where that is not 0."""

    name: str
    is_binary: bool
    classes: int = 0


@dataclass(frozen=True, slots=True)
class InferRequest:
    """`wanted` is empty where all outputs are asked for. `inputs` is bytes where there is no JSON at all.

    `wants_analytics` asks for figures on whoever answers.
    """

    inputs: object
    wanted: tuple[Wanted, ...] = ()
    is_binary: bool = False
    parameters: Mapping[str, Any] = field(default_factory=dict)
    id: str | None = None
    wants_analytics: bool = False

    def fit(self, model: LoadedModel) -> dict[str, Array]:
        """The inputs as arrays for a model that can give what is asked for. Raises `InvalidRequest`."""
        self.check_outputs(model.outputs)
        return self.read(model.inputs)

    def read(self, specs: tuple[TensorSpec, ...]) -> dict[str, Array]:
        """The inputs as arrays that fit `specs`. Raises `InvalidRequest` naming the tensor."""
        if isinstance(self.inputs, bytes | memoryview):
            return _only_tensor(self.inputs, specs)
        return check_request_inputs(self.inputs, specs)

    def chosen(self, outputs: Mapping[str, Output]) -> list[tuple[Wanted, Output]]:
        """The outputs the request names, in its order; all of them if it names none."""
        if not self.wanted:
            return [(_unnamed(name, self.is_binary), output) for name, output in outputs.items()]
        for wanted in self.wanted:
            if wanted.name not in outputs:
                known = ", ".join(outputs)
                raise InvalidRequest(f"unknown output; the model gives {known}", tensor=wanted.name)
        return [(wanted, outputs[wanted.name]) for wanted in self.wanted]

    def check_outputs(self, specs: tuple[TensorSpec, ...]) -> None:
        """Refuse before execution what the output specs can tell; empty specs tell nothing."""
        if not self.wanted:
            for spec in specs:
                if spec.datatype in ONLY_BINARY and not self.is_binary:
                    raise only_binary(spec.name, spec.datatype)
            return
        if not specs:
            return
        for wanted, spec in self.chosen({spec.name: spec for spec in specs}):
            if wanted.classes and spec.datatype in ("BYTES", "BOOL"):
                raise InvalidRequest(f"{spec.datatype} has no classes to rank", tensor=spec.name)
            if not wanted.is_binary and not wanted.classes and spec.datatype in ONLY_BINARY:
                raise only_binary(spec.name, spec.datatype)

    @property
    def must_be_finite(self) -> bool | frozenset[str]:
        """The outputs that may hold no NaN or infinity: JSON and a ranking have no place for them."""
        if not self.wanted:
            return not self.is_binary
        return frozenset(wanted.name for wanted in self.wanted if not wanted.is_binary or wanted.classes)


@lru_cache(maxsize=1024)
def _unnamed(name: str, is_binary: bool) -> Wanted:
    return Wanted(name, is_binary)


def parse_request(raw: Buffer, json_bytes: str | None) -> InferRequest:
    """The request in an HTTP body; `json_bytes` is the header that says how much of it is JSON."""
    if json_bytes is None:
        return read_fields(parse_body(raw))
    length = _json_length(json_bytes, len(raw))
    view = memoryview(raw)
    if length == 0:
        return InferRequest(view, is_binary=True)
    body = parse_body(view[:length])
    _attach(body.get("inputs"), view[length:])
    return read_fields(body)


def read_fields(body: Mapping[str, Any]) -> InferRequest:
    """The request in a JSON object whose binary tensors carry their bytes already."""
    unknown = body.keys() - _KNOWN_FIELDS
    if unknown:
        raise InvalidRequest(f"unknown field '{min(unknown)}' in the request")
    given = body.get("id")
    if (given is not None and not isinstance(given, str)) or (given is None and "id" in body):
        raise InvalidRequest("'id' must be a string")
    parameters = body.get("parameters", {})
    if not isinstance(parameters, dict):
        raise InvalidRequest("'parameters' must be an object")
    is_binary = _flag(parameters, "binary_data_output", default=False)
    asked = body.get("outputs")
    wanted = wanted_outputs(asked, is_binary) if asked else ()
    analytics = wants_analytics(parameters)
    return InferRequest(body.get("inputs"), wanted, is_binary, parameters, given, analytics)


def wants_analytics(parameters: Mapping[str, Any]) -> bool:
    """Raises `InvalidRequest` for anything but true and false."""
    return "analytics" in parameters and _flag(parameters, "analytics", default=False)


def wanted_outputs(asked: object, is_binary: bool) -> tuple[Wanted, ...]:
    """The `outputs` of a request, each binary if it says so or all are."""
    wanted: dict[str, Wanted] = {}
    for entry in asked if isinstance(asked, list) else [asked]:
        if not isinstance(entry, dict) or not isinstance(name := entry.get("name"), str):
            raise InvalidRequest("every entry of 'outputs' must be an object with a 'name'")
        if name in wanted:
            raise InvalidRequest("asked for more than once", tensor=name)
        parameters = entry.get("parameters", {})
        if not isinstance(parameters, dict):
            raise InvalidRequest("'parameters' of an output must be an object", tensor=name)
        binary = _flag(parameters, "binary_data", default=is_binary)
        wanted[name] = Wanted(name, binary, _classes(parameters, name))
    return tuple(wanted.values())


def _flag(parameters: Mapping[str, Any], name: str, *, default: bool) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise InvalidRequest(f"parameter '{name}' must be true or false")
    return value


def _classes(parameters: Mapping[str, Any], name: str) -> int:
    count = parameters.get("classification", 0)
    if type(count) is not int or count < 0:
        raise InvalidRequest("parameter 'classification' must be the number of classes", tensor=name)
    return count


def _json_length(header: str, body_bytes: int) -> int:
    if not header.isascii() or not header.isdecimal():
        raise InvalidRequest("Inference-Header-Content-Length must be a number of bytes")
    length = int(header) if len(header) < 20 else body_bytes + 1
    if length > body_bytes:
        raise InvalidRequest(
            f"Inference-Header-Content-Length is {header[:20]}, but the body has {body_bytes} bytes"
        )
    return length


def _attach(tensors: object, rest: memoryview) -> None:
    """Give every binary input its part of what follows the JSON, in the order of the JSON."""
    at = 0
    for tensor in tensors if isinstance(tensors, list) else ():
        parameters = tensor.get("parameters") if isinstance(tensor, dict) else None
        if not isinstance(parameters, dict) or "binary_data_size" not in parameters:
            continue
        size, name = parameters["binary_data_size"], str(tensor.get("name"))
        if type(size) is not int or size < 0:
            raise InvalidRequest("'binary_data_size' must be a number of bytes", tensor=name)
        if "data" in tensor:
            raise InvalidRequest("has 'data' and 'binary_data_size': send one of them", tensor=name)
        if size > len(rest) - at:
            problem = f"binary_data_size is {size}, but {len(rest) - at} bytes are left in the body"
            raise InvalidRequest(problem, tensor=name)
        tensor["data"] = rest[at : at + size]
        at += size
    if at != len(rest):
        raise InvalidRequest(f"{len(rest) - at} bytes follow the last binary tensor")


def _only_tensor(raw: Buffer, specs: tuple[TensorSpec, ...]) -> dict[str, Array]:
    """The one input of a model from a body that is nothing but its bytes."""
    if len(specs) != 1:
        names = ", ".join(f"'{spec.name}'" for spec in specs)
        raise InvalidRequest(f"a body without JSON needs a model with one input; this one takes {names}")
    [spec] = specs
    if spec.datatype == "BYTES":
        shape = _filled(spec, None, 1)
        framed = len(raw).to_bytes(_BYTES_ELEMENT_HEADER, "little") + bytes(raw)
        return {spec.name: decode_raw(framed, "BYTES", shape, spec.name)}
    itemsize = DTYPES[spec.datatype].itemsize
    shape = _filled(spec, len(raw) // itemsize, itemsize)
    return {spec.name: decode_raw(raw, spec.datatype, shape, spec.name)}


def _filled(spec: TensorSpec, elements: int | None, itemsize: int) -> tuple[int, ...]:
    """The spec's shape with its free axis as long as the bytes allow; of two, the first is a batch of one."""
    dims = list(spec.dims) if spec.dims is not None else [-1]
    if dims.count(-1) == 2 and dims[0] == -1:
        dims[0] = 1
    if dims.count(-1) > 1:
        problem = f"shape {spec.wire_shape} cannot be told from the number of bytes: send the shape as JSON"
        raise InvalidRequest(problem, tensor=spec.name)
    fixed = math.prod(length for length in dims if length != -1)
    free = 1 if elements is None else elements // max(fixed, 1)
    shape = tuple(free if length == -1 else length for length in dims)
    if elements is None and math.prod(shape) != 1:
        raise InvalidRequest("a body without JSON is one BYTES element", tensor=spec.name)
    return shape
