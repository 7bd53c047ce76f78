"""The one table from errors to HTTP: every error leaves through here as `{"error": ...}`."""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from serving.core.errors import (
    AccessRefused,
    ArtifactRefused,
    BodyTooLarge,
    ChangeRefused,
    DeadlineExceeded,
    InvalidRequest,
    ModelFailed,
    NotServed,
    Overloaded,
    RateLimited,
    RegistryUnavailable,
    SignalboxError,
    StoreUnavailable,
)

log = logging.getLogger(__name__)

_SEE_LOG = "the server's log has the details under the X-Request-Id of this answer"

_STATUSES: tuple[tuple[type[SignalboxError], int], ...] = (
    (InvalidRequest, 400),
    (NotServed, 404),
    (ChangeRefused, 409),
    (BodyTooLarge, 413),
    (ArtifactRefused, 422),
    (Overloaded, 503),
    (RegistryUnavailable, 503),
    (StoreUnavailable, 503),
    (DeadlineExceeded, 504),
)


@dataclass(frozen=True, slots=True)
class Failure:
    """Status, sentence and headers of an error's answer."""

    status: int
    message: str
    headers: Mapping[str, str] = field(default_factory=dict)


def failure_of(error: Exception) -> Failure:
    """What a caller is told of `error`; anything unforeseen is 500 without its details."""
    if isinstance(error, AccessRefused):
        if error.identified:
            return Failure(403, str(error))
        return Failure(401, str(error), {"WWW-Authenticate": "Bearer"})
    if isinstance(error, Overloaded):
        return Failure(503, str(error), {"Retry-After": str(math.ceil(error.retry_after_seconds))})
    if isinstance(error, RateLimited):
        return Failure(429, str(error), {"Retry-After": str(math.ceil(error.retry_after_seconds))})
    if isinstance(error, ModelFailed):
        who = f"version {error.version} of '{error.model}'"
        return Failure(500, f"{who} failed on this request and no other version could answer it; {_SEE_LOG}")
    for kind, status in _STATUSES:
        if isinstance(error, kind):
            return Failure(status, str(error))
    log.error("request_failed", exc_info=error)
    return Failure(500, f"internal error; {_SEE_LOG}")
