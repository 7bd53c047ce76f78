"""What one version did in a span of time: requests by outcome, how long they took, what labels said.

Spans add up: sixty seconds make the minute, and the windows of all workers the server's. Written by
serving, read by the judge of a rollout, the analysis and the dashboard.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from serving.core.scored import NOT_SCORED, Scored, total_scored
from serving.core.sketch import NO_MOMENTS, Moments, Sketch, total

OK = "ok"
OVERLOADED = "overloaded"
MAX_ERRORS = 32
OTHER_ERRORS = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowStats:
    """`statuses` are requests by outcome, counted where the answer came from; `rows` are in answered ones.

    `faults` are failures of the version's own, also where another version answered in its place. `latency`
    holds the seconds from routed to answered of answered requests, `queue` those they waited for a
    thread, `compute` and `batches` the seconds and rows of executions. `errors` counts faults that were
    raised, by `<class>/<fingerprint>`.
    """

    statuses: Mapping[str, int] = field(default_factory=dict)
    rows: int = 0
    faults: int = 0
    latency: Sketch = field(default_factory=Sketch)
    queue: Moments = NO_MOMENTS
    compute: Moments = NO_MOMENTS
    batches: Moments = NO_MOMENTS
    errors: Mapping[str, int] = field(default_factory=dict)
    scored: Scored = NOT_SCORED

    @property
    def requests(self) -> int:
        return sum(self.statuses.values())

    @property
    def answered(self) -> int:
        return self.statuses.get(OK, 0)

    @property
    def error_ratio(self) -> float | None:
        """Faults among what the version answered or should have; None where it was not asked."""
        judged = self.answered + self.faults
        return self.faults / judged if judged else None

    @property
    def label_coverage(self) -> float | None:
        """The share of answered rows that have a label by now."""
        return min(1.0, self.scored.labelled / self.rows) if self.rows else None

    def latency_ms(self, ratio: float) -> float | None:
        """A quantile of the latency, in milliseconds, to 1 %."""
        seconds = self.latency.quantile(ratio)
        return seconds * 1000 if seconds is not None else None

    def plus(self, other: "WindowStats") -> "WindowStats":
        return combined((self, other))

    def as_json(self) -> dict[str, Any]:
        """A short form for the store, without what is empty."""
        told: dict[str, Any] = {
            "s": dict(self.statuses),
            "r": self.rows,
            "f": self.faults,
            "l": self.latency.as_numbers() if self.latency.count else [],
            "q": self.queue.as_numbers(),
            "c": self.compute.as_numbers(),
            "b": self.batches.as_numbers(),
            "e": dict(self.errors),
            "y": self.scored.as_json(),
        }
        return {name: value for name, value in told.items() if value}

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> "WindowStats":
        return cls(
            statuses=told.get("s", {}),
            rows=told.get("r", 0),
            faults=told.get("f", 0),
            latency=Sketch.from_numbers(told.get("l") or [0]),
            queue=Moments.from_numbers(told.get("q", ())),
            compute=Moments.from_numbers(told.get("c", ())),
            batches=Moments.from_numbers(told.get("b", ())),
            errors=told.get("e", {}),
            scored=Scored.from_json(told.get("y", {})),
        )


NOTHING = WindowStats()


def combined(windows: Iterable[WindowStats]) -> WindowStats:
    """The sum of many; nothing of none."""
    parts = list(windows)
    if len(parts) == 1:
        return parts[0]
    return WindowStats(
        statuses=_counts(part.statuses for part in parts),
        rows=sum(part.rows for part in parts),
        faults=sum(part.faults for part in parts),
        latency=total(part.latency for part in parts),
        queue=_moments(part.queue for part in parts),
        compute=_moments(part.compute for part in parts),
        batches=_moments(part.batches for part in parts),
        errors=_bounded(_counts(part.errors for part in parts)),
        scored=total_scored(part.scored for part in parts),
    )


def _counts(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    whole: dict[str, int] = {}
    for part in parts:
        for name, count in part.items():
            whole[name] = whole.get(name, 0) + count
    return whole


def _moments(parts: Iterable[Moments]) -> Moments:
    whole = NO_MOMENTS
    for part in parts:
        if part.count:
            whole = whole.plus(part)
    return whole


def _bounded(errors: dict[str, int]) -> dict[str, int]:
    """The most frequent errors by name, the rest together: a model may raise anything."""
    if len(errors) <= MAX_ERRORS:
        return errors
    named = sorted((name for name in errors if name != OTHER_ERRORS), key=lambda name: -errors[name])
    kept = {name: errors[name] for name in named[: MAX_ERRORS - 1]}
    return kept | {OTHER_ERRORS: sum(errors.values()) - sum(kept.values())}
