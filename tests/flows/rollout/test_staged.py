"""A staged rollout on a real store and a registry double: every end it can come to, and what it leaves."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from flows.rollout.evidence import Evidence
from flows.rollout.outcome import Outcome, Verdict
from flows.rollout.paired import Agreement, Labelled
from flows.rollout.policy import Usual
from flows.rollout.promotion import record
from serving.core.model import Alias, Tag, VersionRef
from serving.core.scored import Scored
from serving.core.traffic import Split, read_tag, write_tag
from serving.store import audit, changes, outbox, overrides, rollouts
from serving.store.changes import ChangeIntent
from serving.store.overrides import Override
from serving.store.rollouts import Command, Entry, Rollout, State
from tests.flows.rollout.line import MODEL, Line
from tests.flows.rollout.registrar import Registrar
from tests.flows.rollout.witness import Witness, equal, pairs, stats
from tests.mlflow_double import Fault

SECONDS = 5.0
STAGES = (5, 25, 50, 100)


@pytest.fixture
def witness(line: Line) -> Witness:
    line.evidence = witness = Witness()
    return witness


def enter(line: Line, policy_file: Path | None = None, **policy: object) -> Rollout:
    asked = replace(line.ask("2"), usual=Usual(policy_file=policy_file))
    asked = replace(asked, strategy="staged", policy={"stage_seconds": SECONDS, **policy})  # type: ignore[dict-item]
    entry = record(line.engine, line.registry, asked, line.clock)
    assert isinstance(entry, Entry), entry
    return entry.rollout


def staged(line: Line, policy_file: Path | None = None, **policy: object) -> Outcome:
    return line.carry_on(enter(line, policy_file, **policy))


def tag_of(registrar: Registrar) -> Split | None:
    tag = read_tag(registrar.models[MODEL].tags.get(Tag.TRAFFIC))
    assert tag is None or isinstance(tag, Split)
    return tag


def assert_clean(line: Line, registrar: Registrar, champion: str) -> None:
    """No split, no challenger, one end."""
    assert tag_of(registrar) is None
    assert (registrar.named(MODEL), registrar.named(MODEL, "challenger")) == (champion, None)
    line.assert_intact()


def test_good_version_is_promoted_through_every_stage(
    line: Line, registrar: Registrar, witness: Witness
) -> None:
    """5, 25, 50 and 100 % are each set, followed and observed before the alias moves."""
    line.registry.set_version_tag(VersionRef(MODEL, "1"), Tag.TRAFFIC_PERCENT, "100")
    outcome = staged(line)
    assert (outcome.verdict, outcome.reason, outcome.warnings) == (
        Verdict.PROMOTED,
        "in the place of version 1",
        (),
    )
    assert_clean(line, registrar, "2")
    status = (outcome.rollout.status if outcome.rollout else None) or {}
    assert [record["percent"] for record in status["passed"]] == list(STAGES)
    assert all(record["observed_seconds"] >= SECONDS for record in status["passed"])
    assert all(record["verdict"] == "success" for record in status["passed"])
    assert registrar.tags("2")[Tag.TRAFFIC_PERCENT] == "100"
    assert registrar.tags("2")[Tag.STAGE] == "4 of 4"
    assert registrar.tags("1")[Tag.TRAFFIC_PERCENT] == "0"
    assert registrar.tags("2")[Tag.VERDICT] == "promoted: in the place of version 1"


def failing(requests: int, percent: int, at: int) -> Evidence:
    bad = stats(requests, faults=requests // 4) if percent >= at else stats(requests)
    return Evidence(champion=stats(requests), challenger=bad, pairs=pairs(requests), is_final=percent == 100)


@pytest.mark.fault("F13")
@pytest.mark.parametrize("at", STAGES)
def test_version_is_rolled_back_when_it_raises_errors(
    line: Line, registrar: Registrar, witness: Witness, at: int
) -> None:
    """At whatever stage: traffic off first, then the verdict, then the alias."""
    witness.says = lambda span, requests: failing(requests, (tag_of(registrar) or Split("2", 0)).percent, at)
    outcome = staged(line)
    assert outcome.verdict is Verdict.ROLLED_BACK
    assert outcome.reason.startswith(f"at {at} %: error rate: champion 0 of ")
    assert_clean(line, registrar, "1")
    assert line.notices()[-1] == ("rolled_back", "2")
    assert registrar.tags("2")[Tag.TRAFFIC_PERCENT] == "0"


def slow(requests: int) -> Evidence:
    return Evidence(champion=stats(requests), challenger=stats(requests, ms=40), pairs=pairs(requests))


def disagreeing(requests: int) -> Evidence:
    return replace(equal(requests), pairs=pairs(requests, differing_ratio=0.5))


def mistaken(requests: int) -> Evidence:
    right, wrong = Scored(classified=400, right=380), Scored(classified=400, right=300)
    return replace(equal(requests), champion_labels=right, challenger_labels=wrong)


def mistaken_by_row(requests: int) -> Evidence:
    lost = Agreement(both=70, lost=12, won=1)
    return replace(equal(requests), labelled=Labelled(lost, by_class={"7": lost}))


@pytest.mark.fault("F13")
@pytest.mark.parametrize(
    ("says", "metric"),
    [
        pytest.param(slow, "latency", id="slow"),
        pytest.param(disagreeing, "predictions", id="shifted"),
        pytest.param(mistaken, "labels", id="worse-labels"),
        pytest.param(mistaken_by_row, "labels", id="worse-labels-by-row"),
    ],
)
def test_version_is_rolled_back_when_it_is_worse(
    line: Line, registrar: Registrar, witness: Witness, says: Callable[[int], Evidence], metric: str
) -> None:
    witness.says = lambda span, requests: says(requests)
    outcome = staged(line)
    assert outcome.verdict is Verdict.ROLLED_BACK
    assert outcome.reason.startswith(f"at 5 %: {metric}: ")
    assert_clean(line, registrar, "1")


@pytest.mark.fault("F14")
def test_rollout_is_held_when_no_traffic_comes(line: Line, registrar: Registrar, witness: Witness) -> None:
    """Held at its percent and told once; late evidence carries it on without anybody's help."""
    witness.says = lambda span, requests: Evidence()
    outcome = staged(line, stage_deadline_seconds=20)
    assert outcome.verdict is Verdict.HELD
    assert "no verdict after 2" in outcome.reason
    split = tag_of(registrar)
    assert split is not None
    assert (split.percent, split.challenger) == (5, "2")
    assert registrar.named(MODEL, "challenger") == "2"
    again = line.carry_on(line.rollouts()[0])
    assert again.verdict is Verdict.HELD
    assert [kind for kind, _ in line.notices()] == ["rollout_held"]
    witness.says = lambda span, requests: equal(requests, is_final=span.is_final)
    assert line.carry_on(line.rollouts()[0]).verdict is Verdict.PROMOTED
    assert_clean(line, registrar, "2")


