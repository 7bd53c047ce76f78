"""Which requests failed, which were answered by a wrong version: pure functions over their records.

The demonstration says when which version had to answer; these count what did not hold.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from flows.cli.demo.records import Record
from serving.core.model import Variant

# A server that is not ready says so with 503; any other answer is one it has to stand for.
_NOT_READY = 503


@dataclass(frozen=True, slots=True)
class Period:
    """Requests started within it must be answered by `version`, or by a stand-in marked as such.

    `beside` is the version that is being tried out meanwhile and may answer too.
    """

    version: str
    since: float
    until: float = math.inf
    beside: str | None = None

    def is_broken_by(self, record: Record) -> bool:
        within = self.since < record.started < self.until
        is_due = record.version in (self.version, self.beside) or record.variant == Variant.FALLBACK
        return within and not is_due


@dataclass(frozen=True, slots=True)
class Share:
    """How many of so many answers came from one version."""

    own: int
    answers: int

    @classmethod
    def of(cls, records: Iterable[Record], version: str, since: float, until: float) -> "Share":
        answered = [r for r in records if r.is_answered and since < r.started < until]
        return cls(sum(record.version == version for record in answered), len(answered))

    def is_about(self, percent: int) -> bool:
        """Whether a draw of `percent` for each request can give this: within five standard deviations."""
        ratio = percent / 100
        spread = math.sqrt(self.answers * ratio * (1 - ratio))
        return self.answers > 0 and abs(self.own - self.answers * ratio) <= 5 * spread

    def __str__(self) -> str:
        return f"{self.own / self.answers:.1%}" if self.answers else "nothing"


@dataclass(frozen=True, slots=True)
class Gap:
    """From the kill of the only server to the first answer of its successor."""

    since: float
    until: float = math.inf

    def explains(self, record: Record) -> bool:
        """Whether a request failed for want of a server: begun before it was back, ended after the kill."""
        unserved = record.status is None or record.status == _NOT_READY
        return unserved and record.started <= self.until and record.ended >= self.since


@dataclass(frozen=True, slots=True)
class Tally:
    """`failed` leaves out what failed while the only server was dead."""

    sent: int
    failed: Sequence[Record]
    failed_while_dead: Sequence[Record]
    wrong: Sequence[Record]
    by_fallback: int

    @property
    def is_clean(self) -> bool:
        return not self.failed and not self.wrong

    def __str__(self) -> str:
        return f"failed {len(self.failed)}, wrong version {len(self.wrong)}"


def judge(records: Sequence[Record], periods: Sequence[Period], gaps: Sequence[Gap]) -> Tally:
    """Count everything that was sent."""
    unanswered = [record for record in records if not record.is_answered]
    dead = [record for record in unanswered if any(gap.explains(record) for gap in gaps)]
    return Tally(
        sent=len(records),
        failed=[record for record in unanswered if record not in dead],
        failed_while_dead=dead,
        wrong=[record for record in records if record.is_answered and _is_wrong(record, periods)],
        by_fallback=sum(record.variant == Variant.FALLBACK for record in records),
    )


def _is_wrong(record: Record, periods: Sequence[Period]) -> bool:
    """Not the outputs of the version it names, or not the version that had to answer by then."""
    return not record.matches or any(period.is_broken_by(record) for period in periods)


def first_answer(records: Iterable[Record], version: str, since: float) -> Record | None:
    """The earliest answer that `version` gave as champion to a request started after `since`."""
    own = (
        record
        for record in records
        if record.version == version and record.started >= since and record.variant == Variant.CHAMPION
    )
    return min(own, key=lambda record: record.ended, default=None)


def first_stand_in(records: Iterable[Record], since: float) -> Record | None:
    """The earliest answer that another version gave in place of the champion."""
    given = (r for r in records if r.variant == Variant.FALLBACK and r.started >= since)
    return min(given, key=lambda record: record.ended, default=None)


def percentile(values: Sequence[float], percent: int) -> float:
    """The smallest value that at least `percent` of all values do not exceed (nearest rank)."""
    ranked = sorted(values)
    return ranked[max(0, math.ceil(len(ranked) * percent / 100) - 1)]
