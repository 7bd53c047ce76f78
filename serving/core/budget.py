"""What may be loaded now, and what has to go for it: pure decisions over a byte budget.

Called by the pool with what it holds. Nothing busy or pinned is ever chosen to go, what was loaded just
now stays for a while so that models do not take turns for ever, and bytes being freed still count.
"""

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum

_MEGABYTE = 1 << 20


class Standing(IntEnum):
    """How dear a version is, in the order in which versions go.

    A champion and who stands in for it are equal, so the longest unused of them goes: else the champions
    of busy models would take turns for the little room that idle stand-ins leave.
    """

    PLAIN = 0
    SERVED = 1
    PINNED = 2


class Room(StrEnum):
    FREE = "free"
    EVICT = "evict"
    WAIT = "wait"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Limits:
    """`overflow_bytes` may be used on top of the budget while two versions of a model change places.

    `max_count` of None sets no limit to how many versions are in memory.
    """

    budget_bytes: int
    overflow_bytes: int = 0
    max_count: int | None = None
    min_residency_seconds: float = 3.0


@dataclass(frozen=True, slots=True)
class Holding:
    """One version in memory, or room promised to one. Times are moments of the monotonic clock."""

    key: Hashable
    size_bytes: int
    standing: Standing
    is_busy: bool
    last_used: float
    awake_since: float


@dataclass(frozen=True, slots=True)
class Plan:
    """`evict` in the order to go. `wait_seconds` is when it is worth asking again, None if only a change
    can help. `needed_bytes` of a refusal is the least budget that would do, `needed_count` the least limit
    to how many are in memory; 0 where that limit is not what refuses.
    """

    room: Room
    evict: tuple[Hashable, ...] = ()
    wait_seconds: float | None = None
    needed_bytes: int = 0
    needed_count: int = 0


def plan(
    need_bytes: int,
    holdings: Sequence[Holding],
    freeing_bytes: int,
    limits: Limits,
    now: float,
    *,
    may_overflow: bool = False,
) -> Plan:
    """How to make room for `need_bytes`. The overflow is used only where nothing else does now."""
    within = _plan(need_bytes, holdings, freeing_bytes, limits, limits.budget_bytes, now)
    if within.room in (Room.FREE, Room.EVICT) or not may_overflow:
        return within
    ceiling = limits.budget_bytes + limits.overflow_bytes
    return _plan(need_bytes, holdings, freeing_bytes, limits, ceiling, now)


def megabytes(size_bytes: int) -> int:
    """Rounded up, as a setting that must suffice."""
    return math.ceil(size_bytes / _MEGABYTE)


def _plan(
    need_bytes: int,
    holdings: Sequence[Holding],
    freeing_bytes: int,
    limits: Limits,
    ceiling_bytes: int,
    now: float,
) -> Plan:
    held_bytes = sum(holding.size_bytes for holding in holdings)
    pinned = [holding for holding in holdings if holding.standing is Standing.PINNED]
    pinned_bytes = sum(holding.size_bytes for holding in pinned)
    count = math.inf if limits.max_count is None else limits.max_count
    if pinned_bytes + need_bytes > ceiling_bytes or len(pinned) + 1 > count:
        spare_bytes = ceiling_bytes - limits.budget_bytes
        needed_bytes = max(0, pinned_bytes + need_bytes - spare_bytes)
        needed_count = len(pinned) + 1 if len(pinned) + 1 > count else 0
        return Plan(Room.REFUSE, needed_bytes=needed_bytes, needed_count=needed_count)
    over_bytes = held_bytes + freeing_bytes + need_bytes - ceiling_bytes
    over_count = int(max(0, len(holdings) + 1 - count))
    if over_bytes <= 0 and over_count == 0:
        return Plan(Room.FREE)
    if over_bytes <= freeing_bytes and over_count == 0:
        return Plan(Room.WAIT)
    evict = _least(_may_go(holdings, limits, now), over_bytes - freeing_bytes, over_count)
    if evict is not None:
        return Plan(Room.EVICT, tuple(holding.key for holding in evict))
    return Plan(Room.WAIT, wait_seconds=_until_one_may_go(holdings, limits, now))


def _may_go(holdings: Iterable[Holding], limits: Limits, now: float) -> list[Holding]:
    """What may be evicted now, first what goes first."""
    free = [
        holding
        for holding in holdings
        if not holding.is_busy
        and holding.standing is not Standing.PINNED
        and now - holding.awake_since >= limits.min_residency_seconds
    ]
    return sorted(free, key=lambda holding: (holding.standing, holding.last_used))


def _least(candidates: Sequence[Holding], over_bytes: int, over_count: int) -> list[Holding] | None:
    """The longest unused until it is enough, less those found needless; None if it is never enough."""
    chosen: list[Holding] = []
    for holding in candidates:
        if _is_enough(chosen, over_bytes, over_count):
            break
        chosen.append(holding)
    if not _is_enough(chosen, over_bytes, over_count):
        return None
    for holding in list(reversed(chosen)):
        without = [other for other in chosen if other is not holding]
        if _is_enough(without, over_bytes, over_count):
            chosen = without
    return chosen


def _is_enough(chosen: Sequence[Holding], over_bytes: int, over_count: int) -> bool:
    return sum(holding.size_bytes for holding in chosen) >= over_bytes and len(chosen) >= over_count


def _until_one_may_go(holdings: Iterable[Holding], limits: Limits, now: float) -> float | None:
    """Seconds until the first idle version is old enough; None where all that could go is busy."""
    waits = [
        limits.min_residency_seconds - (now - holding.awake_since)
        for holding in holdings
        if not holding.is_busy and holding.standing is not Standing.PINNED
    ]
    return min((wait for wait in waits if wait > 0), default=None)