@pytest.mark.fault("F14")
def test_rollout_is_held_when_required_labels_do_not_come(
    line: Line, registrar: Registrar, witness: Witness, labels_required: Path
) -> None:
    """However well all else looks; with the labels it goes on."""
    outcome = staged(line, labels_required, stage_deadline_seconds=20)
    assert outcome.verdict is Verdict.HELD
    assert "labels: 0 labels of one side, 30 are needed" in outcome.reason
    assert line.notices() == [("rollout_held", "2")]
    assert registrar.named(MODEL) == "1"
    right = Scored(classified=29, right=28)
    witness.says = lambda span, requests: labelled(requests, right, is_final=span.is_final)
    assert line.carry_on(line.rollouts()[0]).verdict is Verdict.HELD
    enough = Scored(classified=30, right=29)
    witness.says = lambda span, requests: labelled(requests, enough, is_final=span.is_final)
    assert line.carry_on(line.rollouts()[0]).verdict is Verdict.PROMOTED


def labelled(requests: int, scored: Scored, *, is_final: bool) -> Evidence:
    evidence = equal(requests, is_final=is_final)
    return replace(evidence, champion_labels=scored, challenger_labels=scored)


@pytest.fixture
def labels_required(tmp_path: Path) -> Path:
    policy = tmp_path / "policy.toml"
    policy.write_text('[default]\nrequired = ["error_rate", "latency", "predictions", "labels"]\n')
    return policy


