"""Evidence as serving wrote it: each number from its own span, variant and version."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine

from flows.rollout.evidence import LABELS_LOOKBACK, Span, StoredEvidence
from flows.rollout.judge import judge
from flows.rollout.measurement import Verdict
from flows.rollout.paired import Agreement
from flows.rollout.policy import read_policy
from serving.core.comparison import Pair, Role
from serving.core.labels import Label
from serving.core.model import Variant, VersionRef
from serving.core.scored import Scored
from serving.core.window import WindowStats
from serving.store import comparisons, labels, telemetry
from serving.store.comparisons import Minute
from serving.store.labels import Joined
from serving.store.telemetry import SECOND, Window
from tests.flows.rollout.witness import pairs, stats

BEGAN = datetime(2026, 1, 1, 12, tzinfo=UTC)
SINCE = BEGAN + timedelta(minutes=5)
UNTIL = BEGAN + timedelta(minutes=10)
ONE, TWO = "1", "2"


def span(*, is_final: bool = False, is_shadow: bool = False) -> Span:
    return Span("digits", ONE, TWO, BEGAN, SINCE, UNTIL, is_final, is_shadow)


def seen(engine: Engine, version: str, variant: Variant, at: datetime, found: WindowStats) -> None:
    ref = VersionRef("digits", version)
    window = Window(
        ref=ref,
        variant=variant,
        worker="w",
        step_seconds=SECOND,
        start=int(at.timestamp()),
        stats=found,
    )
    telemetry.write(engine, [window])


def label(engine: Engine, name: str, answers: dict[str, tuple[Variant, bool]], at: datetime = SINCE) -> None:
    """One label, of a row that these versions answered."""
    joined = [
        Joined(
            label=Label(request_id=name, row=0, label="7", at=at + timedelta(minutes=1)),
            ref=VersionRef("digits", version),
            variant=variant,
            answered_at=at,
            said="7" if right else "1",
            scored=Scored(classified=1, right=int(right)),
        )
        for version, (variant, right) in answers.items()
    ]
    labels.count(engine, joined)


def test_requests_are_taken_from_their_own_span_version_and_variant(engine: Engine) -> None:
    """Copies and stand-ins are nobody's requests; at 100 % the champion is that of the stages before."""
    for version, variant, at, count in (
        (ONE, Variant.CHAMPION, BEGAN - timedelta(minutes=1), 1),
        (ONE, Variant.CHAMPION, BEGAN, 20),
        (ONE, Variant.CHAMPION, SINCE, 300),
        (ONE, Variant.SHADOW, SINCE, 4000),
        (ONE, Variant.FALLBACK, SINCE, 4000),
        (TWO, Variant.CHALLENGER, BEGAN, 50),
        (TWO, Variant.CHALLENGER, SINCE, 600),
        (TWO, Variant.SHADOW, SINCE, 4000),
    ):
        seen(engine, version, variant, at, stats(count))
    found = StoredEvidence(engine).collect(span())
    assert (found.champion.requests, found.challenger.requests, found.baseline.requests) == (300, 600, 21)
    assert StoredEvidence(engine).collect(span(is_final=True)).champion.requests == 20


def test_copies_of_both_directions_are_pairs(engine: Engine) -> None:
    """Since the first stage; those in which the champion got the copy are the control of the last."""
    one, other = (Pair("digits", ONE, TWO, Role.CHALLENGER, is_control=each) for each in (False, True))
    comparisons.save(engine, {Minute(one, BEGAN, "w"): pairs(30), Minute(other, SINCE, "w"): pairs(10)})
    found = StoredEvidence(engine).collect(span())
    assert (found.pairs.pairs, found.control.pairs) == (40, 10)


def test_shadow_stage_is_judged_by_what_is_stored_of_copies(engine: Engine) -> None:
    """A challenger that answers nobody needs no requests of its own."""
    pair = Pair("digits", ONE, TWO, Role.CHALLENGER)
    comparisons.save(engine, {Minute(pair, SINCE, worker): pairs(40) for worker in ("v", "w")})
    seen(engine, ONE, Variant.CHAMPION, SINCE, stats(80))
    found = StoredEvidence(engine).collect(span(is_shadow=True))
    assert judge(found, read_policy(None), None).verdict is Verdict.SUCCESS
    assert (
        judge(StoredEvidence(engine).collect(span()), read_policy(None), None).verdict is not Verdict.SUCCESS
    )


def test_labels_are_paired_by_row_and_read_again_when_one_comes(engine: Engine) -> None:
    """Whichever of the two answered the caller; rows of one version alone tell of that one."""
    source = StoredEvidence(engine)
    label(engine, "a", {ONE: (Variant.CHAMPION, True), TWO: (Variant.SHADOW, False)})
    label(engine, "b", {ONE: (Variant.SHADOW, True), TWO: (Variant.CHALLENGER, True)})
    label(engine, "c", {ONE: (Variant.CHAMPION, False)})
    label(engine, "d", {ONE: (Variant.CHAMPION, True)}, BEGAN - timedelta(minutes=1))
    label(engine, "e", {ONE: (Variant.CHAMPION, True)}, BEGAN - LABELS_LOOKBACK - timedelta(minutes=1))
    found = source.collect(span())
    assert found.labelled.by_class == {"7": Agreement(both=1, lost=1)}
    assert (found.champion_labels.labelled, found.challenger_labels.labelled) == (2, 1)
    assert found.past_labels.labelled == 1
    label(engine, "f", {ONE: (Variant.CHAMPION, False), TWO: (Variant.SHADOW, True)})
    assert source.collect(span()).labelled.classes == Agreement(both=1, lost=1, won=1)
