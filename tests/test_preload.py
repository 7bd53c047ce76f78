"""Preloading: what is woken while memory is spare, and what is left asleep."""

import numpy as np
import pytest

from serving.core.budget import Limits, Standing
from serving.core.clock import ManualClock
from serving.memory import Memory
from serving.pool import LoadedVersion, Loading
from serving.preload import Preloader, Sleeper, choice, smoothed
from tests.story import story
from tests.versions import ScriptedModel, adds, key, loaded

X = {"x": np.zeros((1, 3), np.float32)}
A = Sleeper(key("1"), 10, False, 1.0)
B = Sleeper(key("2"), 10, False, 2.0)
CRITICAL = Sleeper(key("3"), 10, True, 0.0)
UNUSED = Sleeper(key("4"), 10, False, 0.0)


@pytest.mark.parametrize(
    ("sleepers", "spare", "expected"),
    [
        ([], 100, None),
        ([A, B], 10, "2"),
        ([A, B, CRITICAL], 10, "3"),
        ([A, B], 9, None),
        ([UNUSED], 100, None),
        ([Sleeper(key("5"), 11, False, 9.0), A], 10, "1"),
        ([Sleeper(key("6"), 1, False, 0.001)], 10, "6"),
        ([Sleeper(key("6"), 1, False, 0.0009)], 10, None),
    ],
)
def test_choice_wakes_the_critical_then_the_most_asked(
    sleepers: list[Sleeper], spare: int, expected: str | None
) -> None:
    """If it fits, and if it was asked at all lately."""
    assert choice(sleepers, spare) == (key(expected) if expected else None)


def test_smoothed_forgets_half_in_six_minutes() -> None:
    """And comes to a steady rate."""
    assert smoothed(8.0, 0, 360.0) == pytest.approx(4.0)
    rate = 0.0
    for _ in range(1000):
        rate = smoothed(rate, 10, 5.0)
    assert rate == pytest.approx(2.0, rel=1e-3)


@story
async def test_turn_wakes_what_was_asked_when_there_is_room_again() -> None:
    """One at a time, and never by sending another to sleep."""
    clock = ManualClock()
    memory = Memory(Limits(budget_bytes=10, min_residency_seconds=0), clock, lambda _: Standing.PLAIN)

    async def wake(version: LoadedVersion) -> None:
        async with memory.room(10, "a wake"):
            assert version.awaken(ScriptedModel(adds(1.0)))

    preloader = Preloader(memory, lambda _: Standing.PLAIN)
    one = loaded("1", clock=clock, loading=Loading(cost_bytes=10))
    one.woken_by(wake)
    memory.add(one)
    assert await preloader.turn(5.0) is None
    await one.run(X)
    async with memory.room(10, "another"):
        assert [one.is_awake] == [False]
        assert await preloader.turn(5.0) is None
    assert await preloader.turn(5.0) is one
    assert [one.is_awake] == [True]
    assert await preloader.turn(5.0) is None
