"""gzip and deflate of bodies: requests unpacked within the body limit, answers packed where asked.

Large bodies are worked on in a thread, so that one caller's compression is not every caller's latency.
"""

import asyncio
import gzip
import zlib
from collections.abc import Mapping

from serving.api.body import Receive, read_body
from serving.api.intake import Arrival
from serving.core.errors import BodyTooLarge, InvalidRequest, UnsupportedContent

_WINDOWS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
_IN_THREAD_BYTES = 1 << 16
# A packed body may hold a thousand times its size.
_UNPACKED_HERE_BYTES = 1 << 12
# Below this a compressed answer is hardly smaller than its headers.
_WORTH_PACKING_BYTES = 1 << 10
_LEVEL = 1


async def read_content(receive: Receive, headers: Mapping[str, str], limit_bytes: int) -> bytes | memoryview:
    """The body as its sender meant it. `limit_bytes` bounds what arrives and what it unpacks to."""
    raw = await read_body(receive, headers, limit_bytes)
    encoding = headers.get("content-encoding")
    if encoding is None or encoding.strip().lower() in ("", "identity"):
        return raw
    if len(raw) > _UNPACKED_HERE_BYTES:
        content = await asyncio.to_thread(unpacked, raw, encoding, limit_bytes)
    else:
        content = unpacked(raw, encoding, limit_bytes)
    if isinstance(receive, Arrival):
        receive.take(len(content))
    return content


def unpacked(raw: bytes | memoryview, encoding: str, limit_bytes: int) -> bytes:
    """Never holds more than one byte beyond the limit, whatever the body claims to be."""
    window = _WINDOWS.get(encoding.strip().lower())
    if window is None:
        known = ", ".join(name for name in _WINDOWS if not name.startswith("x-"))
        raise UnsupportedContent(f"Content-Encoding '{encoding[:40]}' is not read here; known are {known}")
    pieces: list[bytes] = []
    size_bytes, rest = 0, raw
    try:
        while True:
            stream = zlib.decompressobj(window)
            pieces.append(stream.decompress(rest, limit_bytes + 1 - size_bytes))
            size_bytes += len(pieces[-1])
            if size_bytes > limit_bytes:
                raise BodyTooLarge(limit_bytes)
            if not stream.eof:
                raise InvalidRequest(f"the {encoding} body ends before it is complete")
            rest = stream.unused_data
            if not rest:  # a gzip body may have several members
                return pieces[0] if len(pieces) == 1 else b"".join(pieces)
    except zlib.error as error:
        raise InvalidRequest(f"the body is not {encoding}: {error}") from None


def wanted_encoding(accepted: str | None, size_bytes: int) -> str | None:
    """The compression a caller asked for, if the answer is worth it."""
    if accepted is None or size_bytes < _WORTH_PACKING_BYTES:
        return None
    offered = {}
    for entry in accepted.lower().split(","):
        name, _, quality = entry.strip().partition(";")
        offered[name.strip()] = quality.replace(" ", "")
    for name in ("gzip", "deflate"):
        if name in offered and offered[name] not in ("q=0", "q=0.0", "q=0.00", "q=0.000"):
            return name
    return None


async def packed(body: bytes, encoding: str) -> bytes:
    if is_packed_quickly(body):
        return pack(body, encoding)
    return await asyncio.to_thread(pack, body, encoding)


def is_packed_quickly(body: bytes) -> bool:
    return len(body) <= _IN_THREAD_BYTES


def pack(body: bytes, encoding: str) -> bytes:
    if encoding == "gzip":
        return gzip.compress(body, _LEVEL, mtime=0)
    return zlib.compress(body, _LEVEL)
