"""The one table from errors to what a caller is told, over HTTP and gRPC alike.

Over HTTP every error leaves as `{"error": ...}`, over gRPC with the same sentence as its details.
"""

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
    FlowsUnavailable,
    InvalidRequest,
    ModelFailed,
    NotServed,
    Overloaded,
    RateLimited,
    RegistryUnavailable,
    SignalboxError,
    StoreUnavailable,
    UnsupportedContent,
    VersionUnresponsive,
)

log = logging.getLogger(__name__)

_SEE_LOG = "the server's log has the details under the X-Request-Id of this answer"

# HTTP status and the name of the gRPC status.
_STATUSES: tuple[tuple[type[SignalboxError], int, str], ...] = (
    (InvalidRequest, 400, "INVALID_ARGUMENT"),
    (NotServed, 404, "NOT_FOUND"),
    (ChangeRefused, 409, "FAILED_PRECONDITION"),
    (BodyTooLarge, 413, "RESOURCE_EXHAUSTED"),
    (UnsupportedContent, 415, "INVALID_ARGUMENT"),
    (ArtifactRefused, 422, "FAILED_PRECONDITION"),
    (RateLimited, 429, "RESOURCE_EXHAUSTED"),
    (Overloaded, 503, "UNAVAILABLE"),
    (VersionUnresponsive, 503, "UNAVAILABLE"),
    (RegistryUnavailable, 503, "UNAVAILABLE"),
    (FlowsUnavailable, 503, "UNAVAILABLE"),
    (StoreUnavailable, 503, "UNAVAILABLE"),
    (DeadlineExceeded, 504, "DEADLINE_EXCEEDED"),
)


@dataclass(frozen=True, slots=True)
class Failure:
    """Status, sentence and headers of an error's answer; `code` is the name of its gRPC status."""

    status: int
    message: str
    headers: Mapping[str, str] = field(default_factory=dict)
    code: str = "INTERNAL"


def failure_of(error: Exception) -> Failure:
    """What a caller is told of `error`; anything unforeseen is 500 without its details."""
    if isinstance(error, AccessRefused):
        if error.identified:
            return Failure(403, str(error), code="PERMISSION_DENIED")
        return Failure(401, str(error), {"WWW-Authenticate": "Bearer"}, "UNAUTHENTICATED")
    if isinstance(error, ModelFailed) and not isinstance(error, VersionUnresponsive):
        who = f"version {error.version} of '{error.model}'"
        return Failure(500, f"{who} failed on this request and no other version could answer it; {_SEE_LOG}")
    for kind, status, code in _STATUSES:
        if isinstance(error, kind):
            return Failure(status, str(error), _headers(error), code)
    log.error("request_failed", exc_info=error)
    return Failure(500, f"internal error; {_SEE_LOG}")


def _headers(error: SignalboxError) -> dict[str, str]:
    if isinstance(error, Overloaded | RateLimited | VersionUnresponsive):
        return {"Retry-After": str(math.ceil(error.retry_after_seconds))}
    return {}
