"""How a version does, for answers whose request says `analytics: true`: kept ready, never computed then.

The store is read in the background: every few seconds for a model that is asked about, once a minute for one
that answers and is not. While it is away the last figures stand. Null stands for what nobody has measured:
no request in the last five minutes, no label and no evaluation.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from sqlalchemy import Engine

from serving.core.clock import Clock
from serving.core.errors import StoreUnavailable
from serving.core.health import Status
from serving.core.model import VersionRef
from serving.followed import FollowedModel
from serving.ledger import Ledger
from serving.pool import LoadedVersion
from serving.store import observed, version_reports
from serving.store.observed import NOT_OBSERVED, Observed
from serving.store.version_reports import VersionReports
from serving.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

_TURN_SECONDS = 1.0
_ASKED_FOR_SECONDS = 60.0
# Between two looks at a model: that somebody asks about, that nothing was found of yet, any other.
_ASKED_SECONDS, _UNKNOWN_SECONDS, _UNASKED_SECONDS = 5.0, 2.0, 60.0
_WORTH = {Status.HEALTHY: 1.0, Status.UNKNOWN: 0.75, Status.WARNING: 0.5, Status.CRITICAL: 0.0}


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one version and all workers: p95 latency and share of failures in the last five minutes; accuracy
    by the labels of a week, where these are enough, else of the evaluation.
    """

    p95_ms: float | None = None
    error_rate: float | None = None
    accuracy: float | None = None


_NOT_KNOWN = Figures()


@dataclass(slots=True)
class _Kept:
    """What was found of a model's versions, when, after how many answers, and when it was asked for last."""

    figures: Mapping[VersionRef, Figures] = field(default_factory=dict)
    looked_at: float = float("-inf")
    answers: int = 0
    asked_at: float = float("-inf")


class Analytics:
    """Confined to the event loop's thread; the store is asked on others."""

    def __init__(
        self,
        models: Mapping[str, FollowedModel],
        metrics: Metrics,
        health: Callable[[str], Status],
        ledger: Ledger,
        clock: Clock,
    ) -> None:
        self._models = models
        self._metrics = metrics
        self._health = health
        self._ledger = ledger
        self._clock = clock
        self._kept: dict[str, _Kept] = {}

    def of(self, ref: VersionRef) -> dict[str, float | None]:
        """`p95_ms`, `error_rate`, `accuracy` and `health_score` of a version, as last known.

        What this worker counted since it started stands for an error rate that is not in the store yet.
        """
        kept = self._kept.setdefault(ref.model, _Kept())
        kept.asked_at = self._clock.monotonic()
        known = kept.figures.get(ref, _NOT_KNOWN)
        error_rate = known.error_rate
        if error_rate is None:
            error_rate = self._metrics.tally(ref).error_ratio
        return {
            "p95_ms": known.p95_ms,
            "error_rate": error_rate,
            "accuracy": known.accuracy,
            "health_score": health_score(self._health(ref.model), error_rate),
        }

    async def run(self) -> None:
        """Look again and again until cancelled."""
        while True:
            await asyncio.sleep(_TURN_SECONDS)
            try:
                await self.turn()
            except Exception:  # the last figures stand
                log.exception("analytics_turn_failed")

    async def turn(self) -> None:
        """Read anew what is due."""
        for name in self._kept.keys() - self._models.keys():
            del self._kept[name]
        for model in list(self._models.values()):
            kept = self._kept.setdefault(model.name, _Kept())
            versions = {version.ref: version for version in model.in_use()}
            answers = sum(self._metrics.tally(ref).answers for ref in versions)
            if versions and self._is_due(kept, answers):
                kept.looked_at, kept.answers = self._clock.monotonic(), answers
                await self._look(model.name, kept, versions)

    def _is_due(self, kept: _Kept, answers: int) -> bool:
        now = self._clock.monotonic()
        is_asked = now - kept.asked_at < _ASKED_FOR_SECONDS
        if not is_asked and answers == kept.answers:
            return False
        is_unknown = all(figures.p95_ms is None for figures in kept.figures.values())
        usual = _ASKED_SECONDS if is_asked else _UNASKED_SECONDS
        return now - kept.looked_at >= (_UNKNOWN_SECONDS if is_unknown else usual)

    async def _look(self, model: str, kept: _Kept, versions: Mapping[VersionRef, LoadedVersion]) -> None:
        created = {ref.version: version.key.created_ms for ref, version in versions.items()}
        now = self._clock.now()
        try:
            found = await self._ledger.look(lambda engine: _read(engine, model, created, now))
        except StoreUnavailable as error:
            log.debug("analytics_waits model=%s reason=%s", model, error)
            return
        kept.figures = found


def health_score(status: Status, error_rate: float | None) -> float:
    """From 0 to 1: what the model's health is worth, less the version's share of failures.

    `worth * (1 - error_rate)`, where worth is 1 of a healthy model, 0.75 of an unknown one, 0.5 of a warning
    and 0 of a critical one, in the order in which the worst level makes the status. The formula is ours.
    """
    return _WORTH[status] * (1.0 - (error_rate or 0.0))


def _read(engine: Engine, model: str, created: Mapping[str, int], now: datetime) -> dict[VersionRef, Figures]:
    """`created` is when each version's model was registered: what is older is about a namesake."""
    born = datetime.fromtimestamp(min(created.values()) / 1000, UTC)
    seen = observed.observed(engine, model, now, born)
    reports = version_reports.newest(engine, model, created)
    return {
        VersionRef(model, number): _figures(seen.get(number, NOT_OBSERVED), reports[number])
        for number in created
    }


def _figures(seen: Observed, reports: VersionReports) -> Figures:
    reached = version_reports.scores(reports)
    if seen.has_enough_labels:
        reached |= observed.scores(seen.scored)
    return Figures(seen.lately.latency_ms(0.95), seen.lately.error_ratio, reached.get("accuracy"))
