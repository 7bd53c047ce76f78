"""One open rollout per model, fenced steps, terminal states written once."""

import re
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine

from serving.core.clock import ManualClock
from serving.core.errors import ChangeRefused, NotServed
from serving.store import audit, outbox, rollouts
from serving.store.leases import Lease, Leases
from serving.store.outbox import Notice, Severity
from serving.store.rollouts import Command, Entry, Phase, Request, Rollout, State
from serving.store.text import JsonValue

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def asked(version: str = "2", model: str = "digits") -> Request:
    return Request(model=model, version=version, strategy="direct", requested_by="anna")


def enter(engine: Engine, request: Request, *, asked_at: datetime = NOW, now: datetime = NOW) -> Entry:
    return rollouts.enter(engine, request, asked_at, now)


def held(engine: Engine) -> Lease:
    lease = Leases(engine, ManualClock()).acquire("model:digits", "promote:1")
    assert isinstance(lease, Lease)
    return lease


def notice() -> Notice:
    return Notice(kind="refused", severity=Severity.WARNING, title="refused", dedup_key="r")


def test_enter_opens_a_rollout_when_none_is_open(engine: Engine) -> None:
    """The first request creates the row, in its first phase."""
    entry = enter(engine, asked())
    assert entry.created
    assert (entry.rollout.state, entry.rollout.phase) == (State.OPEN, Phase.REQUESTED)
    assert rollouts.open_rollouts(engine) == [entry.rollout]


@pytest.mark.parametrize("version", ["2", "3"])
def test_enter_joins_the_open_rollout_when_there_is_one(engine: Engine, version: str) -> None:
    """Whatever version is asked for, a model has one open rollout."""
    first = enter(engine, asked())
    second = enter(engine, asked(version))
    assert not second.created
    assert second.rollout == first.rollout


