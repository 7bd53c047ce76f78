"""Broken v2 requests: valid ones, changed in one of the ways callers and attackers break them.

Seeded, so that what was found can be found again: the same seed gives the same requests in order.
"""

import gzip
import json
import random
import re
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

JSON_BYTES = "inference-header-content-length"

# Models of a target that takes every kind of tensor: name to datatype, each (batch, 3).
MODELS: Mapping[str, str] = {"m": "FP32", "whole": "INT64", "half": "FP16", "text": "BYTES", "flags": "BOOL"}

_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?")
_ODD_NUMBERS = (
    *(b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1e999", b"1e-999", b"9" * 400, b"-0", b"0x10", b"00"),
    *(b"1.5", b"null", b"true", b'"1"', b"[]", b"{}", b"18446744073709551616", b"-9223372036854775809"),
)
_ODD_VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 1.5, 2**31, 2**63, 2**64, 10**30, "", "x", "\x00", "é" * 100, "x" * 5000),
    *([], {}, [[]], [{}], {"a": 1}, [1, "a", None], [[1, 2], [3]], [0] * 1000),
)
_ODD_SHAPES: tuple[list[int], ...] = (
    *([10**9], [1, 10**9], [10**9, 10**9, 10**9], [2**63], [-1, 3], [0, 2**62], [0], [0, 3], [], [3]),
    *([1] * 1000, [1, 3, 1], [1, 4], [2**32, 2**32], [-(2**63)]),
)
_CONTENT_TYPES = (
    "application/json",
    "application/octet-stream",
    "text/csv",
    "a" * 300,
    "",
    "multipart/form-data",
)
_ENCODINGS = ("gzip", "deflate", "br", "identity", "gzip, gzip", "x" * 100)


@dataclass(slots=True)
class Attempt:
    """One request. `kind` names how it was broken."""

    path: str
    body: bytes
    kind: str = "valid"
    headers: dict[str, str] = field(default_factory=dict)


def attempts(seed: int) -> Iterator[Attempt]:
    """Without end; one of about a hundred is valid."""
    chance = random.Random(seed)
    while True:
        attempt = _valid(chance)
        if chance.random() > 0.01:
            change = chance.choice(_CHANGES if JSON_BYTES in attempt.headers else _JSON_CHANGES)
            change(attempt, chance)
            attempt.kind = change.__name__.strip("_")
        yield attempt


def _valid(chance: random.Random) -> Attempt:
    """A request one of the models answers: as JSON, with binary tensors, bare bytes or for scoring."""
    model = chance.choice(list(MODELS))
    rows = chance.choice((1, 1, 2, 5))
    made: Callable[[str, int, random.Random], Attempt] = chance.choice(
        (_as_json, _as_json, _as_binary, _bare)
    )
    if MODELS[model] == "FP16":
        made = _as_binary
    if chance.random() < 0.1 and MODELS[model] in ("FP32", "INT64"):
        made = _as_scoring
    return made(model, rows, chance)


def _elements(datatype: str, count: int, chance: random.Random) -> list[Any]:
    if datatype == "BYTES":
        return [chance.choice(("", "a", "word", "é")) for _ in range(count)]
    if datatype == "BOOL":
        return [chance.random() < 0.5 for _ in range(count)]
    if datatype == "INT64":
        return [chance.randrange(-1000, 1000) for _ in range(count)]
    return [round(chance.uniform(-100, 100), 3) for _ in range(count)]


def _raw(datatype: str, elements: list[Any]) -> bytes:
    if datatype == "BYTES":
        return b"".join(struct.pack("<I", len(text.encode())) + text.encode() for text in elements)
    return struct.pack(
        "<" + {"FP32": "f", "FP16": "e", "INT64": "q", "BOOL": "?"}[datatype] * len(elements), *elements
    )


def _infer_path(model: str, chance: random.Random) -> str:
    return f"/v2/models/{model}{chance.choice(('', '', '/versions/1', '/versions/champion'))}/infer"


def _as_json(model: str, rows: int, chance: random.Random) -> Attempt:
    datatype = MODELS[model]
    data: list[Any] = _elements(datatype, rows * 3, chance)
    if chance.random() < 0.5:
        data = [data[start : start + 3] for start in range(0, len(data), 3)]
    tensor = {"name": "x", "shape": [rows, 3], "datatype": datatype, "data": data}
    request: dict[str, Any] = {"inputs": [tensor]}
    if chance.random() < 0.5:
        request |= {
            "id": "a-1",
            "outputs": [{"name": "y", "parameters": {"binary_data": chance.random() < 0.5}}],
        }
    return Attempt(_infer_path(model, chance), json.dumps(request).encode())


