"""Rows of compared answers: written anew by their worker, added up by readers."""

from datetime import UTC, datetime, timedelta

import numpy as np
from sqlalchemy import Engine

from serving.core.comparison import Example, Pair, Role, Tally, compare
from serving.store import comparisons
from serving.store.comparisons import Minute, minute_of

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
PAIR = Pair("digits", "2", "3", Role.CHALLENGER)


def tally(*differences: float) -> Tally:
    """One pair of answers for each difference."""
    found = Tally()
    for number, difference in enumerate(differences):
        one = np.ones((1, 1), np.float32)
        found.add(compare({"y": one}, {"y": one + np.float32(difference)}), 0.001, 0.002)
        found.keep(Example(f"r-{number}", NOON.isoformat(), "y: differs"))
    return found


def minute(minutes: int = 0, *, pair: Pair = PAIR, worker: str = "a") -> Minute:
    return Minute(pair, NOON + timedelta(minutes=minutes), worker)


def window(engine: Engine, minutes: int = 5) -> dict[Pair, Tally]:
    return comparisons.window(engine, "digits", NOON, NOON + timedelta(minutes=minutes))


def test_window_gives_back_what_was_saved(engine: Engine) -> None:
    comparisons.save(engine, {minute(): tally(0.0, 2.0)})
    assert window(engine) == {PAIR: tally(0.0, 2.0)}


def test_outputs_keep_the_order_in_which_the_champion_declares_them(engine: Engine) -> None:
    """The first one says what an untyped model is."""
    found, one = Tally(), np.ones((1, 1), np.float32)
    found.add(compare({"z": one, "a": one}, {"a": one, "z": one}), 0.001, 0.002)
    comparisons.save(engine, {minute(): found})
    assert list(window(engine)[PAIR].outputs) == ["z", "a"]


def test_row_is_replaced_when_its_worker_saves_it_again(engine: Engine) -> None:
    """A write whose outcome was unknown may be repeated."""
    comparisons.save(engine, {minute(): tally(1.0)})
    for _ in range(2):
        comparisons.save(engine, {minute(): tally(1.0, 2.0, 3.0)})
    assert window(engine)[PAIR].pairs == 3


def test_window_adds_up_minutes_and_workers_and_keeps_pairs_and_directions_apart(engine: Engine) -> None:
    control = Pair("digits", "2", "3", Role.CHALLENGER, is_control=True)
    shadow = Pair("digits", "2", "3", Role.SHADOW)
    comparisons.save(
        engine,
        {
            minute(0): tally(1.0),
            minute(0, worker="b"): tally(1.0, 2.0),
            minute(1): tally(3.0),
            minute(1, pair=control): tally(4.0),
            minute(1, pair=shadow): tally(5.0),
            minute(1, pair=Pair("other", "2", "3", Role.SHADOW)): tally(6.0),
        },
    )
    found = window(engine)
    assert {pair: tally.pairs for pair, tally in found.items()} == {PAIR: 4, control: 1, shadow: 1}
    assert comparisons.both_ways(found, "2", "3", Role.CHALLENGER).pairs == 5
    assert comparisons.both_ways(found, "2", "4", Role.CHALLENGER).pairs == 0


def test_minutes_before_a_moment_are_forgotten(engine: Engine) -> None:
    comparisons.save(engine, {minute(n): tally(1.0) for n in range(3)})
    assert comparisons.forget(engine, NOON + timedelta(minutes=2)) == 2
    assert window(engine)[PAIR].pairs == 1


def test_minute_of_a_moment_is_its_first() -> None:
    assert minute_of(NOON + timedelta(seconds=59.999)) == NOON
    assert minute_of(NOON + timedelta(seconds=60)) == NOON + timedelta(minutes=1)
