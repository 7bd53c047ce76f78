"""Calls in turn: who is called when, when it ends, and whose fault it is when one raises."""

import itertools
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from flows.catalog.facts import Side
from flows.catalog.race import Entrant, Faltered, Pace, race, waiting_seconds
from tests.waiting import until

# As good as no time: these tests ask what is done, not how fast this machine is.
SHORT = Pace(seconds=0.02, most_seconds=5.0, window_seconds=0.005, min_calls=4)


def nothing() -> None:
    pass


def test_both_sides_are_timed_when_they_race() -> None:
    """As many blocks of each, at least the calls asked for, and each block is as long as its waits."""
    heat = race([Entrant(Side.CANDIDATE, nothing), Entrant(Side.CHAMPION, nothing)], SHORT)
    ours, theirs = heat.lanes[Side.CANDIDATE], heat.lanes[Side.CHAMPION]
    assert len(ours.blocks) == len(theirs.blocks) == len(ours.waits)
    assert min(ours.calls, theirs.calls) >= SHORT.min_calls
    assert ours.cpu_ratio > 0
    assert all(0 <= share < 1 for share in ours.waits)
    assert not heat.is_stable
    assert heat.blocks(Side.CANDIDATE) == ours.blocks


def test_each_side_goes_first_as_often_when_they_race() -> None:
    order: list[Side] = []
    sides = (Side.CANDIDATE, Side.CHAMPION)
    several = replace(SHORT, min_calls=400_000)  # blocks of each, also where time is up in the first
    race([Entrant(side, lambda side=side: order.append(side)) for side in sides], several)  # type: ignore[misc]
    # Warm-up aside, blocks of one side stand together, and every second round begins with the other.
    turns = [side for side, _ in itertools.groupby(order)][2:]
    assert turns.count(Side.CANDIDATE) - turns.count(Side.CHAMPION) in (-1, 0, 1)
    assert len(turns) > 2


def test_race_ends_early_when_every_side_is_stable() -> None:
    """Any times are within the widest tolerance: three windows do, and those three count."""
    patient = Pace(seconds=60.0, most_seconds=60.0, window_seconds=0.005, stability_ratio=1000.0)
    heat = race([Entrant(Side.CANDIDATE, nothing)], patient)
    assert heat.is_stable
    lane = heat.lanes[Side.CANDIDATE]
    assert len(lane.windows) == 3
    assert len(heat.blocks(Side.CANDIDATE)) == len(heat.unhindered(Side.CANDIDATE)) == len(lane.blocks)


def test_slow_side_gets_its_calls_when_the_time_is_up() -> None:
    """More time than planned, until there are enough calls to say anything."""
    event = threading.Event()
    pace = Pace(seconds=0.001, most_seconds=60.0, window_seconds=0.001, min_calls=6)
    heat = race([Entrant(Side.CANDIDATE, lambda: event.wait(0.02))], pace)
    assert heat.lanes[Side.CANDIDATE].calls >= 6


def test_race_ends_at_its_limit_when_a_side_is_too_slow() -> None:
    """One call is timed, whatever it takes."""
    event = threading.Event()
    pace = Pace(seconds=0.0, most_seconds=0.0, window_seconds=1.0, min_calls=1000)
    heat = race([Entrant(Side.CANDIDATE, lambda: event.wait(0.02))], pace)
    assert heat.lanes[Side.CANDIDATE].calls == 1


@pytest.mark.parametrize("side", list(Side)[:2])
@pytest.mark.parametrize("good_calls", [0, 30])
def test_side_is_named_when_it_raises(side: Side, good_calls: int) -> None:
    """At its first call as well as in the middle."""
    calls = itertools.count()

    def failing() -> None:
        if next(calls) >= good_calls:
            raise ValueError("out of bounds")

    entrants = [Entrant(each, failing if each is side else nothing) for each in list(Side)[:2]]
    with pytest.raises(Faltered) as faltered:
        race(entrants, Pace(seconds=5.0, most_seconds=5.0, window_seconds=0.1))
    assert faltered.value.side is side
    assert faltered.value.problem == "raised ValueError: out of bounds"


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="the kernel keeps no such statistics")
def test_waiting_is_seen_when_threads_stand_in_line() -> None:
    """More threads than CPUs, all wanting one: some of them have to wait."""
    over = threading.Event()
    before = waiting_seconds()
    import multiprocessing

    processes = [multiprocessing.get_context("spawn").Process(target=_spin, daemon=True) for _ in range(3)]
    for process in processes:
        process.start()
    try:
        until(lambda: waiting_seconds() > before, "this process had to wait for a CPU")
    finally:
        over.set()
        for process in processes:
            process.kill()
            process.join()


def _spin() -> None:
    while True:
        pass