def _as_binary(model: str, rows: int, chance: random.Random) -> Attempt:
    datatype = MODELS[model]
    raw = _raw(datatype, _elements(datatype, rows * 3, chance))
    tensor = {
        "name": "x",
        "shape": [rows, 3],
        "datatype": datatype,
        "parameters": {"binary_data_size": len(raw)},
    }
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    return Attempt(_infer_path(model, chance), head + raw, headers={JSON_BYTES: str(len(head))})


def _bare(model: str, rows: int, chance: random.Random) -> Attempt:
    datatype = MODELS[model]
    if datatype == "BYTES":
        return _as_binary(model, rows, chance)
    raw = _raw(datatype, _elements(datatype, rows * 3, chance))
    return Attempt(_infer_path(model, chance), raw, headers={JSON_BYTES: "0"})


def _as_scoring(model: str, rows: int, chance: random.Random) -> Attempt:
    data = _elements(MODELS[model], rows * 3, chance)
    table = [data[start : start + 3] for start in range(0, len(data), 3)]
    form = chance.choice(
        (
            {"inputs": {"x": table}},
            {"inputs": table},
            {"instances": table},
            {"dataframe_split": {"columns": ["a", "b", "c"], "data": table}},
        )
    )
    headers = {"content-type": "application/json"}
    return Attempt(f"/models/{model}/invocations", json.dumps(form).encode(), headers=headers)


def _flip(attempt: Attempt, chance: random.Random) -> None:
    body = bytearray(attempt.body)
    for _ in range(chance.choice((1, 1, 2, 8))):
        body[chance.randrange(len(body))] = chance.randrange(256)
    attempt.body = bytes(body)


def _truncate(attempt: Attempt, chance: random.Random) -> None:
    attempt.body = attempt.body[: chance.randrange(len(attempt.body))]


def _repeat(attempt: Attempt, chance: random.Random) -> None:
    start = chance.randrange(len(attempt.body))
    part = attempt.body[start : start + chance.randrange(1, 64)]
    attempt.body = attempt.body[:start] + part * chance.choice((2, 3, 50)) + attempt.body[start:]


def _number(attempt: Attempt, chance: random.Random) -> None:
    """One number becomes what JSON, or the datatype, cannot hold."""
    found = list(_NUMBER.finditer(attempt.body))
    if found:
        at = chance.choice(found)
        attempt.body = attempt.body[: at.start()] + chance.choice(_ODD_NUMBERS) + attempt.body[at.end() :]


def _value(attempt: Attempt, chance: random.Random) -> None:
    """One value anywhere becomes one of another type."""

    def change(tree: Any) -> None:
        place, key = chance.choice(list(_places(tree)))
        place[key] = chance.choice(_ODD_VALUES)

    _rewrite(attempt, change)


def _drop(attempt: Attempt, chance: random.Random) -> None:
    def change(tree: Any) -> None:
        place, key = chance.choice(list(_places(tree)))
        del place[key]

    _rewrite(attempt, change)


def _shape(attempt: Attempt, chance: random.Random) -> None:
    """A billion elements declared, none of them sent."""

    def change(tree: Any) -> None:
        for tensor in tree.get("inputs", []) if isinstance(tree.get("inputs"), list) else []:
            if isinstance(tensor, dict):
                tensor["shape"] = chance.choice(_ODD_SHAPES)

    _rewrite(attempt, change)


def _datatype(attempt: Attempt, chance: random.Random) -> None:
    names = (*MODELS.values(), "FP64", "BF16", "UINT8", "UINT64", "INT8", "fp32", "FP128", "STRING", "")

    def change(tree: Any) -> None:
        for place, key in _places(tree):
            if key == "datatype":
                place[key] = chance.choice(names)

    _rewrite(attempt, change)


def _nest(attempt: Attempt, chance: random.Random) -> None:
    """Brackets as deep as a body allows, where the data was."""
    depth = chance.choice((5, 100, 1100, 20_000))
    opening, closing = chance.choice(((b"[", b"]"), (b'{"a":', b"}")))
    middle = b"1" if opening == b'{"a":' else b""
    nested = opening * depth + middle + (closing * depth if chance.random() < 0.7 else b"")
    at = attempt.body.find(b'"data": ')
    attempt.body = nested if at < 0 else attempt.body[: at + 8] + nested + b"}]}"


