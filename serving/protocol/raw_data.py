"""Tensor data as bytes: little-endian, row-major, without padding; the same over HTTP and gRPC.

A fixed-width array is a view of the body it came in. Source: Triton's binary tensor data extension
and the raw contents of the Open Inference Protocol's gRPC service.
"""

import math
import struct

import numpy as np

from serving.core.datatypes import DTYPES, Array
from serving.core.errors import InvalidRequest
from serving.protocol.json_data import shaped, wire_datatype

Buffer = bytes | memoryview

_LENGTH_BYTES = 4


def decode_raw(raw: Buffer, datatype: str, shape: tuple[int, ...], name: str) -> Array:
    """The array of exactly the bytes that `datatype` and `shape` take. Read-only where it is a view."""
    count = math.prod(shape)
    if datatype == "BYTES":
        return shaped(_texts(memoryview(raw), count, shape, name), shape, name)
    dtype = DTYPES[datatype]
    if len(raw) != count * dtype.itemsize:
        problem = f"shape {list(shape)} of {datatype} takes {count * dtype.itemsize} bytes, not {len(raw)}"
        raise InvalidRequest(problem, tensor=name)
    if datatype == "BOOL":
        _check_booleans(raw, name)
    array = np.frombuffer(raw, dtype)
    if not array.flags.aligned:  # a JSON part of odd length came before it
        array = array.copy()
    return shaped(array, shape, name)


def encode_raw(name: str, array: Array) -> Buffer:
    """The bytes of an output; of a contiguous array they are a view, so nothing may write to it."""
    datatype = wire_datatype(name, array)
    if datatype == "BYTES":
        return b"".join(_framed(item) for item in array.ravel().tolist())
    return np.ascontiguousarray(array, dtype=DTYPES[datatype]).reshape(-1).view(np.uint8).data


def _check_booleans(raw: Buffer, name: str) -> None:
    if len(raw) and np.frombuffer(raw, np.uint8).max() > 1:
        raise InvalidRequest("every byte of a BOOL tensor must be 0 or 1", tensor=name)


def _texts(raw: memoryview, count: int, shape: tuple[int, ...], name: str) -> Array:
    """Elements are kept as text: every format served here knows strings only as UTF-8."""
    if count * _LENGTH_BYTES > len(raw):  # before a list is made for what was only declared
        raise _cut_short(shape, name)
    texts, at = [], 0
    for position in range(count):
        start = at + _LENGTH_BYTES
        at = start + int.from_bytes(raw[at:start], "little")
        if at > len(raw) or start > len(raw):
            raise _cut_short(shape, name)
        texts.append(_text(raw[start:at], position, name))
    if at != len(raw):
        raise InvalidRequest(f"{len(raw) - at} bytes are left after its last element", tensor=name)
    return np.array(texts, dtype=np.object_)


def _text(raw: memoryview, position: int, name: str) -> str:
    try:
        return str(raw, "utf-8")
    except UnicodeDecodeError:
        raise InvalidRequest(f"element {position} is not UTF-8 text", tensor=name) from None


def _cut_short(shape: tuple[int, ...], name: str) -> InvalidRequest:
    problem = f"the bytes end before all elements of shape {list(shape)}, each a 4-byte length and its text"
    return InvalidRequest(problem, tensor=name)


def _framed(item: object) -> bytes:
    content = item if isinstance(item, bytes) else str(item).encode()
    return struct.pack("<I", len(content)) + content
