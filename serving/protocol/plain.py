"""The plainest inference requests: JSON numbers for every input, and every output as JSON numbers.

Most requests to small models are like this, and what they share is known once their version was looked
at: the form of its inputs, and the text around the numbers of an answer. It is written long-hand, because
calls and objects cost such a request more than its model does. What is out of the ordinary, or wrong,
is None here, and left to `request` and `answer`, which say what it is.
"""

from array import array as packed_array
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson

from serving.core.datatypes import DTYPES, Array, datatype_of
from serving.core.health import Status
from serving.core.model import TensorSpec, VersionRef
from serving.formats.selftest import output_problem
from serving.pool import LoadedVersion
from serving.protocol.answer import answer_parameters
from serving.protocol.json_data import ONLY_BINARY
from serving.protocol.raw_data import Buffer
from serving.routes import Route
from serving.telemetry.inference_log import first_axis_is_batch

_CODES = {"FP32": "f", "FP64": "d"}
# Callers choose shapes, and each makes a text of its own.
_MAX_TEXTS = 64
_WRITTEN = DTYPES.keys() - ONLY_BINARY - {"BYTES"}
_NUMPY = orjson.OPT_SERIALIZE_NUMPY
# How JSON says NaN and the infinities, which is not at all.
_NOT_FINITE = b"null"

_Form = tuple[str, str, tuple[int, ...] | None, str, Any]


def plain_of(version: LoadedVersion) -> "Plain":
    """Made once, and kept with the version for as long as it has the same model in memory."""
    plain = version.beside
    if not isinstance(plain, Plain) or plain.model is not version.model:
        plain = version.beside = Plain(version)
    return plain


class Plain:
    """What plain requests to one version have in common. Confined to the event loop's thread."""

    __slots__ = ("_inputs", "_texts", "_who", "is_answerable", "is_batched", "model", "ref")

    def __init__(self, version: LoadedVersion) -> None:
        self.ref, self.model = version.ref, version.model
        self.is_batched = first_axis_is_batch(self.model.inputs)
        self._inputs = [_form(spec) for spec in self.model.inputs]
        self._texts: dict[object, list[bytes]] = {}
        self._who: dict[str, str] = {}
        # Until an output was seen that is no plain number.
        self.is_answerable = None not in self._inputs

    def read(self, given: object) -> dict[str, Array] | None:
        """The inputs in a request's JSON that has nothing beside them but an id."""
        if type(given) is not dict or len(given) > 2:
            return None
        if len(given) == 2 and type(given.get("id")) is not str:
            return None
        tensors = given.get("inputs")
        if type(tensors) is not list or len(tensors) != len(self._inputs):
            return None
        arrays = {}
        for form, tensor in zip(self._inputs, tensors, strict=True):
            if form is None or type(tensor) is not dict or tensor.get("name") != form[0]:
                return None
            array = _array(form, tensor)
            if array is None:
                return None
            arrays[form[0]] = array
        return arrays

    def write(
        self, route: Route, health: Status, outputs: Mapping[str, Array], own_id: str | None
    ) -> bytes | None:
        """The answer's body, where the outputs are as declared and every number can be written."""
        mark: list[object] = [route.variant, route.alias, health]
        for name, array in outputs.items():
            mark += (name, array.shape, array.dtype)
        key = tuple(mark)
        texts = self._texts.get(key) or self._new_texts(key, route, health, outputs)
        if texts is None:
            return None
        parts: list[bytes] = []
        at = 0
        for array in outputs.values():
            numbers = orjson.dumps(array.reshape(-1), option=_NUMPY)
            if _NOT_FINITE in numbers:
                return None
            parts += (texts[at], numbers)
            at += 1
        parts.append(texts[at] if own_id is None else b'}],"id":%b}' % orjson.dumps(own_id))
        return b"".join(parts)

    def lines(self, route: Route, request_id: str, size_bytes: int) -> bytes:
        """The answer's headers, each with its line end; neither value can hold one."""
        who = self._who.get(route.variant)
        if who is None:
            who = f"content-type: application/json\r\nx-model-version: {self.ref.version}\r\n"
            who += f"x-model-variant: {route.variant}\r\nx-request-id: "
            self._who[route.variant] = who
        return f"{who}{request_id}\r\ncontent-length: {size_bytes}\r\n".encode()

    def _new_texts(
        self, key: object, route: Route, health: Status, outputs: Mapping[str, Array]
    ) -> list[bytes] | None:
        if output_problem(self.model.outputs, outputs) is not None:
            return None
        if not outputs or not all(map(_is_plain, outputs.values())):
            self.is_answerable = False
            return None
        if len(self._texts) >= _MAX_TEXTS:
            self._texts.clear()
        texts = self._texts[key] = _texts(self.ref, route, health, outputs)
        return texts


def parsed(raw: Buffer) -> Any:
    """A body's JSON; None for what is none."""
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None


def _form(spec: TensorSpec) -> _Form | None:
    code = _CODES.get(spec.datatype)
    return (spec.name, spec.datatype, spec.dims, code, DTYPES[spec.datatype]) if code is not None else None


def _array(form: _Form, tensor: dict[str, Any]) -> Array | None:
    """A tensor's numbers, as finite as JSON's are after they were rounded to its type."""
    _, datatype, dims, code, dtype = form
    shape, data = tensor.get("shape"), tensor.get("data")
    if tensor.get("datatype") != datatype or type(shape) is not list or type(data) is not list:
        return None
    if dims is None or len(shape) != len(dims):
        return None
    count = 1
    for length, want in zip(shape, dims, strict=True):
        if type(length) is not int or length < 1 or want not in (-1, length):
            return None
        count *= length
    if len(data) != count:
        return None
    kinds = list(map(type, data))
    if kinds.count(float) != count and kinds.count(float) + kinds.count(int) != count:
        return None
    try:
        array = np.frombuffer(packed_array(code, data), dtype)
    except OverflowError:
        return None
    # As in `is_finite`.
    return None if b"\0" in np.isfinite(array).tobytes() else array.reshape(shape)


def _is_plain(array: Array) -> bool:
    datatype = datatype_of(array.dtype)
    return datatype in _WRITTEN and array.dtype == DTYPES[datatype]


def _texts(ref: VersionRef, route: Route, health: Status, outputs: Mapping[str, Array]) -> list[bytes]:
    """What stands before the numbers of each output, and after the last."""
    parameters = answer_parameters(route.variant, route.alias, health)
    told = {"model_name": ref.model, "model_version": ref.version, "parameters": parameters}
    before, texts = orjson.dumps(told)[:-1] + b',"outputs":[', []
    for name, array in outputs.items():
        form = {"name": name, "shape": array.shape, "datatype": datatype_of(array.dtype)}
        texts.append(b'%b%b,"data":' % (before, orjson.dumps(form)[:-1]))
        before = b"},"
    return [*texts, b"}]}"]
