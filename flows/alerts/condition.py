"""What is known of a channel as a whole, kept in the store so that a fault is told once, not per notice.

Called by delivery. One row of the reports per change: broken (again after an hour), held until a
time the channel itself named, working again.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import uuid4

from sqlalchemy import Engine

from serving.store import reports
from serving.store.reports import Report
from serving.store.text import read_optional_time, time_text

_KIND = "channel"
_REPEAT_SECONDS = 3600.0


class Verdict(StrEnum):
    WORKING = "working"
    HELD = "held"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Condition:
    """A channel's last change. `until` is set for one that is held."""

    verdict: Verdict
    reason: str
    since: datetime
    until: datetime | None = None


def current(engine: Engine, channel: str) -> Condition | None:
    """None for a channel that never had trouble."""
    report = reports.latest(engine, _KIND, channel)
    if report is None:
        return None
    until = report.body.get("until")
    held_until = read_optional_time(until if isinstance(until, str) else None)
    return Condition(Verdict(report.verdict), str(report.body.get("reason")), report.created_at, held_until)


def note(engine: Engine, channel: str, condition: Condition) -> None:
    until = None if condition.until is None else time_text(condition.until)
    reports.save(
        engine,
        Report(
            id=str(uuid4()),
            kind=_KIND,
            model=channel,
            version=None,
            verdict=str(condition.verdict),
            created_at=condition.since,
            body={"reason": condition.reason, "until": until},
        ),
    )


def is_news(known: Condition | None, reason: str, now: datetime) -> bool:
    """Whether a broken channel should be spoken of: not while the same was said within the hour."""
    if known is None or known.verdict is not Verdict.BROKEN or known.reason != reason:
        return True
    return now - known.since >= timedelta(seconds=_REPEAT_SECONDS)


def is_open(known: Condition | None, now: datetime) -> bool:
    """Whether the channel may be tried."""
    return known is None or known.until is None or known.until <= now
