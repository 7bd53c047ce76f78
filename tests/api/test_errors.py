"""The one table from errors to statuses: every error this project raises has its row."""

import pytest

from serving.api.errors import failure_of
from serving.core import errors
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
    StoreUnusable,
    UnsupportedContent,
    VersionUnresponsive,
)

TABLE: list[tuple[SignalboxError, int, str, str]] = [
    (InvalidRequest("given twice", tensor="x"), 400, "INVALID_ARGUMENT", "tensor 'x': given twice"),
    (AccessRefused("a key is needed", identified=False), 401, "UNAUTHENTICATED", "a key is needed"),
    (AccessRefused("not for you", identified=True), 403, "PERMISSION_DENIED", "not for you"),
    (NotServed("no model 'a'", exists=["b", "c"]), 404, "NOT_FOUND", "no model 'a'; available: b, c"),
    (NotServed("no 'a'", exists=[]), 404, "NOT_FOUND", "no 'a'; nothing is available yet"),
    (ChangeRefused("being changed", holder="ann"), 409, "FAILED_PRECONDITION", "being changed"),
    (BodyTooLarge(64), 413, "RESOURCE_EXHAUSTED", "the body is larger than the limit of 64 bytes"),
    (UnsupportedContent("brotli"), 415, "INVALID_ARGUMENT", "brotli"),
    (ArtifactRefused("a pickle", next_step="export it"), 422, "FAILED_PRECONDITION", "a pickle; export it"),
    (
        RateLimited("key 'a'", retry_after_seconds=0.5),
        429,
        "RESOURCE_EXHAUSTED",
        "key 'a' asks more often than allowed; try again in 0.5 s",
    ),
    (Overloaded("full", retry_after_seconds=1.2), 503, "UNAVAILABLE", "full"),
    (
        VersionUnresponsive("digits", "4", retry_after_seconds=5.0),
        503,
        "UNAVAILABLE",
        "version 4 of 'digits' does not answer: all its threads are stuck; it is tried again in 5 s",
    ),
    (RegistryUnavailable("MLflow is away"), 503, "UNAVAILABLE", "MLflow is away"),
    (
        FlowsUnavailable("Prefect is away", recorded="rollback 7"),
        503,
        "UNAVAILABLE",
        "Prefect is away; rollback 7 is recorded and begins when Prefect is back; "
        "meanwhile inference, traffic changes, and instant and emergency rollbacks work",
    ),
    (StoreUnavailable("locked"), 503, "UNAVAILABLE", "locked"),
    (StoreUnusable("damaged", next_step="restore it"), 503, "UNAVAILABLE", "damaged; restore it"),
    (DeadlineExceeded("too late"), 504, "DEADLINE_EXCEEDED", "too late"),
]


@pytest.mark.parametrize(
    ("error", "status", "code", "message"), TABLE, ids=[f"{type(row[0]).__name__}-{row[1]}" for row in TABLE]
)
def test_error_has_one_status_each_and_its_own_sentence(
    error: SignalboxError, status: int, code: str, message: str
) -> None:
    """The sentence is the error's, over HTTP and over gRPC."""
    failure = failure_of(error)
    assert (failure.status, failure.code, failure.message) == (status, code, message)


def test_every_error_of_the_tree_is_in_the_table() -> None:
    """A new error must say which status it is."""
    known = {type(row[0]) for row in TABLE} | {ModelFailed, SignalboxError}
    raised = {thing for thing in vars(errors).values() if isinstance(thing, type)}
    assert {kind for kind in raised if issubclass(kind, SignalboxError)} == known


def test_headers_say_when_and_how_to_come_again() -> None:
    """Whole seconds, rounded up; and which scheme takes the key."""
    assert failure_of(Overloaded("full", retry_after_seconds=1.2)).headers == {"Retry-After": "2"}
    stuck = VersionUnresponsive("digits", "4", retry_after_seconds=4.5)
    assert failure_of(stuck).headers == {"Retry-After": "5"}
    assert failure_of(RateLimited("ann", retry_after_seconds=0.2)).headers == {"Retry-After": "1"}
    assert failure_of(AccessRefused("no", identified=False)).headers == {"WWW-Authenticate": "Bearer"}


@pytest.mark.parametrize(
    "error",
    [
        ModelFailed("RuntimeError: secret", model="digits", version="4"),
        ValueError("secret"),
        SignalboxError("secret"),
    ],
)
def test_answer_keeps_the_details_for_the_log_when_nobody_foresaw_the_error(error: Exception) -> None:
    """What a model raised, or we did, is not the caller's to read."""
    failure = failure_of(error)
    assert (failure.status, failure.code) == (500, "INTERNAL")
    assert "secret" not in failure.message
    assert "X-Request-Id" in failure.message


def test_answer_names_the_version_when_a_model_failed() -> None:
    """So that its owner can be asked."""
    message = failure_of(ModelFailed("x", model="digits", version="4")).message
    assert message.startswith("version 4 of 'digits' failed on this request")
