"""Who may call what: one admin key so far, checked in constant time.

On loopback, reading health, metadata and metrics and asking for inference need no key; every change
does. Bound to anything else, everything but the health probes needs one.
"""

import hmac
import stat
from collections.abc import Callable, Mapping
from enum import StrEnum
from hashlib import sha256
from pathlib import Path

from serving.core.errors import AccessRefused

_LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]", "::1"})
_HEALTH_PATHS = frozenset({"/v2/health/live", "/v2/health/ready", "/ping", "/health"})
_OPEN_READS = (
    "/v2",
    "/version",
    "/api/v2/model-health",
    "/api/v2/model-info",
    "/metrics",
    "/docs",
    "/openapi.json",
)
_INFERENCE = ("/v2/models/", "/invocations", "/models/")
_SIGNED_PATHS = "/api/v2/webhooks/"
_CHANGES = ("/v2/repository/models/",)


class Scope(StrEnum):
    """What a call needs. OPEN calls carry no key, or prove themselves by signature."""

    OPEN = "open"
    INFER = "infer"
    READ = "read"
    ADMIN = "admin"


class KeyFile:
    """The admin key on disk. Read again when the file changes, so that a new key works at once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._digest: bytes | None = None

    def digest(self) -> bytes | None:
        """sha256 of the key, or None where there is none that only its owner can read."""
        try:
            found = self._path.stat()
        except OSError:
            self._stamp = self._digest = None
            return None
        stamp = (found.st_ctime_ns, found.st_ino)  # also a changed mode changes the former
        if stamp != self._stamp:
            key = self._read()
            is_private = not found.st_mode & (stat.S_IRWXG | stat.S_IRWXO)
            self._digest = sha256(key).digest() if key and is_private else None
            self._stamp = stamp
        return self._digest

    def _read(self) -> bytes:
        try:
            return self._path.read_bytes().strip()
        except OSError:
            return b""


class Access:
    """The rules for one server. `is_loopback` says whether only this machine can reach it."""

    def __init__(
        self, digest: Callable[[], bytes | None], *, is_loopback: bool, require_infer_key: bool, hosts: str
    ) -> None:
        self._digest = digest
        self._is_loopback = is_loopback
        self._require_infer_key = require_infer_key
        self._hosts = _LOCAL_HOSTS | {host.strip().lower() for host in hosts.split(",") if host.strip()}

    def check_host(self, host: str) -> None:
        """Refuse names that a web page could have pointed at this machine."""
        name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
        if self._is_loopback and name.lower() not in self._hosts:
            raise AccessRefused(
                f"Host '{host}' is not served here; add it to SIGNALBOX_ALLOWED_HOSTS", identified=True
            )

    def check_key(self, method: str, path: str, headers: Mapping[str, str]) -> str:
        """The caller's name for the audit trail. Raises `AccessRefused`."""
        scope = self.scope(method, path)
        if scope is Scope.OPEN:
            return "anonymous"
        expected = self._digest()
        given = headers.get("x-api-key") or _bearer(headers.get("authorization", ""))
        if expected is None:
            raise AccessRefused(
                "this server has no admin key; `signalbox up` creates one in admin.key of its home",
                identified=False,
            )
        if not given:
            raise AccessRefused("a key is needed in X-API-Key or Authorization: Bearer", identified=False)
        if not hmac.compare_digest(sha256(given.encode()).digest(), expected):
            raise AccessRefused("the key is not valid", identified=False)
        return "admin"

    def scope(self, method: str, path: str) -> Scope:
        """What a call to `path` needs on this server."""
        if path in _HEALTH_PATHS or path.startswith(_SIGNED_PATHS):
            return Scope.OPEN
        if method == "POST" and path.startswith(_INFERENCE):
            return Scope.OPEN if self._is_loopback and not self._require_infer_key else Scope.INFER
        is_change = path.startswith(_CHANGES)
        is_index = path.endswith("/index") and path.startswith("/v2/repository")
        if (method in ("GET", "HEAD") or is_index) and not is_change:
            return Scope.OPEN if self._is_loopback and path.startswith(_OPEN_READS) else Scope.READ
        return Scope.ADMIN


def _bearer(header: str) -> str:
    kind, _, token = header.partition(" ")
    return token.strip() if kind.lower() == "bearer" else ""
