"""Every error this project raises on purpose. None of them knows HTTP; one table at the edge does.

SignalboxError
├── InvalidRequest        the caller's fault; `tensor` names the culprit where there is one
├── BodyTooLarge          a request body beyond `limit_bytes`
├── UnsupportedContent    a body in a form or compression this server does not read
├── NotServed             the model, version or alias asked for; `exists` lists what there is
├── AccessRefused         no key, or a key that may not do this
├── RateLimited           a caller who asks too often; may again after `retry_after_seconds`
├── Overloaded            the server cannot take this now; retry after `retry_after_seconds`
├── DeadlineExceeded      the request's own time ran out
├── ModelFailed           a version raised or broke its output spec, and nothing could stand in
│   └── VersionUnresponsive   it is not even asked, because nothing it was asked lately returned
├── ArtifactRefused       a version cannot be served; `next_step` says what would help
├── ChangeRefused         an intended change that must not or cannot happen now
├── RegistryUnavailable   MLflow did not give a usable answer
├── FlowsUnavailable      Prefect did not; `recorded` says what waits for it
└── StoreUnavailable      the state store did not give a usable answer
    └── StoreUnusable     it must not be used as it is; `next_step` says how to repair it
"""

from collections.abc import Sequence


class SignalboxError(Exception):
    """Root of the tree."""


class InvalidRequest(SignalboxError):
    def __init__(self, problem: str, *, tensor: str | None = None) -> None:
        self.problem = problem
        self.tensor = tensor
        super().__init__(f"tensor '{tensor}': {problem}" if tensor is not None else problem)


class BodyTooLarge(SignalboxError):
    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        super().__init__(f"the body is larger than the limit of {limit_bytes} bytes")


class UnsupportedContent(SignalboxError):
    pass


class NotServed(SignalboxError):
    def __init__(self, problem: str, *, exists: Sequence[str] | None = None) -> None:
        self.problem = problem
        self.exists = tuple(exists or ())
        known = "" if exists is None else "; nothing is available yet"
        super().__init__(problem + (f"; available: {', '.join(self.exists)}" if self.exists else known))


class AccessRefused(SignalboxError):
    def __init__(self, problem: str, *, identified: bool) -> None:
        self.identified = identified
        super().__init__(problem)


class RateLimited(SignalboxError):
    def __init__(self, who: str, *, retry_after_seconds: float) -> None:
        self.who = who
        self.retry_after_seconds = retry_after_seconds
        super().__init__(f"{who} asks more often than allowed; try again in {retry_after_seconds:.2g} s")


class Overloaded(SignalboxError):
    def __init__(self, problem: str, *, retry_after_seconds: float) -> None:
        self.retry_after_seconds = retry_after_seconds
        super().__init__(problem)


class DeadlineExceeded(SignalboxError):
    pass


class ModelFailed(SignalboxError):
    def __init__(self, problem: str, *, model: str, version: str) -> None:
        self.model = model
        self.version = version
        super().__init__(problem)


class VersionUnresponsive(ModelFailed):
    def __init__(self, model: str, version: str, *, retry_after_seconds: float) -> None:
        self.retry_after_seconds = retry_after_seconds
        super().__init__(
            f"version {version} of '{model}' does not answer: all its threads are stuck; it is tried again "
            f"in {retry_after_seconds:.0f} s",
            model=model,
            version=version,
        )


class ArtifactRefused(SignalboxError):
    def __init__(self, problem: str, *, next_step: str) -> None:
        self.problem = problem
        self.next_step = next_step
        super().__init__(f"{problem}; {next_step}")


class ChangeRefused(SignalboxError):
    def __init__(self, problem: str, *, holder: str | None = None) -> None:
        self.holder = holder
        super().__init__(problem)


class RegistryUnavailable(SignalboxError):
    pass


class FlowsUnavailable(SignalboxError):
    def __init__(self, problem: str, *, recorded: str = "") -> None:
        self.problem = problem
        self.recorded = recorded
        waits = f"; {recorded} is recorded and begins when Prefect is back" if recorded else ""
        works = "meanwhile inference, traffic changes, and instant and emergency rollbacks work"
        super().__init__(f"{problem}{waits}; {works}")


class StoreUnavailable(SignalboxError):
    pass


class StoreUnusable(StoreUnavailable):
    def __init__(self, problem: str, *, next_step: str) -> None:
        self.next_step = next_step
        super().__init__(f"{problem}; {next_step}")
