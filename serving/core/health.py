"""Health as four levels, each with one status; the worst measured level is the model's status."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum


class Level(StrEnum):
    """What a check looks at. Serving owns basic and operational, the flows the other two."""

    BASIC = "basic"
    FUNCTIONAL = "functional"
    OPERATIONAL = "operational"
    PREDICTIVE = "predictive"


class Status(StrEnum):
    HEALTHY = "healthy"
    UNKNOWN = "unknown"
    WARNING = "warning"
    CRITICAL = "critical"


_SEVERITY = {status: rank for rank, status in enumerate(Status)}


@dataclass(frozen=True, slots=True)
class LevelReport:
    """The last verdict on one level. `checked_at` is None while nothing has looked yet."""

    status: Status
    message: str
    checked_at: datetime | None


def not_measured(message: str) -> LevelReport:
    return LevelReport(Status.UNKNOWN, message, None)


def aged(report: LevelReport, now: datetime, interval_seconds: float) -> LevelReport:
    """The report as it stands at `now`: older than three intervals, it says nothing any more."""
    if report.checked_at is None or now - report.checked_at <= timedelta(seconds=3 * interval_seconds):
        return report
    seconds = (now - report.checked_at).total_seconds()
    return LevelReport(Status.UNKNOWN, f"last checked {seconds:.0f} s ago", report.checked_at)


def worst(statuses: Iterable[Status]) -> Status:
    """The most severe status, where unknown is worse than healthy; unknown of nothing."""
    return max(statuses, key=_SEVERITY.__getitem__, default=Status.UNKNOWN)


def overall(levels: Iterable[LevelReport]) -> Status:
    """The worst of the levels that were ever measured: a level nobody reports does not count."""
    return worst(report.status for report in levels if report.checked_at is not None)
