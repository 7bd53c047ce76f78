"""Whether a champion is failing: at least 5 answers and 20 % failed, within 10 s."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.watch import AnswerWindow, Evidence, Watch

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("answers", "failed", "failing"),
    [
        (0, 0, False),
        (1, 1, False),
        (4, 4, False),
        (5, 0, False),
        (5, 1, True),
        (5, 5, True),
        (6, 1, False),
        (10, 1, False),
        (10, 2, True),
        (1000, 199, False),
        (1000, 200, True),
        (1005, 200, False),
    ],
)
def test_evidence_is_failing_from_five_answers_and_a_fifth(answers: int, failed: int, failing: bool) -> None:
    """Four of four is too few; 19.9 % is too little; 20 % is enough."""
    assert Evidence(answers, failed).is_failing is failing


def test_window_holds_an_answer_for_ten_seconds() -> None:
    """The second in which it came counts whole."""
    window = AnswerWindow()
    window.add(100.9, failed=True)
    assert window.evidence(100.9) == Evidence(1, 1)
    assert window.evidence(109.999) == Evidence(1, 1)
    assert window.evidence(110.0) == Evidence(0, 0)


def test_window_is_empty_when_nothing_was_answered() -> None:
    """No answers are no evidence."""
    assert AnswerWindow().evidence(5.0) == Evidence(0, 0)


def test_window_fails_within_ten_seconds_when_all_of_ten_per_second_fail() -> None:
    """The fifth failed answer decides."""
    window, moments = AnswerWindow(), [0.1 * n for n in range(1, 11)]
    verdicts = []
    for moment in moments:
        window.add(moment, failed=True)
        verdicts.append(window.evidence(moment).is_failing)
    assert verdicts.index(True) == 4


@given(
    st.lists(
        st.tuples(st.floats(min_value=0, max_value=3, allow_nan=False), st.booleans()),
        min_size=1,
        max_size=80,
    )
)
def test_window_agrees_with_a_plain_list_of_answers(steps: list[tuple[float, bool]]) -> None:
    """Buckets forget exactly the answers of seconds that began 10 s ago or more."""
    window, moment, answers = AnswerWindow(), 0.0, []
    for wait, failed in steps:
        moment += wait
        window.add(moment, failed=failed)
        answers.append((int(moment), failed))
        recent = [failed for second, failed in answers if second > int(moment) - 10]
        assert window.evidence(moment) == Evidence(len(recent), sum(recent))


@pytest.mark.parametrize(
    ("version", "after", "covered"),
    [
        pytest.param("2", 0, True, id="begins"),
        pytest.param("2", 299.999, True, id="last-moment"),
        pytest.param("2", 300, False, id="over"),
        pytest.param("3", 0, False, id="another-version"),
    ],
)
def test_watch_covers_its_version_until_its_end(version: str, after: float, covered: bool) -> None:
    """A newer champion is another watch."""
    watch = Watch("2", "1", by_hand=True, until=NOW + timedelta(seconds=300))
    assert watch.covers(version, NOW + timedelta(seconds=after)) is covered
