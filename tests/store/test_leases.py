"""Leases: one holder at a time, taken over only after a silence, told apart by a growing epoch."""

import threading
from dataclasses import replace

import pytest
from sqlalchemy import Engine, delete

from serving.core.clock import ManualClock, SystemClock
from serving.core.errors import ChangeRefused
from serving.store import schema
from serving.store.database import writing
from serving.store.leases import Held, Lease, Leases, Lost, fence

RESOURCE = "model:digits"


@pytest.fixture
def leases(engine: Engine, clock: ManualClock) -> Leases:
    return Leases(engine, clock)


@pytest.fixture
def others(engine: Engine) -> Leases:
    """Another process: its own clock, which says something else."""
    return Leases(engine, ManualClock(elapsed_seconds=1e6))


def taken(result: Lease | Held) -> Lease:
    assert isinstance(result, Lease)
    return result


def renewed(result: Lease | Lost) -> Lease:
    assert isinstance(result, Lease)
    return result


def test_acquire_takes_the_lease_when_nobody_ever_had_it(leases: Leases, clock: ManualClock) -> None:
    """The first epoch is 1."""
    assert leases.acquire(RESOURCE, "a") == Lease(RESOURCE, "a", 1, 0, clock.monotonic())


def test_acquire_names_the_holder_when_it_is_held(leases: Leases, clock: ManualClock) -> None:
    """A refusal says who, since when, and how long to wait at most."""
    leases.acquire(RESOURCE, "a")
    since = clock.now()
    leases.acquire(RESOURCE, "b")
    clock.advance(10)
    assert leases.acquire(RESOURCE, "b") == Held(RESOURCE, "a", 1, since, 20.0)


def test_acquire_refuses_when_the_same_name_asks_again(leases: Leases) -> None:
    """Two undertakings of one process are two holders."""
    leases.acquire(RESOURCE, "a")
    assert isinstance(leases.acquire(RESOURCE, "a"), Held)


def test_acquire_is_independent_when_the_resource_differs(leases: Leases) -> None:
    """Models do not wait for one another."""
    leases.acquire(RESOURCE, "a")
    assert taken(leases.acquire("model:other", "a")).epoch == 1


def test_acquire_raises_the_epoch_when_the_lease_was_released(leases: Leases) -> None:
    """Release frees at once, and the epoch survives it."""
    leases.release(taken(leases.acquire(RESOURCE, "a")))
    assert taken(leases.acquire(RESOURCE, "b")).epoch == 2


@pytest.mark.parametrize(("silence_seconds", "wins"), [(29.9, False), (30.0, True)])
def test_acquire_takes_over_when_the_holder_was_silent_for_long(
    engine: Engine, leases: Leases, silence_seconds: float, wins: bool
) -> None:
    """30 s of one beat on the contender's own clock, whatever the holder's says."""
    leases.acquire(RESOURCE, "a")
    clock = ManualClock()
    contender = Leases(engine, clock)
    assert isinstance(contender.acquire(RESOURCE, "b"), Held)
    clock.advance(silence_seconds)
    result = contender.acquire(RESOURCE, "b")
    assert isinstance(result, Lease) is wins
    assert result.epoch == (2 if wins else 1)


def test_acquire_needs_a_first_sighting_when_the_contender_just_arrived(
    leases: Leases, clock: ManualClock, others: Leases
) -> None:
    """An old lease is not taken at first sight: its holder may be alive."""
    leases.acquire(RESOURCE, "a")
    clock.advance(3600)
    assert isinstance(others.acquire(RESOURCE, "b"), Held)


def test_acquire_starts_the_wait_again_when_the_holder_renewed(engine: Engine, leases: Leases) -> None:
    """One beat in time keeps the lease."""
    lease = taken(leases.acquire(RESOURCE, "a"))
    clock = ManualClock()
    contender = Leases(engine, clock)
    contender.acquire(RESOURCE, "b")
    clock.advance(29)
    lease = renewed(leases.renew(lease))
    clock.advance(2)
    assert isinstance(contender.acquire(RESOURCE, "b"), Held)
    clock.advance(29)
    assert isinstance(contender.acquire(RESOURCE, "b"), Held)
    clock.advance(1)
    assert isinstance(contender.acquire(RESOURCE, "b"), Lease)
    assert leases.renew(lease) == Lost(RESOURCE, "b", 2)


