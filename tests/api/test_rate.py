"""Rate limits per key and per address."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from serving.api.rate import RateLimits
from serving.core.clock import ManualClock
from serving.core.errors import RateLimited
from serving.core.keys import Key, Scope

KEY = Key(
    id="1",
    name="ann",
    digest="d",
    scopes=frozenset({Scope.INFER}),
    requests_per_second=1.0,
    created_at=datetime(2026, 3, 1, tzinfo=UTC),
    created_by="bob",
)


def test_check_counts_each_key_on_its_own_when_limited() -> None:
    """Wherever it calls from, and until its second is over."""
    clock = ManualClock()
    limits = RateLimits(clock)
    limits.check(KEY, "here")
    with pytest.raises(RateLimited, match="key 'ann' asks more often") as refusal:
        limits.check(KEY, "there")
    assert refusal.value.retry_after_seconds == pytest.approx(1.0)
    limits.check(replace(KEY, id="2"), "here")
    clock.advance(1.0)
    limits.check(KEY, "here")


def test_check_limits_nobody_when_nobody_set_a_limit() -> None:
    """The default."""
    limits = RateLimits(ManualClock())
    for _ in range(1000):
        limits.check(None, "here")
        limits.check(replace(KEY, requests_per_second=None), "here")


def test_check_counts_each_address_when_anonymous_callers_are_limited() -> None:
    """A caller with a key is not counted with the address's others."""
    limits = RateLimits(ManualClock(), anonymous_per_second=1.0)
    limits.check(None, "here")
    with pytest.raises(RateLimited, match="address here"):
        limits.check(None, "here")
    limits.check(None, "there")
    limits.check(replace(KEY, requests_per_second=None), "here")


def test_check_forgets_the_longest_unseen_when_too_many_addresses_came() -> None:
    """A flood of addresses fills no memory, and those who came last stay counted."""
    limits = RateLimits(ManualClock(), anonymous_per_second=1.0)
    for number in range(10_001):
        limits.check(None, str(number))
    limits.check(None, "0")
    with pytest.raises(RateLimited):
        limits.check(None, "10000")


def admitted_in(one: RateLimits, other: RateLimits, clock: ManualClock, *, seconds: int) -> int:
    """Requests that two workers let in who tell each other once a second, asked far too often."""
    count = 0
    for _ in range(seconds):
        for _ in range(20):
            for limits in (one, other):
                try:
                    limits.check(replace(KEY, requests_per_second=10.0), "here")
                    count += 1
                except RateLimited:
                    continue
            clock.advance(0.05)
        told = one.admitted(), other.admitted()
        one.heard({"other": told[1]})
        other.heard({"one": told[0]})
    return count


def test_limit_is_the_servers_when_several_workers_tell_each_other() -> None:
    """What is let in before they told is paid back: 10 a second, and the bursts of the beginning."""
    clock = ManualClock()
    count = admitted_in(RateLimits(clock), RateLimits(clock), clock, seconds=60)
    assert 600 - 20 <= count <= 600 + 40


def test_what_another_worker_let_in_counts_once_however_often_it_is_told() -> None:
    """Totals are told; the first one heard of a worker is where counting begins."""
    clock = ManualClock()
    limits, key = RateLimits(clock), replace(KEY, requests_per_second=4.0)
    limits.check(key, "here")
    for total in (1000, 1002, 1002, 1002):
        limits.heard({"other": {"key:1": total}})
    limits.check(key, "here")
    with pytest.raises(RateLimited):
        limits.check(key, "here")
    limits.heard({})
    limits.heard({"other": {"key:1": 1010}})
    assert limits.admitted() == {"key:1": 2}
    clock.advance(0.25)
    limits.check(key, "here")


def test_debt_is_bounded_when_another_worker_tells_of_many() -> None:
    """Nobody is shut out for long."""
    clock = ManualClock()
    limits = RateLimits(clock)
    limits.check(KEY, "here")
    for total in (0, 1_000_000):
        limits.heard({"other": {"key:1": total}})
    clock.advance(2.0)
    limits.check(KEY, "here")


def test_workers_are_not_told_of_who_asked_long_ago() -> None:
    """Nor kept busy with it."""
    clock = ManualClock()
    limits = RateLimits(clock)
    limits.check(KEY, "here")
    clock.advance(11.0)
    assert limits.admitted() == {}
