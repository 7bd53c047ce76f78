"""How much worse a candidate may be, and how much time looking may take. Given with each validation."""

import math
from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class ValidationPolicy:
    """Limits of one validation; the defaults are those of every entry that names none.

    Against the champion: accuracy may drop by `max_accuracy_drop`, a mean absolute error may grow to
    `max_error_ratio` times the champion's, and p95 latency is worse only beyond both
    `max_latency_ratio` and `max_latency_extra_ms`. The absolute limits hold only where given.
    """

    max_accuracy_drop: float = 0.01
    max_error_ratio: float = 1.05
    max_latency_ratio: float = 1.25
    max_latency_extra_ms: float = 5.0
    min_accuracy: float | None = None
    max_p95_ms: float | None = None
    max_memory_mb: float | None = None
    evaluation_seconds: float = 20.0
    latency_seconds: float = 5.0
    latency_calls: int = 100

    def __post_init__(self) -> None:
        """Raises `ValueError` for a limit that could never refuse, or always would."""
        for limit in fields(self):
            value = getattr(self, limit.name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{limit.name} must be a number of at least 0, not {value}")
        for name in ("min_accuracy", "max_accuracy_drop"):
            value = getattr(self, name)
            if value is not None and value > 1:
                raise ValueError(f"{name} is a share between 0 and 1, not {value}")
