"""Taking a lease, keeping it, losing it: who may work on a model's promotion."""

import pytest
from sqlalchemy import Engine

from flows.rollout.keeper import Keeper, holder_of, is_promotion, take
from serving.core.clock import ManualClock
from serving.core.errors import ChangeRefused
from serving.store.leases import Held, Lease, Leases
from tests.waiting import until

RESOURCE = "model:digits"


def leased(leases: Leases, holder: str = "promote:other") -> Lease:
    lease = leases.acquire(RESOURCE, holder)
    assert isinstance(lease, Lease)
    return lease


def never() -> bool:
    return False


def test_take_gives_the_lease_at_once_when_it_is_free(engine: Engine, clock: ManualClock) -> None:
    keeper = take(Leases(engine, clock), RESOURCE, "promote:mine", never, clock.advance)
    assert isinstance(keeper, Keeper)
    assert keeper.lease.holder == "promote:mine"
    assert clock.elapsed_seconds == 0


def test_take_waits_for_the_takeover_when_the_holder_died(engine: Engine, clock: ManualClock) -> None:
    """No new beat for 30 s on our own clock, not one second less."""
    dead = leased(Leases(engine, clock))
    keeper = take(Leases(engine, clock), RESOURCE, "promote:mine", never, clock.advance)
    assert isinstance(keeper, Keeper)
    assert (keeper.lease.holder, keeper.lease.epoch) == ("promote:mine", dead.epoch + 1)
    assert clock.elapsed_seconds == 30


def test_take_names_the_holder_when_it_is_alive(engine: Engine, clock: ManualClock) -> None:
    """A new beat seen within seconds is enough; nobody waits for the take-over time."""
    theirs = Leases(engine, clock)
    lease = leased(theirs)

    def pause(seconds: float) -> None:
        clock.advance(seconds)
        if clock.elapsed_seconds % 5 == 0:
            theirs.renew(lease)

    held = take(Leases(engine, clock), RESOURCE, "promote:mine", never, pause)
    assert isinstance(held, Held)
    assert held.holder == "promote:other"
    assert clock.elapsed_seconds == 5


def test_take_gets_the_lease_when_its_holder_lets_go(engine: Engine, clock: ManualClock) -> None:
    """As after serving's own short writes."""
    theirs = Leases(engine, clock)
    lease = leased(theirs, "serving:here:1")

    def pause(seconds: float) -> None:
        clock.advance(seconds)
        theirs.release(lease)

    keeper = take(Leases(engine, clock), RESOURCE, "promote:mine", never, pause)
    assert isinstance(keeper, Keeper)
    assert clock.elapsed_seconds == 1


def test_take_begins_its_wait_anew_when_the_holder_changed(engine: Engine, clock: ManualClock) -> None:
    """Another holder is not the same one alive: it may be dead just as well."""
    theirs = Leases(engine, clock)
    leased(theirs)

    def pause(seconds: float) -> None:
        clock.advance(seconds)
        if clock.elapsed_seconds == 10:
            theirs.preempt(RESOURCE, "serving:here:1")

    assert isinstance(take(Leases(engine, clock), RESOURCE, "promote:mine", never, pause), Keeper)
    assert clock.elapsed_seconds == 40


def test_take_gives_nothing_when_the_work_is_over(engine: Engine, clock: ManualClock) -> None:
    leased(Leases(engine, clock))
    assert take(Leases(engine, clock), RESOURCE, "promote:mine", lambda: True, clock.advance) is None


def test_keeper_beats_until_its_work_ends_and_frees_the_lease(engine: Engine, clock: ManualClock) -> None:
    """A contender sees beats while the work lasts, and need not wait after it."""
    leases = Leases(engine, clock)
    keeper = Keeper(leases, leased(leases, "promote:mine"), renew_seconds=0.01)
    with keeper.working():
        until(lambda: keeper.lease.beat >= 3, "three beats")
    assert isinstance(leases.acquire(RESOURCE, "promote:other"), Lease)


def test_keeper_raises_naming_the_holder_when_the_lease_was_taken(engine: Engine, clock: ManualClock) -> None:
    """Whoever works asks for the lease before each write, and stops here."""
    leases = Leases(engine, clock)
    keeper = Keeper(leases, leased(leases, "promote:mine"), renew_seconds=0.01)
    with keeper.working():
        taken = leases.preempt(RESOURCE, "serving:here:1")
        with pytest.raises(ChangeRefused, match="went to serving:here:1") as refusal:
            until(lambda: keeper.lease is None, "the loss is noticed")
    assert refusal.value.holder == "serving:here:1"
    assert isinstance(leases.renew(taken), Lease), "the end of the work left the new holder's lease alone"


@pytest.mark.parametrize(
    ("holder", "expected"),
    [(holder_of("run-1"), True), ("serving:here:1", False), ("tend:abc", False), (None, False)],
)
def test_promotions_are_told_from_other_holders(holder: str | None, expected: bool) -> None:
    assert is_promotion(holder) is expected
