"""What counts as failed and as wrong in the demonstration: both sides of every boundary."""

from typing import Any

import pytest

from flows.cli.demo.records import Record
from flows.cli.demo.verdict import Gap, Period, Share, first_answer, first_stand_in, judge, percentile


def answered(started: float, version: str = "1", **different: Any) -> Record:
    fields: dict[str, Any] = {
        "started": started,
        "ended": started + 0.1,
        "version": version,
        "variant": "champion",
        "matches": True,
        "status": 200,
    }
    return Record(**fields | different)


def unanswered(started: float, ended: float, status: int | None = None) -> Record:
    return Record(started, ended, version=None, variant=None, matches=False, status=status, error="refused")


@pytest.mark.parametrize(
    ("record", "wrong"),
    [
        pytest.param(answered(5.0), False, id="the version that has to answer"),
        pytest.param(answered(5.0, "2"), True, id="another version within the period"),
        pytest.param(answered(2.0, "2"), False, id="started with the first answer of the period"),
        pytest.param(answered(1.9, "2"), False, id="started before the first answer"),
        pytest.param(answered(8.0, "2"), False, id="started when the alias was moved on"),
        pytest.param(answered(5.0, "2", variant="fallback"), False, id="a stand-in that says so"),
        pytest.param(answered(5.0, matches=False), True, id="outputs of another version"),
        pytest.param(answered(9.0, "2", matches=False), True, id="foreign outputs outside of any period"),
        pytest.param(answered(5.0, "2", variant="fallback", matches=False), True, id="a stand-in's lie"),
    ],
)
def test_answer_is_judged_when_version_one_has_to_answer(record: Record, wrong: bool) -> None:
    """Wrong is what is not the named version's own answer, or not the version due by then."""
    tally = judge([record], [Period("1", since=2.0, until=8.0)], [])
    assert bool(tally.wrong) is wrong
    assert tally.is_clean is not wrong


@pytest.mark.parametrize(
    ("record", "wrong"),
    [
        pytest.param(answered(5.0), False, id="the champion"),
        pytest.param(answered(5.0, "5", variant="challenger"), False, id="the version that is tried out"),
        pytest.param(answered(5.0, "4"), True, id="a third version"),
        pytest.param(answered(5.0, "5", matches=False), True, id="foreign outputs"),
    ],
)
def test_two_versions_may_answer_when_one_is_tried_out(record: Record, wrong: bool) -> None:
    """Those two, each with its own outputs."""
    assert bool(judge([record], [Period("1", since=2.0, beside="5")], []).wrong) is wrong


def test_share_counts_answers_of_its_time_when_others_are_there_too() -> None:
    """What was not answered belongs to nobody."""
    records = [
        answered(0.5, "2"),
        answered(1.5, "2"),
        *(answered(1.6, "1") for _ in range(3)),
        unanswered(1.7, 1.8),
        answered(9.0, "2"),
    ]
    share = Share.of(records, "2", since=1.0, until=8.0)
    assert (share, str(share)) == (Share(1, 4), "25.0%")
    assert str(Share.of([], "2", 0.0, 1.0)) == "nothing"


@pytest.mark.parametrize(
    ("own", "answers", "percent", "is_about"),
    [
        pytest.param(50, 1000, 5, True, id="exactly"),
        pytest.param(84, 1000, 5, True, id="within five standard deviations"),
        pytest.param(85, 1000, 5, False, id="beyond them"),
        pytest.param(16, 1000, 5, True, id="as much below"),
        pytest.param(15, 1000, 5, False, id="too few"),
        pytest.param(100, 100, 100, True, id="all of them"),
        pytest.param(99, 100, 100, False, id="all but one"),
        pytest.param(0, 0, 5, False, id="nothing was answered"),
    ],
)
def test_share_is_told_from_a_percent_when_chance_cannot_explain_it(
    own: int, answers: int, percent: int, is_about: bool
) -> None:
    """Of 1000 draws at 5 %, one standard deviation is 6.9."""
    assert Share(own, answers).is_about(percent) is is_about


@pytest.mark.parametrize(
    ("record", "dead"),
    [
        pytest.param(unanswered(5.0, 5.1), True, id="refused in the gap"),
        pytest.param(unanswered(3.9, 4.0), True, id="under way at the kill"),
        pytest.param(unanswered(6.0, 16.0), True, id="begun before it was back"),
        pytest.param(unanswered(5.0, 5.1, status=503), True, id="told not ready"),
        pytest.param(unanswered(5.0, 5.1, status=500), False, id="an error of the server"),
        pytest.param(unanswered(5.0, 5.1, status=404), False, id="a server that denies the model"),
        pytest.param(unanswered(3.8, 3.9), False, id="ended before the kill"),
        pytest.param(unanswered(6.1, 6.2), False, id="begun after it was back"),
    ],
)
def test_failure_is_counted_apart_when_the_only_server_was_dead(record: Record, dead: bool) -> None:
    """Only what had no server to ask is excused."""
    tally = judge([record], [], [Gap(since=4.0, until=6.0)])
    assert bool(tally.failed_while_dead) is dead
    assert bool(tally.failed) is not dead


def test_tally_says_both_counts_when_printed() -> None:
    """The demonstration's last line."""
    records = [answered(1.0), unanswered(2.0, 2.1), answered(3.0, matches=False)]
    assert str(judge(records, [], [])) == "failed 1, wrong version 1"
    assert str(judge(records[:1], [], [])) == "failed 0, wrong version 0"


def test_open_period_holds_when_nothing_ended_it() -> None:
    """After a restart the last version settled on must still answer."""
    assert judge([answered(1e6, "2")], [Period("1", since=2.0)], []).wrong


def test_first_answer_is_its_own_when_stand_ins_and_older_requests_answer_too() -> None:
    """Neither a fallback, a challenger nor a request begun before the write tells of a champion."""
    records = [
        answered(0.9, "2"),
        answered(1.1, "2", variant="fallback"),
        answered(1.15, "2", variant="challenger"),
        answered(1.3, "2", ended=9.0),
        answered(1.4, "2", ended=2.0),
        answered(1.2, "1"),
    ]
    assert first_answer(records, "2", since=1.0) == records[4]
    assert first_answer(records, "3", since=1.0) is None
    assert first_stand_in(records, since=1.0) == records[1]
    assert first_stand_in(records, since=1.2) is None


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        pytest.param([3.0], 50, 3.0, id="one value"),
        pytest.param([4.0, 1.0, 3.0, 2.0], 50, 2.0, id="even number"),
        pytest.param([float(n) for n in range(1, 21)], 95, 19.0, id="nineteen of twenty"),
        pytest.param([float(n) for n in range(1, 20)], 95, 19.0, id="rounded up"),
        pytest.param([1.0, 2.0], 100, 2.0, id="the largest"),
    ],
)
def test_percentile_is_a_measured_value_when_ranked(
    values: list[float], percent: int, expected: float
) -> None:
    """Nearest rank: never a number between two measurements."""
    assert percentile(values, percent) == expected
