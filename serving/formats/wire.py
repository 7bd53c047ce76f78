"""The outermost fields of a protobuf message, read without its schema and without its contents.

Called to tell ONNX from Core ML, neither of which has a magic number, and to see a cut-off file.
Contents are skipped, not read: a file of gigabytes takes as many reads as it has outer fields.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_MAX_FIELDS = 100_000
_MAX_VARINT_BYTES = 10
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True, slots=True)
class Outline:
    """Field numbers of a message in order of appearance.

    `whole` is false where the last field runs past the end of the file or is no protobuf at all;
    fields before it are listed all the same. `version` is field 1 where it is a number.
    """

    fields: tuple[int, ...]
    whole: bool
    version: int | None = None


def outline(path: Path) -> Outline:
    size = path.stat().st_size
    fields: list[int] = []
    version = None
    with path.open("rb") as file:
        while file.tell() < size and len(fields) < _MAX_FIELDS:
            tag = _varint(file)
            if tag is None or tag >> 3 == 0:
                return Outline(tuple(fields), False, version)
            fields.append(tag >> 3)
            value = _skip(file, tag & 7, size)
            if value is None:
                return Outline(tuple(fields), False, version)
            if tag == 1 << 3:
                version = value
    return Outline(tuple(fields), True, version)


def _skip(file: BinaryIO, kind: int, size: int) -> int | None:
    """Pass over one value; the number itself where it is one, None where it does not fit the file."""
    if kind == _VARINT:
        return _varint(file)
    length = {_FIXED64: 8, _FIXED32: 4}.get(kind)
    if kind == _BYTES:
        length = _varint(file)
    if length is None or file.tell() + length > size:
        return None
    file.seek(length, os.SEEK_CUR)
    return length


def _varint(file: BinaryIO) -> int | None:
    number = 0
    for position in range(_MAX_VARINT_BYTES):
        byte = file.read(1)
        if not byte:
            return None
        number |= (byte[0] & 0x7F) << (7 * position)
        if byte[0] < 0x80:
            return number
    return None