@pytest.mark.fault("F14")
def test_rollout_is_not_held_for_labels_that_are_not_required(
    line: Line, registrar: Registrar, witness: Witness
) -> None:
    outcome = staged(line)
    status = (outcome.rollout.status if outcome.rollout else None) or {}
    verdicts = {each["name"]: each["verdict"] for stage in status["passed"] for each in stage["metrics"]}
    assert (outcome.verdict, verdicts["labels"]) == (Verdict.PROMOTED, "not_measured")


def test_held_rollout_is_rolled_back_when_late_evidence_is_bad(
    line: Line, registrar: Registrar, witness: Witness
) -> None:
    witness.says = lambda span, requests: Evidence()
    assert staged(line, stage_deadline_seconds=20).verdict is Verdict.HELD
    witness.says = lambda span, requests: failing(requests, 5, 5)
    assert line.carry_on(line.rollouts()[0]).verdict is Verdict.ROLLED_BACK
    assert_clean(line, registrar, "1")


def test_rollout_is_held_when_both_versions_fail_alike(
    line: Line, registrar: Registrar, witness: Witness
) -> None:
    """The world changed, not the version: a data alert, and no rollback."""
    witness.says = lambda span, requests: Evidence(
        champion=stats(requests, faults=requests // 4),
        challenger=stats(requests, faults=requests // 4),
        baseline=stats(2000),
        pairs=pairs(requests),
    )
    outcome = staged(line)
    assert outcome.verdict is Verdict.HELD
    assert "errors of both versions are off the champion's past alike" in outcome.reason
    [row] = outbox.recent(line.engine, 10)
    assert row.notice.kind == "data_shifted"
    assert row.notice.title == "The data of digits has shifted: the rollout of version 2 is held at 5 %"
    assert registrar.named(MODEL) == "1"


@pytest.mark.fault("F9")
@pytest.mark.parametrize(
    ("alias", "to", "verdict", "reason"),
    [
        pytest.param("champion", "3", Verdict.SUPERSEDED, "alias champion was moved to 3", id="champion"),
        pytest.param("champion", "2", Verdict.SUPERSEDED, "moved to it by hand", id="promoted-by-hand"),
        pytest.param(
            "challenger", "3", Verdict.SUPERSEDED, "alias challenger was moved to 3", id="challenger"
        ),
        pytest.param("challenger", None, Verdict.ROLLED_BACK, "was deleted, which aborts", id="deleted"),
    ],
)
def test_rollout_ends_when_an_alias_is_moved_by_hand(
    line: Line,
    registrar: Registrar,
    witness: Witness,
    alias: str,
    to: str | None,
    verdict: Verdict,
    reason: str,
) -> None:
    """The hand's choice stands, and no split is left behind."""
    line.at["25 % observe"] = lambda: registrar.point(MODEL, to, alias)
    outcome = staged(line)
    assert outcome.verdict is verdict
    assert reason in outcome.reason
    assert tag_of(registrar) is None
    left = {"champion": "1", "challenger": None} | {alias: to}
    assert {name: registrar.named(MODEL, name) for name in left} == left


@pytest.mark.fault("F9")
def test_rollout_goes_on_when_a_dead_one_writes_late(
    line: Line, registrar: Registrar, witness: Witness
) -> None:
    """Nobody chose that version: the champion is written back, and the stage counts on."""
    lease = line.leases.preempt(f"model:{MODEL}", "dead")
    intent = ChangeIntent(MODEL, "champion", "1", "3", lease.epoch, "anna", "rollout of 3")
    change_id = changes.intend(line.engine, intent, lease)
    line.leases.release(lease)

    def arrive() -> None:
        changes.settle(line.engine, change_id, changes.Outcome.ABANDONED, "found open", now=line.clock.now())
        registrar.point(MODEL, "3")

    line.at["25 % observe"] = arrive
    assert staged(line).verdict is Verdict.PROMOTED
    assert registrar.named(MODEL) == "2"
    assert [move for move in line.moves() if "3" in move] == [("1", "3", "superseded"), ("3", "1", "applied")]


@pytest.mark.parametrize("step", ["verify", "observe"])
def test_rollout_ends_when_serving_ejects_the_challenger(
    line: Line, registrar: Registrar, witness: Witness, step: str
) -> None:
    """Seen in the override, also after serving told the registry."""

    def eject() -> None:
        laid = ejection(line)
        overrides.save(line.engine, laid)
        registrar.point(MODEL, None, "challenger")
        overrides.end(line.engine, laid, "the registry names nothing", now=line.clock.now())

    line.at[f"5 % {step}"] = eject
    outcome = staged(line)
    assert (outcome.verdict, outcome.reason) == (Verdict.ROLLED_BACK, "serving ejected it: 6 of 20 failed")
    assert registrar.tags("2")[Tag.STAGE] == "1 of 4"
    assert_clean(line, registrar, "1")


@pytest.mark.parametrize("step", ["5 % set", "25 % observe", "100 % observe", "stages passed"])
def test_ejection_ends_a_rollout_wherever_it_is(
    line: Line, registrar: Registrar, witness: Witness, step: str
) -> None:
    """Also after the last stage, while the alias is still to be moved."""
    line.at[step] = lambda: overrides.save(line.engine, ejection(line))
    outcome = staged(line)
    assert (outcome.verdict, outcome.reason) == (Verdict.ROLLED_BACK, "serving ejected it: 6 of 20 failed")
    assert_clean(line, registrar, "1")
    assert line.notices()[-1] == ("rolled_back", "2")


@pytest.mark.parametrize("strategy", ["staged", "direct"])
def test_earlier_ejection_is_lifted_when_its_version_is_promoted_on_purpose(
    line: Line, registrar: Registrar, witness: Witness, strategy: str
) -> None:
    """Once, before the challenger gets traffic, and on record."""
    overrides.save(line.engine, ejection(line))
    line.clock.advance(60)
    outcome = staged(line) if strategy == "staged" else line.promote("2")
    assert outcome.verdict is Verdict.PROMOTED
    assert overrides.active(line.engine) == []
    steps = [row.entry.details for row in audit.tail(line.engine, action="override")]
    assert [step["step"] for step in steps] == ["laid", "ended"]
    assert steps[-1]["reason"] == "promoted again by anna"
    assert_clean(line, registrar, "2")


def test_ejection_of_another_version_stands(line: Line, registrar: Registrar, witness: Witness) -> None:
    overrides.save(line.engine, replace(ejection(line), not_version="3"))
    assert staged(line).verdict is Verdict.PROMOTED
    assert [each.not_version for each in overrides.active(line.engine)] == ["3"]


def ejection(line: Line) -> Override:
    reason, at = "6 of 20 failed", line.clock.now()
    return Override("e1", MODEL, Alias.CHALLENGER, "2", None, "serving:ejection", reason, at)


def test_rollout_is_held_when_the_tag_is_changed_by_hand(
    line: Line, registrar: Registrar, witness: Witness
) -> None:
    """Nobody's hand is fought; `resume` sets the split again."""

    def change() -> None:
        registrar.models[MODEL].tags[Tag.TRAFFIC] = '{"challenger": "2", "percent": 0, "rollout": null}'

    line.at["5 % observe"] = change
    outcome = staged(line)
    assert outcome.verdict is Verdict.HELD
    assert "the traffic tag was changed by hand" in outcome.reason
    [rollout] = line.rollouts()
    rollouts.ask(line.engine, rollout.id, Command.RESUME, "bob", line.clock.now())
    assert line.carry_on(rollout).verdict is Verdict.PROMOTED


def test_commands_are_heeded_when_a_person_gives_them(
    line: Line, registrar: Registrar, witness: Witness
) -> None:
    """Paused where it is, resumed from there, aborted for good."""

    def ask(command: Command) -> None:
        rollouts.ask(line.engine, line.rollouts()[0].id, command, "bob", line.clock.now())

    line.at["25 % observe"] = lambda: ask(Command.PAUSE)
    outcome = staged(line)
    assert (outcome.verdict, outcome.reason) == (Verdict.HELD, "paused by bob")
    ask(Command.RESUME)
    line.at["50 % observe"] = lambda: ask(Command.ABORT)
    outcome = line.carry_on(line.rollouts()[0])
    assert (outcome.verdict, outcome.reason) == (Verdict.ROLLED_BACK, "aborted by bob")
    assert_clean(line, registrar, "1")


def test_rollout_waits_for_approval_when_a_gate_is_set(
    line: Line, registrar: Registrar, witness: Witness
) -> None:
    outcome = staged(line, approve_before=100)
    assert (outcome.verdict, outcome.reason) == (
        Verdict.HELD,
        "approval is wanted before 100 %, until 2026-01-01T00:15:21+00:00",
    )
    split = tag_of(registrar)
    assert split is not None
    assert split.percent == 50
    rollouts.ask(line.engine, line.rollouts()[0].id, Command.APPROVE, "bob", line.clock.now())
    outcome = line.carry_on(line.rollouts()[0])
    assert outcome.verdict is Verdict.PROMOTED
    assert ((outcome.rollout.status if outcome.rollout else None) or {})["approved_by"] == "bob"


def test_rollout_is_refused_when_nobody_approves(line: Line, registrar: Registrar, witness: Witness) -> None:
    assert staged(line, approve_before=1, stage_deadline_seconds=60).verdict is Verdict.HELD
    assert registrar.named(MODEL, "challenger") is None
    line.clock.advance(61)
    outcome = line.carry_on(line.rollouts()[0])
    assert outcome.verdict is Verdict.REFUSED
    assert "nobody approved it within 60 s" in outcome.reason


def test_rollout_is_rolled_back_when_a_worker_refuses_the_challenger(
    line: Line, registrar: Registrar, witness: Witness
) -> None:
    line.refuses_challenger = {"2": "self-test failed"}
    outcome = staged(line)
    assert outcome.verdict is Verdict.ROLLED_BACK
    assert "refused version 2: self-test failed" in outcome.reason
    assert_clean(line, registrar, "1")


def test_rollout_goes_on_when_the_registry_was_away_within_a_stage(
    line: Line, registrar: Registrar, witness: Witness
) -> None:
    """The outage is no observation: the stage takes as much longer."""
    away = 30
    lasted: list[float] = []

    def fail() -> None:
        registrar.fault = Fault(500)
        lasted.append(line.clock.elapsed_seconds)

    def recover() -> None:
        if lasted and line.clock.elapsed_seconds - lasted[0] >= away:
            registrar.fault = None

    line.at["5 % observe"] = fail
    line.meanwhile = recover
    outcome = staged(line)
    assert outcome.verdict is Verdict.PROMOTED
    status = (outcome.rollout.status if outcome.rollout else None) or {}
    assert status["passed"][0]["observed_seconds"] < away


@pytest.mark.fault("F9")
@pytest.mark.parametrize("rollout", ["dead", None])
def test_split_of_a_dead_rollout_is_put_right_and_that_of_a_hand_is_kept(
    line: Line, registrar: Registrar, witness: Witness, rollout: str | None
) -> None:
    """A tag written for another rollout can only be late: one rollout of a model is open at a time."""
    late = write_tag(Split("2", 75, rollout))
    line.at["25 % observe"] = lambda: registrar.models[MODEL].tags.update({Tag.TRAFFIC: late})
    outcome = staged(line)
    if rollout is None:
        assert outcome.verdict is Verdict.HELD
        assert tag_of(registrar) == Split("2", 75)
        return
    assert outcome.verdict is Verdict.PROMOTED
    assert line.said.count(f"rollout {line.rollouts()[0].id[:8]}: 25 % set") == 2
    assert_clean(line, registrar, "2")


@pytest.mark.fault("F15")
@pytest.mark.parametrize("step_seconds", [-3600.0, 3600.0])
def test_nobody_is_timed_out_of_an_approval_when_the_clock_is_stepped(
    line: Line, registrar: Registrar, witness: Witness, step_seconds: float
) -> None:
    """An hour at once is no hour in which somebody could have approved it."""
    assert staged(line, approve_before=100).verdict is Verdict.HELD
    line.clock.step_wall(step_seconds)
    for _ in range(2):
        outcome = line.carry_on(line.rollouts()[0])
        assert outcome.verdict is Verdict.HELD
        assert outcome.reason.startswith("approval is wanted before 100 %, until ")
    rollouts.ask(line.engine, line.rollouts()[0].id, Command.APPROVE, "bob", line.clock.now())
    assert line.carry_on(line.rollouts()[0]).verdict is Verdict.PROMOTED


@pytest.mark.fault("F15")
@pytest.mark.parametrize("step_seconds", [-3600.0, 3600.0])
def test_bad_version_is_rolled_back_also_when_the_clock_is_stepped(
    line: Line, registrar: Registrar, witness: Witness, step_seconds: float
) -> None:
    """And an ejection counts, though it seems to be older than the rollout."""
    line.at["25 % observe"] = lambda: line.clock.step_wall(step_seconds)
    line.at["50 % observe"] = lambda: overrides.save(line.engine, ejection(line))
    outcome = staged(line)
    assert (outcome.verdict, outcome.reason) == (Verdict.ROLLED_BACK, "serving ejected it: 6 of 20 failed")
    assert_clean(line, registrar, "1")


@pytest.mark.fault("F15")
@pytest.mark.parametrize("step_seconds", [-3600.0, 3600.0])
@pytest.mark.parametrize("step", ["5 % set", "5 % verify", "5 % observe", "100 % observe"])
def test_stage_has_no_false_verdict_wherever_the_clock_is_stepped(
    line: Line, registrar: Registrar, witness: Witness, step_seconds: float, step: str
) -> None:
    """Neither by the deadline nor by what the workers' reports seem to be older than."""
    line.at[step] = lambda: line.clock.step_wall(step_seconds)
    outcome = staged(line, stage_deadline_seconds=30)
    assert outcome.verdict is Verdict.PROMOTED, outcome
    assert line.notices() == [("promoted", "2")]
    assert_clean(line, registrar, "2")


@pytest.mark.fault("F15")
@pytest.mark.parametrize("step_seconds", [-3600.0, 3600.0])
def test_stage_is_observed_in_full_when_the_clock_is_stepped(
    line: Line, registrar: Registrar, witness: Witness, step_seconds: float
) -> None:
    """Neither passed over unmeasured nor stuck in a future that has to come again."""
    began = line.clock.elapsed_seconds
    line.at["25 % observe"] = lambda: line.clock.step_wall(step_seconds)
    assert staged(line).verdict is Verdict.PROMOTED
    assert 4 * SECONDS <= line.clock.elapsed_seconds - began <= 60


def test_rollout_is_superseded_when_challenger_names_another_version(
    line: Line, registrar: Registrar, witness: Witness
) -> None:
    registrar.point(MODEL, "3", "challenger")
    outcome = staged(line)
    assert outcome.verdict is Verdict.SUPERSEDED
    assert "alias challenger names version 3" in outcome.reason
    assert registrar.named(MODEL, "challenger") == "3"


@pytest.mark.fault("F8")
def test_second_request_joins_or_is_told_who_is_in_the_way(
    line: Line, registrar: Registrar, witness: Witness
) -> None:
    """One rollout per model: of the same plan it is joined, another plan or version has to wait."""
    first = enter(line)
    assert enter(line).id == first.id
    other_plan = replace(line.ask("2"), strategy="staged", policy={"stages": [100]})
    for asked in (other_plan, replace(line.ask("3"), strategy="staged")):
        found = record(line.engine, line.registry, asked, line.clock)
        assert isinstance(found, Outcome)
        assert found.verdict is Verdict.BUSY
    assert line.carry_on(first).verdict is Verdict.PROMOTED
    assert len(line.rollouts()) == 1


def test_first_champion_is_promoted_without_stages(
    line: Line, registrar: Registrar, witness: Witness
) -> None:
    """There is nothing to be compared with."""
    registrar.point(MODEL, None)
    outcome = staged(line)
    assert (outcome.verdict, witness.spans) == (Verdict.PROMOTED, [])
    assert line.rollouts()[0].state is State.PROMOTED
    assert outbox.recent(line.engine, 10)
