"""What a request says before its body: read once for all requests that begin alike, as a client's do."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from serving.api.access import Asking

_REQUEST_ID = re.compile(r"[\w.-]{1,128}", re.ASCII)
_INFER_PATH = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?/infer")
_SCORING_PATH = re.compile(r"(?:/models/([^/]+)(?:/versions/([^/]+))?)?/invocations")
MAX_HEADERS = 100
MAX_HEADER_BYTES = 32 << 10
_MAX_KEPT = 256
_MAX_KEPT_BYTES = 2 << 10
_MAX_LEARNT = 1024
_MAX_DIGITS = 10
_NAMING = frozenset({"x-request-id", "x-request-key"})


@dataclass(frozen=True, slots=True)
class Head:
    """`raw_path` and `target` are as they were sent, the latter with the query.

    `infer` and `scoring` are the model and version, each None where it is not named, of a path that is
    one of theirs. `given_id` is the caller's name for the request, if it is one.
    """

    method: str
    path: str
    raw_path: str
    target: str
    headers: Mapping[str, str]
    size_bytes: int
    are_too_many: bool
    given_id: str | None
    infer: tuple[str, str | None] | None
    scoring: tuple[str | None, str | None] | None


@dataclass(frozen=True, slots=True, eq=False)
class Alike:
    """Requests that begin alike. `is_nameless` where none of them names itself, or a key for its route."""

    head: Head
    asking: Asking
    is_nameless: bool
    body_bytes: int


class Heads:
    """The heads that were read lately and found in order."""

    def __init__(self) -> None:
        self._kept: dict[Any, Alike] = {}
        self._learnt: dict[bytes, Alike] = {}
        # Called for each request, so not through a method of our own.
        self.recall = self._learnt.get

    def find(self, scope: Mapping[str, Any]) -> Alike | None:
        return self._kept.get(_mark(scope))

    def keep(self, scope: Mapping[str, Any], head: Head, asking: Asking) -> None:
        """For the next request that begins alike. One that names itself will not come again."""
        if head.given_id is not None or head.size_bytes > _MAX_KEPT_BYTES:
            return
        if len(self._kept) >= _MAX_KEPT:
            self._kept.clear()
        is_nameless = not head.headers.keys() & _NAMING
        length = head.headers.get("content-length", "")
        body_bytes = int(length) if length.isdecimal() and len(length) < _MAX_DIGITS else 0
        self._kept[_mark(scope)] = Alike(head, asking, is_nameless, body_bytes)

    def learn(self, raw: bytes, alike: Alike) -> None:
        """Have `recall` find it by the bytes that it was read from."""
        if len(raw) > 2 * _MAX_KEPT_BYTES:
            return
        if len(self._learnt) >= _MAX_LEARNT:
            self._learnt.clear()
        self._learnt[raw] = alike


def read_head(scope: Mapping[str, Any]) -> Head:
    """The head of an ASGI scope."""
    raw = scope["headers"]
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in raw}
    size_bytes = sum([len(name) + len(value) for name, value in raw])
    raw_path = _raw_path(scope)
    query = scope.get("query_string", b"").decode("latin-1")
    infer, scoring = _INFER_PATH.fullmatch(raw_path), _SCORING_PATH.fullmatch(raw_path)
    given_id = headers.get("x-request-id", "")
    return Head(
        scope["method"],
        scope["path"],
        raw_path,
        f"{raw_path}?{query}" if query else raw_path,
        headers,
        size_bytes,
        len(raw) > MAX_HEADERS or size_bytes > MAX_HEADER_BYTES,
        given_id if _REQUEST_ID.fullmatch(given_id) else None,
        (unquote(infer[1]), _unquoted(infer[2])) if infer else None,
        (_unquoted(scoring[1]), _unquoted(scoring[2])) if scoring else None,
    )


def _unquoted(part: str | None) -> str | None:
    return unquote(part) if part else None


def _mark(scope: Mapping[str, Any]) -> object:
    return scope["method"], scope.get("raw_path"), scope["path"], scope.get("query_string"), *scope["headers"]


def _raw_path(scope: Mapping[str, Any]) -> str:
    """The path before unquoting, so that a quoted slash stays inside its model's name."""
    raw = scope.get("raw_path")
    return raw.decode("latin-1").partition("?")[0] if isinstance(raw, bytes) else str(scope["path"])
