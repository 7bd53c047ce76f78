"""How much worse a candidate may be, and how much looking may cost. Given with each validation."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from enum import StrEnum

from pydantic import TypeAdapter, ValidationError

from serving.store.text import JsonValue


class Doubt(StrEnum):
    """What a comparison that proves neither side amounts to; `estimate` goes by the measured value."""

    ESTIMATE = "estimate"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ValidationPolicy:
    """Limits of one validation; the defaults are those of every entry that names none.

    Against the champion, on the same rows: a share of right answers may drop by `max_accuracy_drop`,
    a mean error or regret may grow to `max_error_ratio` times the champion's. The candidate passes
    where the whole interval of `confidence` lies within the limit and fails where it lies wholly
    beyond; in between `when_uncertain` decides. p95 latency is worse only beyond both
    `max_latency_ratio` and `max_latency_extra_ms`. The absolute limits hold only where given.
    `replay_rows` of the inference log are asked again, 0 for none.
    """

    max_accuracy_drop: float = 0.01
    max_error_ratio: float = 1.05
    confidence: float = 0.95
    when_uncertain: Doubt = Doubt.ESTIMATE
    min_neighbour_overlap: float = 0.5
    min_replay_agreement: float = 0.5
    max_replay_shift: float = 0.5
    max_latency_ratio: float = 1.25
    max_latency_extra_ms: float = 5.0
    min_accuracy: float | None = None
    max_p95_ms: float | None = None
    max_memory_mb: float | None = None
    allow_signature_change: bool = False
    replay_rows: int = 0
    max_batch_rows: int = 64
    evaluation_seconds: float = 10.0
    replay_seconds: float = 5.0
    latency_seconds: float = 3.0
    latency_calls: int = 100

    def __post_init__(self) -> None:
        """Raises `ValueError` for a limit that could never refuse, or always would."""
        for limit in fields(self):
            value = getattr(self, limit.name)
            if isinstance(value, int | float) and not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{limit.name} must be a number of at least 0, not {value}")
        for name in _SHARES:
            value = getattr(self, name)
            if value is not None and value > 1:
                raise ValueError(f"{name} is a share between 0 and 1, not {value}")
        if not 0.5 <= self.confidence < 1:
            raise ValueError(f"confidence is a share of at least 0.5 and below 1, not {self.confidence}")
        if self.max_batch_rows < 1:
            raise ValueError(f"max_batch_rows must be at least 1, not {self.max_batch_rows}")


_SHARES = ("min_accuracy", "max_accuracy_drop", "min_neighbour_overlap", "min_replay_agreement")
_NAMES = {limit.name for limit in fields(ValidationPolicy)}
_POLICIES = TypeAdapter(ValidationPolicy)


def limits(given: Mapping[str, object]) -> dict[str, JsonValue]:
    """Those limits that were given, each in its own type; events and forms bring them as text.

    Nothing, blank text and `none` stand for the default. Raises `ValueError` in one sentence.
    """
    unknown = sorted(given.keys() - _NAMES)
    if unknown:
        raise ValueError(f"{unknown[0]} is no limit of a validation")
    wanted = {name: value for name, value in given.items() if not _is_blank(value)}
    try:
        policy = _POLICIES.validate_python(wanted)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        about = f"{'.'.join(map(str, first['loc']))}: " if first["loc"] else ""
        raise ValueError(about + first["msg"].removeprefix("Value error, ")) from None
    typed: dict[str, JsonValue] = {name: getattr(policy, name) for name in wanted}
    return {name: str(value) if isinstance(value, Doubt) else value for name, value in typed.items()}


def policy_of(given: Mapping[str, object]) -> ValidationPolicy:
    """A whole policy from the limits given; those of other checks are let be. Raises `ValueError`."""
    ours = limits({name: value for name, value in given.items() if name in _NAMES})
    policy: ValidationPolicy = _POLICIES.validate_python(ours)
    return policy


def within_budget(policy: ValidationPolicy, budget_mb: float) -> ValidationPolicy:
    """The policy with serving's memory budget as the limit, unless a lower one was given."""
    given_mb = policy.max_memory_mb
    return replace(policy, max_memory_mb=budget_mb if given_mb is None else min(given_mb, budget_mb))


def _is_blank(value: object) -> bool:
    return value is None or (isinstance(value, str) and value.strip().lower() in ("", "none"))
