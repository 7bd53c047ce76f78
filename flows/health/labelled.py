"""The functional level by labels: is the served version still as often right as it was at first?

Pure grading of what live traffic and its labels showed; `flows.check_health` brings the numbers here.
"""

import math
from dataclasses import dataclass
from datetime import datetime

from serving.core.health import LevelReport, Status
from serving.core.scored import Scored

WARNING_DROP = 0.01
CRITICAL_DROP = 0.05
WARNING_GROWTH = 1.1
CRITICAL_GROWTH = 1.5
# A drop is believed once chance alone would show it less than once in a thousand looks.
_SURE = 3.29


@dataclass(frozen=True, slots=True)
class Labelled:
    """What labels say of a version's recent answers, and what those said of it first."""

    scored: Scored
    coverage: float | None
    first: Scored | None


def graded(seen: Labelled, min_accuracy: float, now: datetime) -> LevelReport:
    """Classes are judged by accuracy, numbers by their root mean squared error, each against its first."""
    if seen.scored.accuracy is not None:
        return _classified(seen, seen.scored.accuracy, min_accuracy, now)
    return _measured(seen, now)


def worse(one: LevelReport, other: LevelReport) -> LevelReport:
    """Both in one report: the status of the worse, what either says."""
    order = list(Status)
    status = max(one.status, other.status, key=order.index)
    return LevelReport(status, f"{one.message}; {other.message}", one.checked_at)


def _classified(seen: Labelled, accuracy: float, min_accuracy: float, now: datetime) -> LevelReport:
    shown = f"live accuracy {accuracy:.3f} on {seen.scored.classified} labelled answers{_covering(seen)}"
    first = seen.first
    drop = first.accuracy - accuracy if first is not None and first.accuracy is not None else 0.0
    is_sure = first is not None and drop > _SURE * _error(seen.scored, first)
    if is_sure and drop > CRITICAL_DROP:
        return LevelReport(Status.CRITICAL, f"{shown}, {drop:.3f} below its first", now)
    if is_sure and drop > WARNING_DROP:
        return LevelReport(Status.WARNING, f"{shown}, {drop:.3f} below its first", now)
    if accuracy < min_accuracy:
        return LevelReport(Status.WARNING, f"{shown}, below the floor of {min_accuracy:.3f}", now)
    return LevelReport(Status.HEALTHY, shown, now)


def _measured(seen: Labelled, now: datetime) -> LevelReport:
    rmse = seen.scored.rmse or 0.0
    shown = f"live error {rmse:.4g} (RMSE) on {seen.scored.measured} labelled answers{_covering(seen)}"
    first = seen.first.rmse if seen.first is not None else None
    growth = rmse / first if first else 1.0
    if growth > CRITICAL_GROWTH:
        return LevelReport(Status.CRITICAL, f"{shown}, {growth:.2f} times its first", now)
    if growth > WARNING_GROWTH:
        return LevelReport(Status.WARNING, f"{shown}, {growth:.2f} times its first", now)
    return LevelReport(Status.HEALTHY, shown, now)


def _error(seen: Scored, first: Scored) -> float:
    """Standard error of the difference of two shares, pooled. Source: the two-proportion z-test."""
    total = seen.classified + first.classified
    share = (seen.right + first.right) / total
    return math.sqrt(share * (1 - share) * (1 / seen.classified + 1 / first.classified))


def _covering(seen: Labelled) -> str:
    return f", {seen.coverage:.0%} of all" if seen.coverage is not None else ""
