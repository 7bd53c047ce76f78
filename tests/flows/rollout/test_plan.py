"""The plan of a staged rollout: single decisions in a table, then any interleaving against a small model."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import settings as bounds
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from hypothesis.strategies import sampled_from

from flows.rollout import verify
from flows.rollout.facts import Act, Decision, Facts, Named, Subject
from flows.rollout.judge import Judgement, Shift
from flows.rollout.measurement import Verdict
from flows.rollout.outcome import Verdict as End
from flows.rollout.plan import FOLLOW_SECONDS, advance, was_named, was_set
from flows.rollout.policy import Spec, Usual, plan_of
from flows.rollout.status import Hold, Status, Step
from flows.rollout.verify import Applied
from serving.store.rollouts import Asked, Command

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SUBJECT = Subject("r1", "digits", "2", "1")
TAG = "the tag"
GOOD = Judgement(Verdict.SUCCESS, "no metric is worse", ())
BAD = Judgement(Verdict.FAIL, "errors", ())
UNSURE = Judgement(Verdict.INCONCLUSIVE, "few samples", ())
SHIFTED = Judgement(Verdict.SUCCESS, "no metric is worse", (), (Shift.ERRORS,))
FOLLOWED = Applied(verify.Verdict.APPLIED, ("w: follows",))
LATE = Applied(verify.Verdict.WAITING, ("w: sends 0 %",))
NOBODY = Applied(verify.Verdict.NO_WORKERS, ())


def spec(**given: object) -> Spec:
    return plan_of(
        {"stages": "50,100", "stage_seconds": 5, "stage_deadline_seconds": 20, **given}, Usual(), None
    )


def observing(stage: int = 0, *, seconds: float = 0.0, **changed: object) -> Status:
    status = Status(
        step=Step.OBSERVE,
        stage=stage,
        began=NOW - timedelta(seconds=60),
        set_at=NOW - timedelta(seconds=60),
        since=NOW - timedelta(seconds=50),
        window_since=NOW - timedelta(seconds=50),
        looked_at=NOW - timedelta(seconds=1),
        tag=TAG,
        observed_seconds=seconds,
        window_seconds=seconds,
    )
    return replace(status, **changed)  # type: ignore[arg-type]


def facts(judgement: Judgement | None = GOOD, follows: Applied = FOLLOWED, **changed: object) -> Facts:
    seen = Facts(Named("1", "2", TAG), follows, judgement)
    return replace(seen, **changed)  # type: ignore[arg-type]


def decided(status: Status, seen: Facts, **given: object) -> Decision:
    return advance(SUBJECT, spec(**given), status, seen, NOW)


@pytest.mark.parametrize(
    ("status", "seen", "step", "stage"),
    [
        pytest.param(observing(seconds=3.9), facts(), Step.OBSERVE, 0, id="too-short"),
        pytest.param(observing(seconds=4.0), facts(), Step.SET, 1, id="long-enough"),
        pytest.param(observing(seconds=18.9), facts(UNSURE), Step.OBSERVE, 0, id="before-the-deadline"),
        pytest.param(observing(seconds=19.0), facts(UNSURE), Step.HELD, 0, id="at-the-deadline"),
        pytest.param(observing(), facts(BAD), Step.ENDING, 0, id="fails-at-once"),
        pytest.param(observing(seconds=4.0), facts(SHIFTED), Step.HELD, 0, id="both-shifted"),
        pytest.param(observing(1, seconds=3.0), facts(BAD), Step.OBSERVE, 1, id="final-window-not-over"),
        pytest.param(observing(1, seconds=4.0), facts(BAD), Step.OBSERVE, 1, id="final-first-window"),
        pytest.param(
            observing(1, seconds=4.0, failed_windows=1), facts(BAD), Step.ENDING, 1, id="final-second-window"
        ),
        pytest.param(observing(1, seconds=4.0), facts(), Step.PASSED, 1, id="final-passed"),
        pytest.param(observing(seconds=4.0), facts(follows=LATE), Step.OBSERVE, 0, id="not-followed"),
        pytest.param(
            observing(seconds=4.0, looked_at=NOW - timedelta(hours=1)), facts(), Step.OBSERVE, 0, id="outage"
        ),
        pytest.param(observing(seconds=4.0), facts(None), Step.OBSERVE, 0, id="no-evidence-read"),
        pytest.param(
            observing(seconds=9.0), facts(named=Named("1", "2", "another")), Step.HELD, 0, id="tag-changed"
        ),
        pytest.param(observing(), facts(named=Named("3", "2", TAG)), Step.ENDING, 0, id="champion-moved"),
        pytest.param(observing(), facts(named=Named("1", None, TAG)), Step.ENDING, 0, id="alias-deleted"),
        pytest.param(observing(), facts(ejected="6 of 20 failed"), Step.ENDING, 0, id="ejected"),
        pytest.param(
            observing(unobserved_seconds=19.0), facts(UNSURE, NOBODY), Step.HELD, 0, id="nobody-to-observe"
        ),
    ],
)
def test_next_step_follows_from_what_was_seen(status: Status, seen: Facts, step: Step, stage: int) -> None:
    decision = decided(status, seen)
    assert (decision.status.step, decision.status.stage) == (step, stage), decision


@pytest.mark.parametrize(
    ("waited", "step"), [(FOLLOW_SECONDS - 1.1, Step.VERIFY), (FOLLOW_SECONDS - 1, Step.ENDING)]
)
def test_split_that_nobody_follows_is_taken_back(waited: float, step: Step) -> None:
    status = observing(step=Step.VERIFY, since=None, unobserved_seconds=waited)
    decision = decided(status, facts(None, LATE))
    assert decision.status.step is step


def test_terminal_verdict_is_written_once() -> None:
    """Whatever is seen afterwards."""
    ended = decided(observing(), facts(BAD)).status
    again = decided(ended, facts(GOOD, named=Named("3", None, None)))
    assert (again.status, again.act, again.status.end) == (ended, Act.END, End.ROLLED_BACK)


def asked(
    command: Command, identity: str = "c1", *, step: str = "approval", stage: int = 0, at: datetime = NOW
) -> Asked:
    return Asked(identity, command, "bob", at, step, stage, NOW + timedelta(seconds=20))


@pytest.mark.parametrize(
    ("status", "command", "step"),
    [
        (observing(), Command.PAUSE, Step.PAUSED),
        (observing(), Command.ABORT, Step.ENDING),
        (observing(), Command.RESUME, Step.OBSERVE),
        (observing(), Command.APPROVE, Step.OBSERVE),
        (observing(step=Step.HELD, hold=Hold.TRAFFIC), Command.RESUME, Step.SET),
        (observing(step=Step.PAUSED), Command.RESUME, Step.SET),
        (observing(step=Step.PAUSED), Command.ABORT, Step.ENDING),
        (observing(step=Step.APPROVAL), Command.APPROVE, Step.SET),
        (Status(step=Step.APPROVAL), Command.APPROVE, Step.NAME),
    ],
)
def test_command_is_heeded_once(status: Status, command: Command, step: Step) -> None:
    decision = decided(status, facts(UNSURE, asked=asked(command)))
    assert decision.status.step is step
    assert decision.status.heeded == "c1"


@pytest.mark.parametrize(
    ("given", "counts"),
    [
        pytest.param({}, True, id="of this state"),
        pytest.param({"step": "observe"}, False, id="of a step before"),
        pytest.param({"stage": 0}, False, id="of a stage before"),
        pytest.param({"at": NOW + timedelta(seconds=19.9)}, True, id="just in time"),
        pytest.param({"at": NOW + timedelta(seconds=20)}, False, id="too late"),
    ],
)
def test_approval_counts_when_it_is_of_what_waits_and_in_time(given: dict[str, Any], counts: bool) -> None:
    """Whatever it was given on earlier, its evidence was another."""
    waiting = observing(1, step=Step.APPROVAL, rested_at=NOW)
    decision = decided(waiting, facts(UNSURE, asked=asked(Command.APPROVE, **{"stage": 1} | given)))
    assert decision.status.step is (Step.SET if counts else Step.APPROVAL)
    assert decision.status.approved_by == ("bob" if counts else None)


@pytest.mark.parametrize(
    ("step", "named", "end"),
    [
        (Step.APPROVAL, None, End.ROLLED_BACK),
        (Step.APPROVAL, "3", End.SUPERSEDED),
        (Step.NAME, None, End.ROLLED_BACK),
        (Step.APPROVAL, "2", None),
    ],
)
def test_rollout_that_the_alias_asked_for_ends_with_it_before_any_traffic(
    step: Step, named: str | None, end: End | None
) -> None:
    status, seen = Status(step=step, rested_at=NOW), facts(named=Named("1", named, None))
    subject = replace(SUBJECT, was_challenger=True)
    assert advance(subject, spec(), status, seen, NOW).status.end == end
    assert advance(SUBJECT, spec(), status, seen, NOW).status.end is None


def test_status_survives_the_store() -> None:
    for status in (Status(), observing(1, seconds=3.5, hold=Hold.SHIFT, passed=({"percent": 5},))):
        assert Status.from_json(status.as_json()) == status


@dataclass
class World:
    """Registry, serving and a person, as small as they can be."""

    champion: str = "1"
    challenger: str | None = None
    tag: str | None = None
    followed: str | None = None
    verdict: Judgement = GOOD
    ejected: str | None = None
    asked: Asked | None = None
    now: datetime = NOW
    commands: int = 0
    percents: list[int] = field(default_factory=list)


class Interleavings(RuleBasedStateMachine):
    """Hands, crashes and verdicts in any order, with a runner that keeps only what it stored."""

    @initialize()
    def begin(self) -> None:
        self.world = World()
        self.spec = spec()
        self.stored = Status()
        self.ended: str | None = None

    def _facts(self) -> Facts:
        world = self.world
        follows = FOLLOWED if world.followed == world.tag and world.tag else LATE
        judgement = world.verdict if self.stored.since is not None else None
        named = Named(world.champion, world.challenger, world.tag)
        return Facts(named, follows, judgement, world.ejected, world.asked)

    @precondition(lambda self: self.ended is not None)
    @rule()
    def ask_for_another(self) -> None:
        self.begin()

    @precondition(lambda self: self.ended is None)
    @rule(crash=sampled_from(["no", "before", "between"]), seconds=sampled_from([1, 5, 3600]))
    def look(self, crash: str, seconds: int) -> None:
        """One pass of a runner, which may die before it acts or before it notes that it did."""
        world = self.world
        world.now += timedelta(seconds=seconds)
        decision = advance(SUBJECT, self.spec, self.stored, self._facts(), world.now)
        self.stored = Status.from_json(decision.status.as_json())
        if crash == "before":
            return
        if decision.act is Act.NAME and world.challenger in (None, "2"):
            world.challenger = "2"
            self.stored = self.stored if crash == "between" else was_named(self.stored)
        elif decision.act is Act.SET:
            percent = self.spec.percents[self.stored.stage]
            world.tag = f"2 at {percent}"
            world.percents.append(percent)
            self.stored = self.stored if crash == "between" else was_set(self.stored, world.tag, world.now)
        elif decision.act is Act.END:
            world.tag = None
            if crash == "no":
                world.challenger = None if world.challenger == "2" else world.challenger
                self.ended = self.stored.end
        elif decision.act is Act.PASS and crash == "no":
            world.champion, world.tag, world.challenger = "2", None, None
            self.ended = "promoted"

    @precondition(lambda self: self.ended is None)
    @rule()
    def follow(self) -> None:
        self.world.followed = self.world.tag

    @precondition(lambda self: self.ended is None)
    @rule(to=sampled_from([None, "2", "3"]))
    def move_challenger(self, to: str | None) -> None:
        self.world.challenger = to

    @precondition(lambda self: self.ended is None)
    @rule()
    def change_percent(self) -> None:
        self.world.tag = "2 at 7"

    @precondition(lambda self: self.ended is None)
    @rule(verdict=sampled_from([GOOD, BAD, UNSURE, SHIFTED]))
    def judge(self, verdict: Judgement) -> None:
        self.world.verdict = verdict

    @precondition(lambda self: self.ended is None)
    @rule(command=sampled_from(list(Command)))
    def ask(self, command: Command) -> None:
        self.world.commands += 1
        self.world.asked = asked(command, f"c{self.world.commands}")

    @precondition(lambda self: self.ended is None)
    @rule()
    def eject(self) -> None:
        if self.world.challenger == "2" and self.stored.entered:
            self.world.ejected = "6 of 20 failed"

    @invariant()
    def champion_moves_only_after_every_stage(self) -> None:
        if self.world.champion == "2":
            passed = [record["percent"] for record in self.stored.passed]
            assert passed == list(self.spec.percents)

    @invariant()
    def no_stage_is_skipped_or_too_short(self) -> None:
        passed = [record["percent"] for record in self.stored.passed]
        assert passed == list(self.spec.percents[: len(passed)])
        assert all(record["observed_seconds"] >= self.spec.stage_seconds for record in self.stored.passed)
        assert self.world.percents == sorted(self.world.percents)

    @invariant()
    def end_leaves_no_split_and_no_challenger_of_ours(self) -> None:
        if self.ended is not None:
            assert self.world.tag is None
            assert self.world.challenger != "2"

    @invariant()
    def ending_stays_what_it_is(self) -> None:
        if self.stored.step is Step.ENDING:
            assert self.stored.end in (End.ROLLED_BACK, End.SUPERSEDED, End.FAILED, End.REFUSED)


TestInterleavings = Interleavings.TestCase
TestInterleavings.settings = bounds(max_examples=150, stateful_step_count=40, deadline=None)
