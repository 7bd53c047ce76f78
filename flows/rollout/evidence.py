"""What a stage is judged by: counts, times and paired answers of both versions, and where they are read."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from sqlalchemy import Engine

from flows.rollout.paired import Labelled, paired
from serving.core.comparison import Pair, Role, Tally
from serving.core.model import Variant
from serving.core.scored import NOT_SCORED, Scored
from serving.core.window import NOTHING, WindowStats
from serving.store import comparisons, labels, telemetry

# Of the champion before the rollout, to tell a shift of the world from a fault of a version.
LOOKBACK = timedelta(minutes=10)
# Labels come late, so of them a longer past is known.
LABELS_LOOKBACK = timedelta(days=1)
MOST_LABELS = 20_000


@dataclass(frozen=True, slots=True)
class Evidence:
    """`champion` and `challenger` in the stage, but at 100 % the champion in the stages before.

    `baseline` is the champion before the stage. `pairs` are answers to the same inputs since the first
    stage, `control` those of this stage in which the champion got the copy. The labels are of everything
    since the first stage, because they come late; `labelled` counts rows that both versions answered, and
    `past_labels` are of the champion's answers before the rollout.
    """

    champion: WindowStats = NOTHING
    challenger: WindowStats = NOTHING
    baseline: WindowStats = NOTHING
    pairs: Tally = field(default_factory=Tally)
    control: Tally = field(default_factory=Tally)
    champion_labels: Scored = NOT_SCORED
    challenger_labels: Scored = NOT_SCORED
    labelled: Labelled = field(default_factory=Labelled)
    past_labels: Scored = NOT_SCORED
    is_final: bool = False
    is_shadow: bool = False


@dataclass(frozen=True, slots=True)
class Span:
    """Which evidence is wanted: of `champion` beside `challenger`, from when each is counted.

    `began` is the first stage's first moment, `since` the present stage's; both in `until`'s past.
    """

    model: str
    champion: str
    challenger: str
    began: datetime
    since: datetime
    until: datetime
    is_final: bool
    is_shadow: bool = False


class EvidenceSource(Protocol):
    """Where evidence comes from."""

    def collect(self, span: Span) -> Evidence:
        """Raises `StoreUnavailable`."""
        ...


class StoredEvidence:
    """What serving wrote to the store: telemetry by second, comparisons by minute, labels as they come.

    For one rollout. Labels of many requests are read again only when another one has come.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._labels: tuple[object, Labelled, Scored] | None = None

    def collect(self, span: Span) -> Evidence:
        """Raises `StoreUnavailable`."""
        before = self._stats(span, Variant.CHAMPION, span.began - LOOKBACK, span.since)
        earlier = self._stats(span, Variant.CHAMPION, span.began, span.since)
        present = self._stats(span, Variant.CHAMPION, span.since, span.until)
        found = comparisons.window(self._engine, span.model, span.began, span.until, other=span.challenger)
        latest = comparisons.window(self._engine, span.model, span.since, span.until, other=span.challenger)
        champion_of_final = earlier if earlier.requests else before
        labelled, past_labels = self._labelled(span)
        return Evidence(
            champion=champion_of_final if span.is_final else present,
            challenger=self._stats(span, Variant.CHALLENGER, span.since, span.until),
            baseline=before,
            pairs=comparisons.both_ways(found, span.champion, span.challenger, Role.CHALLENGER),
            control=latest.get(_control(span), Tally()),
            champion_labels=earlier.plus(present).scored,
            challenger_labels=self._stats(span, Variant.CHALLENGER, span.began, span.until).scored,
            labelled=labelled,
            past_labels=past_labels,
            is_final=span.is_final,
            is_shadow=span.is_shadow,
        )

    def _labelled(self, span: Span) -> tuple[Labelled, Scored]:
        """Rows with a label that both versions answered, and the champion's labels before the rollout."""
        state = (labels.state(self._engine, span.model), span.began, span.champion, span.challenger)
        if self._labels is None or self._labels[0] != state:
            ends = (span.model, span.champion, span.challenger, span.began, span.until)
            twice = labels.twice_answered(self._engine, *ends, limit=MOST_LABELS)
            past = telemetry.live(self._engine, span.model, span.began - LABELS_LOOKBACK, span.began)
            scored = past[span.champion].stats.scored if span.champion in past else NOT_SCORED
            self._labels = (state, paired(twice), scored)
        return self._labels[1:]

    def _stats(self, span: Span, variant: Variant, since: datetime, until: datetime) -> WindowStats:
        version = span.champion if variant is Variant.CHAMPION else span.challenger
        return telemetry.window(self._engine, span.model, version, variant, since, until)


def _control(span: Span) -> Pair:
    return Pair(span.model, span.champion, span.challenger, Role.CHALLENGER, is_control=True)