def _double(attempt: Attempt, chance: random.Random) -> None:
    """A key given twice, with another value."""
    key = chance.choice(
        (b'"shape": [9],', b'"datatype": "INT8",', b'"name": "z",', b'"data": [1],', b'"inputs": 1,')
    )
    at = attempt.body.find(b"{", chance.randrange(2))
    attempt.body = attempt.body[: at + 1] + key + attempt.body[at + 1 :]


def _junk(attempt: Attempt, chance: random.Random) -> None:
    attempt.body = chance.randbytes(chance.choice((0, 1, 16, 3000)))


def _tensors(attempt: Attempt, chance: random.Random) -> None:
    """Far too many inputs, or one given twice."""

    def change(tree: Any) -> None:
        tree["inputs"] = (tree.get("inputs") if isinstance(tree.get("inputs"), list) else []) * chance.choice(
            (0, 2, 300)
        )

    _rewrite(attempt, change)


def _parameters(attempt: Attempt, chance: random.Random) -> None:
    names = ("timeout", "priority", "sequence_id", "binary_data_output", "classification", "analytics", "é")
    wild: tuple[Any, ...] = (None, True, -1, 1.5, "x", [], {}, 2**64, 10**8)

    def change(tree: Any) -> None:
        tree["parameters"] = {chance.choice(names): chance.choice(wild)}

    _rewrite(attempt, change)


def _headers(attempt: Attempt, chance: random.Random) -> None:
    attempt.headers["content-type"] = chance.choice(_CONTENT_TYPES)
    if chance.random() < 0.5:
        attempt.headers["content-encoding"] = chance.choice(_ENCODINGS)
        if chance.random() < 0.5:
            attempt.body = gzip.compress(attempt.body, 1)
    if chance.random() < 0.3:
        attempt.headers["accept-encoding"] = chance.choice(("gzip", "gzip;q=x", ",,;", "*"))
    if chance.random() < 0.3:
        attempt.headers["x-request-id"] = chance.choice(("a b", "x" * 1000, "é", ""))
    if chance.random() < 0.3:
        attempt.headers["x-request-timeout"] = chance.choice(("x", "-1", "nan", "inf", "1e999", "60", ""))


def _sizes(attempt: Attempt, chance: random.Random) -> None:
    """Wrong lengths of the JSON part or of a binary tensor."""
    if chance.random() < 0.5:
        wrong = ("-1", "1", "999999", "x", "", "9" * 30, "0x2", "1.0", str(len(attempt.body)))
        attempt.headers[JSON_BYTES] = chance.choice(wrong)
        return
    size = chance.choice((b"0", b"1", b"-1", b"1e3", b"99999999999", b"null", b'"12"', b"true", b"[]"))
    attempt.body = re.sub(rb'("binary_data_size": )\d+', lambda found: found[1] + size, attempt.body)
    head, found, _ = attempt.body.partition(b"}}")
    if found:
        attempt.headers[JSON_BYTES] = str(len(head) + 2)


def _path(attempt: Attempt, chance: random.Random) -> None:
    odd = (
        "",
        "%00",
        "..%2f..",
        "a" * 3000,
        "%ff",
        "m/versions/0",
        "m/versions/99",
        "m/versions/x%2fy",
        "nobody",
    )
    attempt.path = f"/v2/models/{chance.choice(odd)}/infer"


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) of a JSON tree, the elements of long lists left out."""
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree[:5]) if isinstance(tree, list) else ()
    for key, value in list(pairs):
        yield tree, key
        yield from _places(value)


def _rewrite(attempt: Attempt, change: Callable[[Any], None]) -> None:
    """Change the JSON part, and keep what says how long it is right."""
    length = int(attempt.headers.get(JSON_BYTES, len(attempt.body)))
    if length == 0:
        return
    tree = json.loads(attempt.body[:length])
    change(tree)
    head = json.dumps(tree).encode()
    attempt.body = head + attempt.body[length:]
    if JSON_BYTES in attempt.headers:
        attempt.headers[JSON_BYTES] = str(len(head))


_JSON_CHANGES = (
    *(_flip, _truncate, _repeat, _number, _value, _drop, _shape, _datatype, _nest, _double, _junk, _tensors),
    *(_parameters, _headers, _path),
)
_CHANGES = (*_JSON_CHANGES, _sizes, _sizes)
