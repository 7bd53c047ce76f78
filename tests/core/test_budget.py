"""Room in the memory budget: what goes, what stays, and when it is better to wait or to refuse."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.core.budget import Holding, Limits, Plan, Room, Standing, megabytes, plan

NOW = 100.0
LIMITS = Limits(budget_bytes=100, overflow_bytes=50, min_residency_seconds=3.0)


def holding(
    key: str,
    size_bytes: int,
    *,
    used: float = 0.0,
    standing: Standing = Standing.PLAIN,
    busy: bool = False,
    awake_since: float = 0.0,
) -> Holding:
    return Holding(key, size_bytes, standing, busy, used, awake_since)


A, B = holding("a", 40, used=1.0), holding("b", 40, used=2.0)


@pytest.mark.parametrize(
    ("need", "held", "freeing", "expected"),
    [
        pytest.param(20, [A, B], 0, Plan(Room.FREE), id="just fits"),
        pytest.param(21, [A, B], 0, Plan(Room.EVICT, ("a",)), id="longest unused goes"),
        pytest.param(60, [A, B], 0, Plan(Room.EVICT, ("a",)), id="one is enough"),
        pytest.param(61, [A, B], 0, Plan(Room.EVICT, ("a", "b")), id="both go"),
        pytest.param(100, [A, B], 0, Plan(Room.EVICT, ("a", "b")), id="all of the budget"),
        pytest.param(101, [], 0, Plan(Room.REFUSE, needed_bytes=101), id="more than the budget"),
        pytest.param(60, [A], 40, Plan(Room.WAIT), id="what is being freed counts, and will do"),
        pytest.param(61, [A], 40, Plan(Room.EVICT, ("a",)), id="what is being freed will not do"),
        pytest.param(20, [A], 40, Plan(Room.FREE), id="fits beside what is being freed"),
        pytest.param(30, [replace(A, is_busy=True), B], 0, Plan(Room.EVICT, ("b",)), id="busy ones stay"),
        pytest.param(
            30, [replace(A, is_busy=True), replace(B, is_busy=True)], 0, Plan(Room.WAIT), id="all are busy"
        ),
        pytest.param(
            30,
            [replace(A, standing=Standing.PINNED), B],
            0,
            Plan(Room.EVICT, ("b",)),
            id="pinned ones stay",
        ),
        pytest.param(
            61,
            [replace(A, standing=Standing.PINNED), B],
            0,
            Plan(Room.REFUSE, needed_bytes=101),
            id="what is pinned leaves too little",
        ),
        pytest.param(
            30,
            [replace(A, standing=Standing.SERVED), B],
            0,
            Plan(Room.EVICT, ("b",)),
            id="served ones go last",
        ),
        pytest.param(
            30,
            [replace(A, awake_since=97.0), replace(B, is_busy=True)],
            0,
            Plan(Room.EVICT, ("a",)),
            id="old enough to go",
        ),
        pytest.param(
            30,
            [replace(A, awake_since=98.0), replace(B, awake_since=97.5)],
            0,
            Plan(Room.WAIT, wait_seconds=0.5),
            id="until the first is old enough",
        ),
        pytest.param(
            30,
            [holding("small", 5, used=1.0), holding("large", 90, used=2.0)],
            0,
            Plan(Room.EVICT, ("large",)),
            id="a needless small one stays",
        ),
    ],
)
def test_plan_makes_room_without_overflow(
    need: int, held: Sequence[Holding], freeing: int, expected: Plan
) -> None:
    """The longest unused go first, and no more of them than needed."""
    assert plan(need, held, freeing, LIMITS, NOW) == expected


@pytest.mark.parametrize(
    ("need", "held", "expected"),
    [
        pytest.param(30, [A, B], Plan(Room.EVICT, ("a",)), id="not while something can go"),
        pytest.param(30, [replace(A, is_busy=True), replace(B, is_busy=True)], Plan(Room.FREE), id="used"),
        pytest.param(150, [], Plan(Room.FREE), id="all of both"),
        pytest.param(151, [], Plan(Room.REFUSE, needed_bytes=101), id="more than both"),
        pytest.param(
            71,
            [replace(A, standing=Standing.PINNED), replace(B, standing=Standing.PINNED)],
            Plan(Room.REFUSE, needed_bytes=101),
            id="pinned and new together",
        ),
    ],
)
def test_plan_uses_the_overflow_when_allowed_and_needed(
    need: int, held: Sequence[Holding], expected: Plan
) -> None:
    """Two versions of a model may be in memory for a moment; a refusal names the budget that would do."""
    assert plan(need, held, 0, LIMITS, NOW, may_overflow=True) == expected


@pytest.mark.parametrize(
    ("count", "expected"),
    [(3, Plan(Room.FREE)), (2, Plan(Room.EVICT, ("a",))), (1, Plan(Room.EVICT, ("a", "b")))],
)
def test_plan_counts_versions_when_their_number_is_limited(count: int, expected: Plan) -> None:
    """However small they are."""
    limits = Limits(budget_bytes=1000, max_count=count)
    assert plan(1, [A, B], 0, limits, NOW) == expected


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (3, Plan(Room.FREE)),
        (2, Plan(Room.REFUSE, needed_bytes=81, needed_count=3)),
    ],
)
def test_plan_names_the_number_when_pinned_ones_fill_it(count: int, expected: Plan) -> None:
    """No budget in bytes would help then."""
    pinned = [replace(each, standing=Standing.PINNED) for each in (A, B)]
    assert plan(1, pinned, 0, Limits(budget_bytes=1000, max_count=count), NOW) == expected


@pytest.mark.parametrize(("size", "expected"), [(0, 0), (1, 1), (1 << 20, 1), ((1 << 20) + 1, 2)])
def test_megabytes_are_rounded_up(size: int, expected: int) -> None:
    """A budget one byte short is no budget."""
    assert megabytes(size) == expected


holdings = st.lists(
    st.builds(
        Holding,
        key=st.uuids(),
        size_bytes=st.integers(0, 60),
        standing=st.sampled_from(Standing),
        is_busy=st.booleans(),
        last_used=st.floats(0, 100),
        awake_since=st.floats(90, 100),
    ),
    max_size=8,
)


@given(st.integers(0, 200), holdings, st.integers(0, 80), st.booleans())
def test_plan_keeps_its_promises_whatever_is_held(
    need: int, held: list[Holding], freeing: int, may_overflow: bool
) -> None:
    """Nothing busy, pinned or young goes; what goes is enough; FREE means that it fits."""
    found = plan(need, held, freeing, LIMITS, NOW, may_overflow=may_overflow)
    gone = [item for item in held if item.key in found.evict]
    for item in gone:
        assert not item.is_busy
        assert item.standing is not Standing.PINNED
        assert NOW - item.awake_since >= LIMITS.min_residency_seconds
    ceiling = LIMITS.budget_bytes + (LIMITS.overflow_bytes if may_overflow else 0)
    held_bytes = sum(item.size_bytes for item in held)
    if found.room is Room.FREE:
        assert held_bytes + freeing + need <= ceiling
    if found.room is Room.EVICT:
        assert gone
        assert held_bytes - sum(item.size_bytes for item in gone) + need <= ceiling
    if found.room is Room.REFUSE:
        pinned = sum(item.size_bytes for item in held if item.standing is Standing.PINNED)
        assert pinned + need > ceiling
