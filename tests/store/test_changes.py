"""Alias changes on record: intent first, outcome once, and changes by hand recorded once."""

import threading
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import Engine

from serving.core.clock import ManualClock
from serving.core.errors import ChangeRefused
from serving.core.model import Alias
from serving.store import audit, changes, outbox
from serving.store.audit import Verdict
from serving.store.changes import ChangeIntent, Outcome
from serving.store.leases import Held, Lease, Leases
from serving.store.outbox import Notice, Severity
from tests.store import children

NOTICE = Notice(kind="out_of_band", severity=Severity.INFO, title="moved by hand", dedup_key="k")


@pytest.fixture
def lease(engine: Engine, clock: ManualClock) -> Lease:
    lease = Leases(engine, clock).acquire("model:digits", "holder")
    assert isinstance(lease, Lease)
    return lease


def intent_under(lease: Lease, to_version: str | None = "2", alias: str = Alias.CHAMPION) -> ChangeIntent:
    return ChangeIntent("digits", alias, "1", to_version, lease.epoch, "tester", "a test")


def observe(engine: Engine, follows_id: int, notice: Notice | None = None) -> bool:
    return changes.record_out_of_band(engine, "digits", Alias.CHAMPION, "1", "5", follows_id, notice)


def test_intend_leaves_an_open_intent_when_not_settled(engine: Engine, lease: Lease) -> None:
    """It is found by model and alias, and does not count as a change yet."""
    change_id = changes.intend(engine, intent_under(lease), lease, now=ManualClock().now())
    [found] = changes.open_intents(engine, "digits", Alias.CHAMPION)
    assert (found.id, found.from_version, found.to_version, found.epoch) == (change_id, "1", "2", 1)
    assert (found.outcome, found.settled_at, found.out_of_band) == (None, None, False)
    assert found.at == ManualClock().now()
    assert changes.open_intents(engine, "digits", "shadow") == changes.open_intents(engine, "other") == []
    assert changes.open_intents(engine) == [found]
    assert changes.latest(engine, "digits", Alias.CHAMPION) is None


def test_intend_is_refused_and_leaves_nothing_when_the_lease_was_taken(engine: Engine, lease: Lease) -> None:
    """Fenced in the transaction that would have recorded it."""
    Leases(engine, ManualClock()).preempt("model:digits", "emergency")
    with pytest.raises(ChangeRefused) as caught:
        changes.intend(engine, intent_under(lease), lease)
    assert caught.value.holder == "emergency"
    assert changes.open_intents(engine) == []
    assert audit.tail(engine) == []


def test_intend_is_refused_when_it_was_planned_under_another_epoch(engine: Engine, lease: Lease) -> None:
    """A plan from before the lease may rest on what is no longer so."""
    with pytest.raises(ChangeRefused, match="planned under epoch 0"):
        changes.intend(engine, replace(intent_under(lease), epoch=0), lease)


@pytest.mark.parametrize("outcome", Outcome)
def test_settle_records_the_first_outcome_when_called_twice(
    engine: Engine, lease: Lease, outcome: Outcome
) -> None:
    """Written once; only an applied change is one that took place."""
    change_id = changes.intend(engine, intent_under(lease), lease)
    assert changes.settle(engine, change_id, outcome, "read back")
    assert not changes.settle(engine, change_id, Outcome.FAILED, "somebody else's view")
    assert changes.open_intents(engine) == []
    found = changes.latest(engine, "digits", Alias.CHAMPION)
    if outcome is Outcome.APPLIED:
        assert found is not None
        assert (found.id, found.outcome, found.evidence) == (change_id, outcome, "read back")
    else:
        assert found is None


def test_settle_reports_false_when_there_is_no_such_intent(engine: Engine) -> None:
    """Nothing to settle, nothing written."""
    assert not changes.settle(engine, 7, Outcome.APPLIED, "")
    assert audit.tail(engine) == []


def test_changes_are_audited_when_intended_and_when_settled(engine: Engine, lease: Lease) -> None:
    """Two rows tell the story."""
    change_id = changes.intend(engine, intent_under(lease, to_version=None), lease)
    changes.settle(engine, change_id, Outcome.APPLIED, "read back")
    intent, outcome = (row.entry for row in audit.tail(engine, model="digits", action="alias"))
    about = {"alias": "champion", "from": "1", "to": None, "epoch": 1, "change_id": change_id}
    assert intent.details == {**about, "step": "intent", "reason": "a test"}
    assert outcome.details == {**about, "step": "outcome", "outcome": "applied", "evidence": "read back"}
    assert (intent.actor, intent.version) == ("tester", None)


