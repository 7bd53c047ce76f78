"""The functional level: does the served version still answer its declared set as well as it did?

Pure grading; `flows.check_health` asks serving and brings the numbers here.
"""

from dataclasses import dataclass
from datetime import datetime

from serving.core.health import LevelReport, Status

WARNING_DROP = 0.01
CRITICAL_DROP = 0.05


@dataclass(frozen=True, slots=True)
class Measured:
    """Share of right answers among `rows` asked of the served version, and the first ever measured."""

    accuracy: float
    rows: int
    baseline: float | None


def graded(measured: Measured, min_accuracy: float, now: datetime) -> LevelReport:
    """Judged against the version's own first result and one absolute floor."""
    shown = f"accuracy {measured.accuracy:.3f} on {measured.rows} declared rows"
    drop = (measured.baseline - measured.accuracy) if measured.baseline is not None else 0.0
    if drop > CRITICAL_DROP:
        return LevelReport(Status.CRITICAL, f"{shown}, {drop:.3f} below its baseline", now)
    if drop > WARNING_DROP:
        return LevelReport(Status.WARNING, f"{shown}, {drop:.3f} below its baseline", now)
    if measured.accuracy < min_accuracy:
        return LevelReport(Status.WARNING, f"{shown}, below the floor of {min_accuracy:.3f}", now)
    return LevelReport(Status.HEALTHY, shown, now)


def unanswered(problem: str, now: datetime) -> LevelReport:
    """The level of a version that did not answer the check at all."""
    return LevelReport(Status.CRITICAL, problem, now)