def test_acquire_ignores_the_wall_clock_when_it_is_corrected(leases: Leases, clock: ManualClock) -> None:
    """Setting the date neither frees nor extends a lease."""
    lease = taken(leases.acquire(RESOURCE, "a"))
    leases.acquire(RESOURCE, "b")
    clock.step_wall(86_400)
    assert isinstance(leases.acquire(RESOURCE, "b"), Held)
    assert leases.seconds_left(lease) == 30.0


def test_acquire_gives_one_lease_when_many_ask_at_once(engine: Engine) -> None:
    """Also when the row does not exist yet."""
    leases, results = Leases(engine, SystemClock()), list[Lease | Held]()
    threads = [
        threading.Thread(target=lambda name=f"t{number}": results.append(leases.acquire(RESOURCE, name)))
        for number in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(isinstance(result, Lease) for result in results) == 1
    assert len(results) == 6


def test_renew_counts_the_beat_when_the_lease_is_current(leases: Leases, clock: ManualClock) -> None:
    """And starts the holder's time again."""
    lease = taken(leases.acquire(RESOURCE, "a"))
    clock.advance(12)
    assert leases.seconds_left(lease) == 18.0
    lease = renewed(leases.renew(lease))
    assert (lease.beat, leases.seconds_left(lease)) == (1, 30.0)


def test_renew_succeeds_when_an_earlier_answer_was_lost(leases: Leases) -> None:
    """A renewal whose reply never came must not cost the lease."""
    lease = taken(leases.acquire(RESOURCE, "a"))
    leases.renew(lease)
    assert renewed(leases.renew(lease)).beat == 2


def test_renew_is_lost_when_the_lease_was_released(leases: Leases) -> None:
    """Nobody has it then."""
    lease = taken(leases.acquire(RESOURCE, "a"))
    leases.release(lease)
    assert leases.renew(lease) == Lost(RESOURCE, None, 1)


def test_renew_is_lost_when_the_store_was_replaced(leases: Leases, engine: Engine) -> None:
    """A restored database knows nothing of this lease."""
    lease = taken(leases.acquire(RESOURCE, "a"))
    with writing(engine) as connection:
        connection.execute(delete(schema.leases))
    assert leases.renew(lease) == Lost(RESOURCE, None, 0)


def test_release_changes_nothing_when_the_lease_is_no_longer_current(leases: Leases) -> None:
    """A late release does not free somebody else's lease."""
    old = taken(leases.acquire(RESOURCE, "a"))
    new = leases.preempt(RESOURCE, "b")
    leases.release(old)
    assert renewed(leases.renew(new)).holder == "b"


@pytest.mark.parametrize("held", [True, False])
def test_preempt_takes_the_lease_when_held_or_free(leases: Leases, held: bool) -> None:
    """An emergency waits for nobody."""
    lease = taken(leases.acquire(RESOURCE, "a"))
    if not held:
        leases.release(lease)
    assert leases.preempt(RESOURCE, "emergency").epoch == 2
    assert leases.renew(lease) == Lost(RESOURCE, "emergency", 2)


def test_preempt_takes_the_lease_when_nobody_ever_had_it(leases: Leases) -> None:
    """The first epoch is 1 here too."""
    assert leases.preempt(RESOURCE, "emergency").epoch == 1


def test_fence_passes_when_the_lease_is_current(leases: Leases, engine: Engine) -> None:
    """Renewed or not: the epoch counts."""
    lease = taken(leases.acquire(RESOURCE, "a"))
    leases.renew(lease)
    with writing(engine) as connection:
        fence(connection, lease)


def test_fence_names_the_holder_when_the_lease_was_taken(leases: Leases, engine: Engine) -> None:
    """The one who lost learns from whom."""
    lease = taken(leases.acquire(RESOURCE, "a"))
    leases.preempt(RESOURCE, "b")
    with pytest.raises(ChangeRefused, match="now held by 'b'") as caught, writing(engine) as connection:
        fence(connection, lease)
    assert caught.value.holder == "b"


def test_fence_refuses_when_nobody_holds_the_lease(leases: Leases, engine: Engine) -> None:
    """Released, or never taken."""
    lease = taken(leases.acquire(RESOURCE, "a"))
    leases.release(lease)
    for gone in (lease, replace(lease, resource="model:none")):
        with pytest.raises(ChangeRefused, match="no longer held") as caught, writing(engine) as connection:
            fence(connection, gone)
        assert caught.value.holder is None
