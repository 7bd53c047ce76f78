"""What a version may cost, and how much time finding out may take. Given with each benchmark."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from serving.store.text import JsonValue


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkPolicy:
    """Limits of one benchmark; the defaults are those of every entry that names none.

    Against the version beside it, p95 latency is worse only beyond both `max_latency_ratio` and
    `max_latency_extra_ms`. The absolute limits hold only where given: `max_p95_ms` of single rows,
    `min_throughput` in rows per second at the best batch, `max_memory_mb` once loaded and warm.

    `seconds` is spent calling, in windows of `window_seconds` until three in a row lie within
    `stability_ratio` of their mean; a slow model gets more, up to `deadline_seconds` for everything.
    """

    max_p95_ms: float | None = None
    min_throughput: float | None = None
    max_memory_mb: float | None = None
    max_latency_ratio: float = 1.25
    max_latency_extra_ms: float = 5.0
    stability_ratio: float = 0.10
    max_batch: int = 32
    seconds: float = 20.0
    window_seconds: float = 0.5
    deadline_seconds: float = 120.0
    memory_ceiling_mb: float | None = None

    def __post_init__(self) -> None:
        """Raises `ValueError` for a limit that could never refuse, or always would."""
        for limit in fields(self):
            value = getattr(self, limit.name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{limit.name} must be a number of at least 0, not {value}")
        for name in ("max_batch", "seconds", "window_seconds", "deadline_seconds"):
            if getattr(self, name) == 0:
                raise ValueError(f"{name} must be more than 0")


def limits(given: Mapping[str, object]) -> dict[str, JsonValue]:
    """Those limits that were given, as numbers; events and forms bring them as text.

    Nothing, blank text and `none` stand for the default. Raises `ValueError`.
    """
    texts = {name: str(value).strip() for name, value in given.items() if value is not None}
    wanted = {name: _number(name, text) for name, text in texts.items() if text.lower() not in ("", "none")}
    policy_of(wanted)
    return {**wanted}


def policy_of(given: Mapping[str, object], usual: BenchmarkPolicy = BenchmarkPolicy()) -> BenchmarkPolicy:
    """The usual policy with the limits given; those of other checks are let be. Raises `ValueError`."""
    ours: dict[str, Any] = {name: value for name, value in given.items() if name in _LIMITS}
    return replace(usual, **ours)


_LIMITS = (
    "max_p95_ms",
    "min_throughput",
    "max_memory_mb",
    "max_latency_ratio",
    "max_latency_extra_ms",
    "seconds",
)


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{name} must be a number, not '{text}'") from None
