"""Labels in the store: each counted once, a later one in the place of an earlier, bounded."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine

from serving.core.clock import ManualClock
from serving.core.labels import Label, LabelValue, Verdict, judge
from serving.core.model import VersionRef
from serving.core.scored import Scored
from serving.store import labels, telemetry
from serving.store.downsampling import Kept, downsample
from serving.store.labels import Joined, Outcome, Twice
from serving.store.leases import Lease, Leases

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
LATER = NOW + timedelta(seconds=1)
REF = VersionRef("digits", "3")


def joined(
    label: LabelValue,
    *,
    request_id: str = "r",
    after: float = 60,
    variant: str = "champion",
    ref: VersionRef = REF,
) -> Joined:
    """A label of an answer that said class 1, which came `after` seconds."""
    verdict = judge(label, {"y": [0.1, 0.9]}, task=None, delay_seconds=after)
    assert isinstance(verdict, Verdict)
    return Joined(
        label=Label(request_id=request_id, row=0, label=label, at=NOW + timedelta(seconds=after)),
        ref=ref,
        variant=variant,
        answered_at=NOW,
        said=verdict.said,
        scored=verdict.scored,
    )


def scored(engine: Engine, variant: str | None = None) -> Scored:
    """Whatever spans hold it by now."""
    return telemetry.window(
        engine, "digits", "3", variant, NOW - timedelta(hours=13), NOW + Kept().hours
    ).scored


def test_label_is_counted_where_its_answer_was_given(engine: Engine) -> None:
    """In the minute of the answer, at its version and variant, with the label's delay."""
    given = [joined(1), joined(0, request_id="s"), joined(1, variant="shadow", ref=VersionRef("digits", "4"))]
    assert labels.count(engine, given) == [Outcome.JOINED] * 3
    found = telemetry.by_variant(engine, "digits", NOW, NOW + timedelta(seconds=1))
    assert found["3", "champion"].scored.accuracy == 0.5
    assert found["4", "shadow"].scored.accuracy == 1.0
    assert found["3", "champion"].scored.delays.quantile(0.5) == pytest.approx(60, rel=0.01)


def test_repeated_label_changes_nothing(engine: Engine) -> None:
    """The joiner may do its last step twice."""
    labels.count(engine, [joined(1)])
    assert labels.count(engine, [joined(1)]) == [Outcome.REPEATED]
    assert labels.count(engine, [joined(0, after=59)]) == [Outcome.REPEATED]
    assert (scored(engine).labelled, scored(engine).right) == (1, 1)


def test_later_label_takes_the_place_of_an_earlier_one(engine: Engine) -> None:
    """Without a trace of the first in the sums, and recorded as a correction."""
    labels.count(engine, [joined(0, after=5)])
    assert labels.count(engine, [joined(1, after=9)]) == [Outcome.REPLACED]
    assert scored(engine) == joined(1, after=9).scored
    [kept] = labels.recent(engine, "digits")
    assert (kept.label.label, kept.said) == (1, "1")


def test_correction_is_right_when_the_first_label_is_part_of_an_hour_by_now(engine: Engine) -> None:
    """What is taken back meets what it was added to, whichever rows they stand in."""
    clock = ManualClock()
    labels.count(engine, [joined(0, after=5), joined(1, request_id="s")])
    lease = Leases(engine, clock).acquire("telemetry", "w1")
    assert isinstance(lease, Lease)
    later = NOW + timedelta(days=3)
    downsample(engine, lease, Kept(), later)
    labels.count(engine, [joined(1, after=9)])
    expected = joined(1, after=9).scored.plus(joined(1).scored)
    assert scored(engine) == expected
    downsample(engine, lease, Kept(), later)
    assert scored(engine) == expected
    assert telemetry.live(engine, "digits", NOW.replace(hour=0), later)["3"].stats.scored == expected


def test_label_that_says_nothing_is_kept_and_spoils_nothing(engine: Engine) -> None:
    """So that a repeated one is known."""
    silent = Joined(
        label=Label(request_id="r", row=0, label="cat", at=NOW), ref=REF, variant="champion", answered_at=NOW
    )
    assert labels.count(engine, [silent]) == [Outcome.UNSCORABLE]
    assert labels.count(engine, [silent]) == [Outcome.REPEATED]
    assert scored(engine).labelled == 0


def test_labels_are_forgotten_with_the_log_and_beyond_a_number(engine: Engine) -> None:
    """Their sums stay."""
    labels.count(engine, [joined(1, request_id=f"r{n}", after=n) for n in range(6)])
    labels.forget(engine, NOW + timedelta(days=7, seconds=1), timedelta(days=7))
    assert len(labels.recent(engine, "digits")) == 5
    labels.forget(engine, NOW, timedelta(days=7), max_labels=2)
    assert [each.label.request_id for each in labels.recent(engine, "digits")] == ["r5", "r4"]
    assert scored(engine).labelled == 6


def test_labels_are_read_by_version_and_time(engine: Engine) -> None:
    """Newest first."""
    given = [joined(1, after=1), joined(1, request_id="s", after=2, ref=VersionRef("digits", "4"))]
    labels.count(engine, given)
    assert [each.ref.version for each in labels.recent(engine, "digits")] == ["4", "3"]
    assert [each.ref.version for each in labels.recent(engine, "digits", "3")] == ["3"]
    since = NOW + timedelta(seconds=2)
    assert [each.ref.version for each in labels.recent(engine, "digits", since=since)] == ["4"]


def test_rows_that_two_versions_answered_are_found_with_both_verdicts(engine: Engine) -> None:
    """Whichever answered the caller; not those of one version, of a third, or from outside the span."""
    other, third = VersionRef("digits", "4"), VersionRef("digits", "5")
    given = [
        joined(1, request_id="a"),
        joined(1, request_id="a", ref=other, variant="shadow"),
        joined(0, request_id="b", variant="shadow"),
        joined(0, request_id="b", ref=other, variant="challenger"),
        joined(1, request_id="c"),
        joined(1, request_id="d"),
        joined(1, request_id="d", ref=third),
    ]
    labels.count(engine, given)

    def found(since: datetime = NOW, until: datetime = LATER, limit: int = 9) -> list[Twice]:
        return labels.twice_answered(engine, "digits", "3", "4", since, until, limit)

    assert [(each.label, each.champion.right, each.other.right) for each in found()] == [(1, 1, 1), (0, 0, 0)]
    assert found(until=NOW) == found(since=LATER) == []
    assert len(found(limit=1)) == 1


def test_state_changes_with_every_label(engine: Engine) -> None:
    """A new one, and a correction; a repeated one is nothing new."""
    seen = [labels.state(engine, "digits")]
    for label in (joined(0, after=5), joined(0, after=5), joined(1, after=9), joined(1, request_id="s")):
        labels.count(engine, [label])
        seen.append(labels.state(engine, "digits"))
    assert seen[1] == seen[2]
    assert len(set(seen)) == 4
