"""Who may call what: the scope a path needs, against the key a caller shows.

On loopback, reading health, metadata and metrics and asking for inference need no key; every change
does. Bound to anything else, everything but the health probes needs one.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qs, unquote

from serving.api.keyring import Keyring
from serving.api.rate import RateLimits
from serving.core.clock import Clock
from serving.core.errors import AccessRefused
from serving.core.keys import Key, Scope, digest_of

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
_FEEDBACK = "/api/v2/feedback"
# These name their model in the body; the endpoint asks `Caller.check_model` once it has read it.
_MODEL_IN_BODY = frozenset(
    {"/api/v2/rollback", "/api/v2/update-models", "/api/v2/restore-points", "/api/v2/freezes", _FEEDBACK}
)
_MODEL_IN_PATH = re.compile(r"/(?:v2/models|v2/repository/models|models|api/v2/traffic)/([^/]+)(?:/.*)?")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls: the name for the audit trail, and the key where one was shown."""

    name: str
    key: Key | None = None

    def check_model(self, model: str) -> None:
        """Raise `AccessRefused` for a model the key is not for."""
        if self.key is not None and not self.key.is_for(model):
            globs = ", ".join(self.key.models)
            raise AccessRefused(
                f"key '{self.key.name}' is for models {globs}, not '{model}'", identified=True
            )


ANONYMOUS = Caller("anonymous")


@dataclass(frozen=True, slots=True)
class Asking:
    """What of a call stays the same when it is made again. Whether it is allowed must be asked each time.

    `digest` is that of the secret which was shown, if any; `target` the path with its query as it was
    sent, quoting kept. `is_counted` says whether rate limits hold for it.
    """

    scope: Scope
    digest: str | None
    method: str
    path: str
    target: str
    is_counted: bool


class Access:
    """The rules for one server. `is_loopback` says whether only this machine can reach it."""

    def __init__(
        self,
        keyring: Keyring,
        limits: RateLimits,
        clock: Clock,
        *,
        is_loopback: bool,
        require_infer_key: bool,
        hosts: str,
    ) -> None:
        self._keyring = keyring
        self._limits = limits
        self._clock = clock
        self.is_loopback = is_loopback
        self._require_infer_key = require_infer_key
        self._hosts = _LOCAL_HOSTS | {host.strip().lower() for host in hosts.split(",") if host.strip()}

    def check_host(self, host: str) -> None:
        """Refuse names that a web page could have pointed at this machine."""
        name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
        if self.is_loopback and name.lower() not in self._hosts:
            raise AccessRefused(
                f"Host '{host}' is not served here; add it to SIGNALBOX_ALLOWED_HOSTS", identified=True
            )

    def admit(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        *,
        target: str | None = None,
        address: str = "",
    ) -> Caller:
        """Who calls. `target` is the path with its query as it was sent, quoting kept.

        Raises:
            AccessRefused: no key, an unknown or expired one, or one that may not do this.
            RateLimited: this key, or this address without one, asks too often.
        """
        return self.admitted(self.asking(method, path, headers, target=target), address)

    def asking(
        self, method: str, path: str, headers: Mapping[str, str], *, target: str | None = None
    ) -> Asking:
        """What such a call asks for, and with what."""
        given = headers.get("x-api-key") or _bearer(headers.get("authorization", ""))
        digest = digest_of(given) if given else None
        is_counted = path not in _HEALTH_PATHS
        scope = self.scope(method, path)
        return Asking(scope, digest, method, path, path if target is None else target, is_counted)

    def admitted(self, asking: Asking, address: str) -> Caller:
        """Who calls, as `admit` has it and raises it: by the keys and limits of this moment."""
        scope, digest = asking.scope, asking.digest
        key = self._keyring.find(digest) if digest is not None else None
        if scope is not Scope.OPEN:
            key = self._entitled(key, scope, is_given=digest is not None)
        elif key is not None and key.is_expired(self._clock.now()):
            key = None
        if asking.is_counted:
            self._limits.check(key, address)
        if key is None:
            return ANONYMOUS
        caller = Caller(key.name, key)
        if key.models and scope is not Scope.OPEN:
            _check_models(caller, asking.method, asking.path, asking.target)
        return caller

    def scope(self, method: str, path: str) -> Scope:
        """What a call to `path` needs on this server."""
        if path in _HEALTH_PATHS or path.startswith(_SIGNED_PATHS):
            return Scope.OPEN
        if method == "POST" and path == _FEEDBACK:
            return Scope.INFER
        if method == "POST" and path.startswith(_INFERENCE):
            return Scope.OPEN if self.is_loopback and not self._require_infer_key else Scope.INFER
        is_change = path.startswith(_CHANGES)
        is_index = path.endswith("/index") and path.startswith("/v2/repository")
        if (method in ("GET", "HEAD") or is_index) and not is_change:
            return Scope.OPEN if self.is_loopback and path.startswith(_OPEN_READS) else Scope.READ
        return Scope.ADMIN

    def _entitled(self, key: Key | None, scope: Scope, *, is_given: bool) -> Key:
        if key is None:
            raise AccessRefused(self._why_unknown(is_given), identified=False)
        if key.expires_at is not None and key.is_expired(self._clock.now()):
            when = key.expires_at.isoformat(timespec="seconds")
            raise AccessRefused(f"key '{key.name}' expired at {when}; create a new one", identified=False)
        if not key.grants(scope):
            held = ", ".join(sorted(key.scopes))
            raise AccessRefused(f"this needs scope {scope}; key '{key.name}' has {held}", identified=True)
        return key

    def _why_unknown(self, is_given: bool) -> str:
        if self._keyring.is_empty:
            return "this server has no admin key; `signalbox up` creates one in admin.key of its home"
        return "the key is not valid" if is_given else "a key is needed in X-API-Key or Authorization: Bearer"


def _check_models(caller: Caller, method: str, path: str, target: str) -> None:
    """A key for some models may make calls about these alone, and none about the whole server."""
    assert caller.key is not None
    raw_path, _, query = target.partition("?")
    in_path = _MODEL_IN_PATH.fullmatch(raw_path)
    named = [unquote(in_path.group(1))] if in_path else parse_qs(query).get("model", [])
    if not named and (method == "GET" or path not in _MODEL_IN_BODY):
        globs = ", ".join(caller.key.models)
        problem = f"key '{caller.key.name}' is for models {globs}, and this call names none"
        raise AccessRefused(problem, identified=True)
    for model in named:
        caller.check_model(model)


def _bearer(header: str) -> str:
    kind, _, token = header.partition(" ")
    return token.strip() if kind.lower() == "bearer" else ""