def test_latest_goes_by_the_order_of_record_when_there_are_several(engine: Engine, lease: Lease) -> None:
    """Intended changes and changes by hand are one history."""
    first = changes.intend(engine, intent_under(lease), lease)
    changes.settle(engine, first, Outcome.APPLIED, "")
    assert observe(engine, first)
    found = changes.latest(engine, "digits", Alias.CHAMPION)
    assert found is not None
    assert (found.to_version, found.out_of_band, found.epoch) == ("5", True, None)
    assert changes.latest(engine, "digits", Alias.SHADOW) is None


def test_record_out_of_band_is_true_once_when_replicas_observe_the_same(engine: Engine) -> None:
    """The first recorder audits and notifies; the others learn that it is done."""
    results: list[bool] = []
    threads = [threading.Thread(target=lambda: results.append(observe(engine, 0, NOTICE))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [False, False, False, True]
    assert len(outbox.recent(engine)) == 1
    [row] = audit.tail(engine)
    assert (row.entry.action, row.entry.actor, row.entry.version) == ("alias", "registry", "5")
    assert row.entry.details["out_of_band"] is True


def test_record_out_of_band_is_true_again_when_another_change_follows(engine: Engine) -> None:
    """Each is told by the record it follows; a notice is optional."""
    assert observe(engine, 0)
    found = changes.latest(engine, "digits", Alias.CHAMPION)
    assert found is not None
    assert observe(engine, found.id)
    assert outbox.recent(engine) == []


def test_intent_stays_open_when_its_process_is_killed(
    engine: Engine, store_url: str, clock: ManualClock
) -> None:
    """kill -9 between intent and outcome: the next holder finds it and settles it by reading."""
    with children.start("intend", store_url, "digits") as child:
        assert child.stdout is not None
        change_id = int(child.stdout.readline())
        child.kill()
    [found] = changes.open_intents(engine, "digits", Alias.CHAMPION)
    assert (found.id, found.actor, found.epoch) == (change_id, "child", 1)
    leases = Leases(engine, clock)
    assert isinstance(leases.acquire("model:digits", "next"), Held)
    clock.advance(30)
    taken = leases.acquire("model:digits", "next")
    assert isinstance(taken, Lease)
    assert taken.epoch > (found.epoch or 0)
    assert changes.settle(engine, change_id, Outcome.FAILED, "the registry still names 1")
    assert audit.verify(engine).verdict is Verdict.INTACT


@pytest.mark.parametrize(
    ("to_version", "is_ours"),
    [pytest.param("5", True, id="to"), pytest.param("6", False, id="elsewhere")],
)
def test_record_out_of_band_waits_when_an_open_intent_tells_of_the_version(
    engine: Engine, lease: Lease, to_version: str, is_ours: bool
) -> None:
    """A change of our own that was seen before its outcome is no hand's."""
    changes.intend(engine, intent_under(lease, to_version), lease)
    assert observe(engine, 0) is not is_ours


def test_record_out_of_band_waits_when_an_open_intent_leads_away_from_the_version(
    engine: Engine, lease: Lease
) -> None:
    """Recorded after that intent it would look as if somebody had moved the alias back."""
    changes.intend(engine, replace(intent_under(lease, None), from_version="5"), lease)
    assert not observe(engine, 0)


def test_record_out_of_band_is_false_when_the_registry_was_read_before_the_latest_change(
    engine: Engine, lease: Lease
) -> None:
    """What was seen then may be older than that change."""
    change_id = changes.intend(engine, intent_under(lease), lease)
    changes.settle(engine, change_id, Outcome.APPLIED, "read back")
    assert not observe(engine, 0)
    assert observe(engine, change_id)


def test_named_at_is_the_last_version_when_the_alias_was_removed_by_then(engine: Engine) -> None:
    """What answered: a champion whose alias is gone goes on for a while."""
    noon = ManualClock().now()
    changes.record_out_of_band(engine, "digits", Alias.CHAMPION, None, "1", 0, None, now=noon)
    [first] = changes.recent(engine, "digits")
    later = noon + timedelta(seconds=5)
    changes.record_out_of_band(engine, "digits", Alias.CHAMPION, "1", None, first.id, None, now=later)
    assert changes.named_at(engine, "digits", Alias.CHAMPION, later) == first
    assert changes.named_at(engine, "digits", Alias.CHAMPION, noon - timedelta(seconds=1)) is None
