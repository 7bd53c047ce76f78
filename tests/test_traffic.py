"""The checks on recorded traffic find what they are for: a checker that finds nothing proves nothing."""

import math

from tests.traffic import Move, Sample, failed, first_answer_seconds, old_after_new, wrong

MOVES = (Move(1.0, 1.1, "2"), Move(5.0, 5.1, "1"))


def answer(started: float, version: str, seconds: float = 0.1, added: float | None = None) -> Sample:
    value = float(version) if added is None else added
    return Sample(started, started + seconds, 200, version, "champion", value)


def test_old_answer_is_found_when_begun_after_a_new_one() -> None:
    """Only requests begun after the first new answer ended must be new; per move."""
    samples = [
        answer(0.5, "1"),  # before any move
        answer(1.2, "1"),  # the move is not visible yet
        answer(1.25, "1", seconds=3.0),  # begun before the first new answer, ends long after
        answer(1.3, "2"),
        answer(1.5, "1"),  # the offence
        answer(5.2, "2"),
        answer(5.3, "1"),
        answer(5.6, "2"),  # the other one
    ]
    assert [sample.started for sample in old_after_new(samples, MOVES)] == [1.5, 5.6]


def test_first_answer_is_timed_from_before_the_write_when_found() -> None:
    """A move that nobody was answered by never ended."""
    seconds = first_answer_seconds([answer(0.9, "2"), answer(1.5, "2")], MOVES)
    assert [round(each, 3) for each in seconds] == [0.6, math.inf]


def test_wrong_answer_is_found_when_its_version_computes_something_else() -> None:
    """The value must be the one of the version that the answer names, and the version be known."""
    good, mixed, unknown = answer(1, "1"), answer(2, "1", added=2.0), answer(3, "9")
    refused = Sample(4, 4.1, 503, problem="busy")
    assert wrong([good, mixed, unknown, refused], {"1": 1.0, "2": 2.0}) == [mixed, unknown]
    assert failed([good, refused, Sample(5, 5, 0)]) == [refused, Sample(5, 5, 0)]
