"""What becomes of a server's workers: tables over what their parent knows of each."""

from dataclasses import replace

import pytest

from serving.fleet.crew import (
    HUNG_SECONDS,
    START_SECONDS,
    Care,
    Standing,
    care,
    listeners,
    may_replace,
    outdated,
    pause_seconds,
    vacant,
)

NOW = 1000.0
FINE = Standing(
    1, 11, started_at=900.0, heard_at=NOW, ready_at=910.0, unaccounted_bytes=100, settled_bytes=50
)


def worker(slot: int, pid: int, *, ready: bool = True, started_at: float = 900.0) -> Standing:
    return replace(FINE, slot=slot, pid=pid, ready_at=910.0 if ready else None, started_at=started_at)


@pytest.mark.parametrize(
    ("standing", "expected"),
    [
        pytest.param(FINE, Care.NOTHING, id="grown by the allowance"),
        pytest.param(replace(FINE, unaccounted_bytes=101), Care.TRIM, id="grown beyond it"),
        pytest.param(replace(FINE, unaccounted_bytes=101, was_trimmed=True), Care.REPLACE, id="trim in vain"),
        pytest.param(
            replace(FINE, unaccounted_bytes=101, was_trimmed=True, is_leaving=True),
            Care.NOTHING,
            id="on its way out",
        ),
        pytest.param(
            replace(FINE, unaccounted_bytes=999, settled_bytes=None), Care.NOTHING, id="not settled"
        ),
        pytest.param(replace(FINE, heard_at=NOW - HUNG_SECONDS), Care.NOTHING, id="silent, not too long"),
        pytest.param(replace(FINE, heard_at=NOW - HUNG_SECONDS - 1), Care.KILL, id="silent too long"),
        pytest.param(
            replace(FINE, heard_at=NOW - HUNG_SECONDS - 1, is_leaving=True),
            Care.KILL,
            id="hangs while leaving",
        ),
        pytest.param(Standing(1, 11, started_at=NOW - START_SECONDS), Care.NOTHING, id="still starting"),
        pytest.param(Standing(1, 11, started_at=NOW - START_SECONDS - 1), Care.KILL, id="start hangs"),
    ],
)
def test_worker_gets_what_it_needs_when_tabulated(standing: Standing, expected: Care) -> None:
    """Killed only when it hangs, trimmed before it is replaced; an allowance of 50 bytes."""
    assert care(standing, 50, NOW) is expected


@pytest.mark.parametrize(
    ("workers", "expected"),
    [
        pytest.param([worker(1, 11), worker(2, 12)], {11: {1}, 12: {2}}, id="each its own"),
        pytest.param([worker(2, 12)], {12: {1, 2}}, id="one is missing"),
        pytest.param(
            [worker(1, 11, ready=False), worker(2, 12)], {11: set(), 12: {1, 2}}, id="one is not ready yet"
        ),
        pytest.param(
            [worker(1, 11, ready=False), worker(2, 12, ready=False)], {11: {1}, 12: {2}}, id="none is ready"
        ),
        pytest.param(
            [worker(1, 11), worker(1, 21, started_at=950.0), worker(2, 12)],
            {11: set(), 21: {1}, 12: {2}},
            id="replacement is ready",
        ),
        pytest.param(
            [worker(1, 11), worker(1, 21, ready=False, started_at=950.0), worker(2, 12)],
            {11: {1}, 21: set(), 12: {2}},
            id="replacement starts",
        ),
        pytest.param(
            [replace(worker(1, 11), is_leaving=True), worker(2, 12)], {12: {1, 2}}, id="one is leaving"
        ),
        pytest.param([Standing(1, 11, started_at=NOW)], {}, id="one that never said anything"),
        pytest.param([], {}, id="nobody"),
    ],
)
def test_sockets_have_a_worker_when_any_is_there(
    workers: list[Standing], expected: dict[int, set[int]]
) -> None:
    """Every slot's connections are accepted, by its own worker if that is ready."""
    assert {pid: set(slots) for pid, slots in listeners(workers, (1, 2)).items()} == expected


def test_worker_may_leave_only_when_its_replacement_is_ready() -> None:
    """Not while it starts, and never the newer of the two."""
    old, new = worker(1, 11), worker(1, 21, started_at=950.0)
    assert outdated([old, new, worker(2, 12)]) == [old]
    assert outdated([old, replace(new, ready_at=None)]) == []
    assert outdated([replace(old, is_leaving=True), new]) == []


def test_slots_are_filled_when_their_worker_is_gone_or_going() -> None:
    """A leaving one counts as gone."""
    assert vacant([worker(1, 11)], (1, 2)) == [2]
    assert vacant([replace(worker(1, 11), is_leaving=True)], (1,)) == [1]
    assert vacant([worker(1, 11, ready=False)], (1,)) == []


def test_worker_is_replaced_only_when_all_others_are_there() -> None:
    """One at a time, so that the server never takes the memory of two more."""
    assert may_replace([worker(1, 11), worker(2, 12)], (1, 2))
    assert not may_replace([worker(1, 11)], (1, 2))
    assert not may_replace([worker(1, 11), worker(2, 12, ready=False)], (1, 2))
    assert not may_replace([worker(1, 11), worker(1, 21), worker(2, 12)], (1, 2))


@pytest.mark.parametrize(
    ("failures", "expected"), [(0, 0.0), (1, 0.0), (2, 1.0), (3, 2.0), (7, 30.0), (5000, 30.0)]
)
def test_restarts_pause_longer_when_they_fail_in_a_row(failures: int, expected: float) -> None:
    """The first is at once, because somebody waits; a machine that cannot start any is left in peace."""
    assert pause_seconds(failures) == expected