def test_enter_opens_one_rollout_when_eight_ask_at_once(engine: Engine) -> None:
    """The database decides, not the order of arrival."""
    entries: list[Entry] = []
    threads = [threading.Thread(target=lambda: entries.append(enter(engine, asked()))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(entry.created for entry in entries) == 1
    assert len({entry.rollout.id for entry in entries}) == 1


@pytest.mark.parametrize(("asked_after_seconds", "created"), [(-1, False), (0, False), (1, True)])
def test_enter_takes_an_ended_rollout_for_the_answer_when_it_ended_after_the_question(
    engine: Engine, asked_after_seconds: int, created: bool
) -> None:
    """A request that was made before the verdict is answered by it; a later one starts anew."""
    first = enter(engine, asked()).rollout
    rollouts.finish(engine, first, State.REFUSED, "worse", "promote:1", NOW, None)
    later = enter(engine, asked(), asked_at=NOW + timedelta(seconds=asked_after_seconds))
    assert later.created is created
    assert (later.rollout.id == first.id) is not created


def test_enter_opens_another_rollout_when_the_ended_one_was_of_another_version(engine: Engine) -> None:
    """A verdict on version 2 answers nobody who asked for version 3."""
    first = enter(engine, asked("2")).rollout
    rollouts.finish(engine, first, State.PROMOTED, "", "promote:1", NOW, None)
    assert enter(engine, asked("3")).created


def test_advance_notes_phase_and_evidence_when_the_lease_is_held(engine: Engine) -> None:
    """What a later run takes up from."""
    lease, rollout = held(engine), enter(engine, asked()).rollout
    moved = rollouts.advance(
        engine, rollout, Phase.RESTORE_POINT, lease, NOW, restore_point={"champion": "1"}, evidence={"n": 1}
    )
    assert moved == rollouts.get(engine, rollout.id)
    assert (moved.phase, moved.restore_point, moved.evidence) == (
        Phase.RESTORE_POINT,
        {"champion": "1"},
        {"n": 1},
    )


def test_advance_is_refused_when_the_lease_was_taken(engine: Engine) -> None:
    """A run that was taken over changes nothing any more."""
    lease, rollout = held(engine), enter(engine, asked()).rollout
    Leases(engine, ManualClock()).preempt("model:digits", "rollback")
    with pytest.raises(ChangeRefused, match="rollback"):
        rollouts.advance(engine, rollout, Phase.VALIDATED, lease, NOW)
    assert rollouts.get(engine, rollout.id).phase is Phase.REQUESTED


def test_finish_keeps_the_first_verdict_when_called_twice(engine: Engine) -> None:
    """Terminal verdicts are write-once, and so are their notices."""
    rollout = enter(engine, asked()).rollout
    rollouts.finish(engine, rollout, State.REFUSED, "worse", "promote:1", NOW, notice())
    again = rollouts.finish(engine, rollout, State.PROMOTED, "better", "promote:2", NOW, notice())
    assert (again.state, again.reason) == (State.REFUSED, "worse")
    assert len(outbox.recent(engine)) == 1
    assert rollouts.open_rollouts(engine) == []


def test_every_step_is_audited_when_a_rollout_runs(engine: Engine) -> None:
    """The trail tells request, step and end, in that order."""
    lease, rollout = held(engine), enter(engine, asked()).rollout
    rollouts.advance(engine, rollout, Phase.VALIDATED, lease, NOW)
    rollouts.finish(engine, rollout, State.PROMOTED, "", "promote:1", NOW, None)
    steps = [row.entry.details["step"] for row in audit.tail(engine, action="promote")]
    assert steps == ["requested", "validated", "promoted"]


def test_get_says_so_when_the_id_is_unknown(engine: Engine) -> None:
    with pytest.raises(NotServed, match="no rollout nope"):
        rollouts.get(engine, "nope")


def at_the_gate(engine: Engine, step: str = "approval") -> Rollout:
    """An open staged rollout that rests since NOW, to be approved within an hour."""
    staged = replace(asked(), strategy="staged", spec={"stage_deadline_seconds": 3600.0})
    entered = enter(engine, staged).rollout
    status: dict[str, JsonValue] = {"step": step, "stage": 1, "looked_at": NOW.isoformat()}
    status["rested_seconds"] = 3500.0
    return rollouts.note(engine, entered, status, held(engine), NOW)


def test_approval_is_recorded_with_who_when_on_what_and_until_when(engine: Engine) -> None:
    """On the rollout for whoever carries it on, and in the audit trail for good."""
    rollout = at_the_gate(engine)
    approved = rollouts.ask(engine, rollout.id, Command.APPROVE, "bob", NOW + timedelta(seconds=99)).asked
    assert approved is not None
    assert (approved.command, approved.by, approved.at) == (
        Command.APPROVE,
        "bob",
        NOW + timedelta(seconds=99),
    )
    assert (approved.step, approved.stage, approved.until) == ("approval", 1, NOW + timedelta(seconds=100))
    entry = audit.tail(engine, 1)[0].entry
    assert (entry.actor, entry.details["rollout"], entry.details["step"]) == (
        "bob",
        rollout.id,
        "asked to approve",
    )
    assert (entry.details["at"], entry.details["stage"]) == ("approval", 1)
    assert str(entry.details["until"]).startswith("2026-03-01T12:01:40")


@pytest.mark.parametrize(
    ("step", "seconds", "words"),
    [
        ("observe", 1, "waits for no approval: it is at 'observe'"),
        ("approval", 100, "was to be approved within 3600 s"),
    ],
)
def test_approval_is_refused_when_nothing_waits_for_it_or_no_longer(
    engine: Engine, step: str, seconds: float, words: str
) -> None:
    rollout = at_the_gate(engine, step)
    with pytest.raises(ChangeRefused, match=re.escape(words)):
        rollouts.ask(engine, rollout.id, Command.APPROVE, "bob", NOW + timedelta(seconds=seconds))
    assert rollouts.get(engine, rollout.id).asked is None


def test_approval_is_refused_when_no_stage_was_reached(engine: Engine) -> None:
    """It cannot be given in advance: there is no evidence yet."""
    staged = replace(asked(), strategy="staged", spec={"stage_deadline_seconds": 3600.0})
    rollout = enter(engine, staged).rollout
    with pytest.raises(ChangeRefused, match="it is at 'requested'"):
        rollouts.ask(engine, rollout.id, Command.APPROVE, "bob", NOW)


def test_abort_ends_a_staged_rollout_without_a_plan(engine: Engine) -> None:
    """Once, with its audit row and its notice; a plan that comes later changes nothing."""
    rollout = enter(engine, replace(asked(), strategy="staged")).rollout
    ended = rollouts.ask(engine, rollout.id, Command.ABORT, "bob", NOW)
    assert (ended.state, ended.reason) == (State.ROLLED_BACK, "aborted by bob before it began")
    assert rollouts.open_rollouts(engine) == []
    entry = audit.tail(engine, 1)[0].entry
    assert (entry.actor, entry.details["step"]) == ("bob", "rolled_back")
    assert [row.notice.kind for row in outbox.recent(engine)] == ["refused"]
    assert rollouts.specify(engine, rollout, {"stages": [100]}) == ended
    with pytest.raises(ChangeRefused, match="is over: rolled_back, aborted by bob"):
        rollouts.ask(engine, rollout.id, Command.ABORT, "bob", NOW)


@pytest.mark.parametrize("command", [Command.ABORT, Command.PAUSE])
def test_command_is_left_for_whoever_works_on_a_rollout_with_a_plan(engine: Engine, command: Command) -> None:
    rollout = enter(engine, replace(asked(), strategy="staged", spec={"stages": [100]})).rollout
    told = rollouts.ask(engine, rollout.id, command, "bob", NOW)
    assert told.asked is not None
    assert (told.state, told.asked.command) == (State.OPEN, command)


def test_command_to_a_direct_rollout_is_refused(engine: Engine) -> None:
    rollout = enter(engine, asked()).rollout
    with pytest.raises(ChangeRefused, match="is direct: there is nothing to abort"):
        rollouts.ask(engine, rollout.id, Command.ABORT, "bob", NOW)


@pytest.mark.parametrize("is_challenger", [True, False])
def test_rollout_remembers_whether_its_alias_asked_for_it(engine: Engine, is_challenger: bool) -> None:
    rollout = enter(engine, replace(asked(), is_challenger=is_challenger)).rollout
    assert rollout.was_challenger is is_challenger
    assert rollouts.get(engine, rollout.id).was_challenger is is_challenger
