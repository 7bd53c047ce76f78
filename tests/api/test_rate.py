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
