"""The steps of a direct promotion: every end it can come to, and what it leaves in registry and store."""

from collections.abc import Callable

import pytest

from flows.rollout.direct import APPLY_SECONDS
from flows.rollout.keeper import holder_of
from flows.rollout.outcome import Verdict
from serving.core.model import Tag
from serving.store import overrides, restore_points, rollouts
from serving.store.changes import Outcome as Change
from serving.store.leases import Lease
from serving.store.rollouts import Phase, State
from tests.flows.rollout.line import MODEL, SLOWER, WORKER, WORSE, Line
from tests.flows.rollout.registrar import Registrar
from tests.mlflow_double import Fault

STEPS = ["requested", "validated", "benchmarked", "restore_point", "alias_moved", "applied", "promoted"]


def test_version_is_promoted_when_all_is_well(line: Line, registrar: Registrar) -> None:
    """Each step on record in its order, the way back noted before the alias moved."""
    outcome = line.promote("2")
    assert (outcome.verdict, outcome.reason, outcome.warnings) == (
        Verdict.PROMOTED,
        "in the place of version 1",
        (),
    )
    assert registrar.named(MODEL) == "2"
    assert line.steps() == STEPS
    assert line.moves() == [("1", "2", Change.APPLIED)]
    [rollout] = line.rollouts()
    assert rollout.restore_point == {"champion": "1", "id": rollout.id}
    point = restore_points.get(line.engine, rollout.id)
    assert (point.champion, point.kind, point.is_intact) == ("1", restore_points.Kind.AUTOMATIC, True)
    assert f"{WORKER}: answered a probe with version 2" in (rollout.evidence or {})["applied"]
    assert registrar.tags("2")[Tag.VALIDATION] == "passed"
    line.assert_intact()


def test_version_is_promoted_when_there_is_no_champion_yet(line: Line, registrar: Registrar) -> None:
    """Validated against nothing, promoted directly."""
    registrar.point(MODEL, None)
    registrar.point(MODEL, "2", "challenger")
    outcome = line.promote(None)
    assert (outcome.verdict, outcome.reason) == (Verdict.PROMOTED, "the first champion")
    assert line.asked_of_validator == [None]
    assert line.moves() == [(None, "2", Change.APPLIED)]


def test_version_is_refused_when_the_validation_fails(line: Line, registrar: Registrar) -> None:
    """Judged against the champion; its alias is not touched."""
    line.judgement = WORSE
    outcome = line.promote("2")
    assert (outcome.verdict, outcome.reason) == (Verdict.REFUSED, WORSE.reason)
    assert line.asked_of_validator == ["1"]
    assert (registrar.named(MODEL), line.moves()) == ("1", [])
    assert line.steps() == ["requested", "validated", "refused"]


def test_version_is_refused_when_the_benchmark_fails(line: Line, registrar: Registrar) -> None:
    """Measured beside the champion it was validated against; the validation stays on record."""
    line.cost = SLOWER
    outcome = line.promote("2")
    assert (outcome.verdict, outcome.reason) == (Verdict.REFUSED, SLOWER.reason)
    assert line.asked_of_benchmark == ["1"]
    assert (registrar.named(MODEL), line.moves()) == ("1", [])
    assert line.steps() == ["requested", "validated", "benchmarked", "refused"]
    evidence = line.rollouts()[0].evidence or {}
    assert (evidence["verdict"], evidence["benchmark"]["verdict"]) == ("passed", "failed")


def test_version_is_not_benchmarked_when_the_validation_failed(line: Line) -> None:
    line.judgement = WORSE
    line.promote("2")
    assert line.asked_of_benchmark == []


def test_version_is_refused_when_it_is_the_champion_already(line: Line) -> None:
    outcome = line.promote("1")
    assert (outcome.verdict, outcome.reason) == (Verdict.REFUSED, "version 1 is the champion already")
    assert line.asked_of_validator == []


def test_rollout_fails_when_the_validation_cannot_be_carried_out(line: Line) -> None:
    """Ended, not left open: tend would begin it again every two minutes."""
    line.judgement = ZeroDivisionError("of the checks")
    outcome = line.promote("2")
    assert outcome.verdict is Verdict.FAILED
    assert "could not be carried out: ZeroDivisionError('of the checks')" in outcome.reason
    assert line.rollouts()[0].state is State.FAILED


def test_rollout_fails_when_the_benchmark_cannot_be_carried_out(line: Line) -> None:
    line.cost = ZeroDivisionError("of the times")
    outcome = line.promote("2")
    assert outcome.verdict is Verdict.FAILED
    assert "the benchmark could not be carried out: ZeroDivisionError('of the times')" in outcome.reason
    assert line.rollouts()[0].state is State.FAILED


def test_rollout_fails_before_the_alias_moves_when_no_worker_lives(line: Line, registrar: Registrar) -> None:
    line.follows = False
    outcome = line.promote("2")
    assert (outcome.verdict, line.moves()) == (Verdict.FAILED, [])
    assert "no serving worker is alive" in outcome.reason


def test_alias_goes_back_when_a_worker_refuses_the_version(line: Line, registrar: Registrar) -> None:
    """Validation cannot see everything; who has to serve it has the last word."""
    line.refuses = {"2": "self-test failed"}
    outcome = line.promote("2")
    assert outcome.verdict is Verdict.REFUSED
    assert outcome.reason == f"{WORKER}: refused version 2: self-test failed"
    assert registrar.named(MODEL) == "1"
    assert line.moves() == [("1", "2", Change.APPLIED), ("2", "1", Change.APPLIED)]


def test_alias_is_deleted_again_when_a_worker_refuses_the_first_champion(
    line: Line, registrar: Registrar
) -> None:
    registrar.point(MODEL, None)
    line.refuses = {"2": "self-test failed"}
    assert line.promote("2").verdict is Verdict.REFUSED
    assert registrar.named(MODEL) is None


def test_alias_goes_back_when_the_version_is_not_applied_in_time(line: Line, registrar: Registrar) -> None:
    """A worker that never gets there holds nothing up for ever."""
    line.at["restore point"] = lambda: setattr(line, "follows", False)
    line.meanwhile = lambda: registrar.point(MODEL, "2") if registrar.named(MODEL) != "2" else None
    outcome = line.promote("2")
    assert outcome.verdict is Verdict.FAILED
    assert f"not applied within {APPLY_SECONDS:.0f} s" in outcome.reason
    assert line.clock.elapsed_seconds == APPLY_SECONDS
    assert registrar.named(MODEL) == "1"


def test_hands_choice_is_kept_when_made_during_the_validation(line: Line, registrar: Registrar) -> None:
    line.at["validated"] = lambda: registrar.point(MODEL, "3")
    outcome = line.promote("2")
    assert (outcome.verdict, registrar.named(MODEL)) == (Verdict.SUPERSEDED, "3")
    assert "moved to 3 since the validation" in outcome.reason
    assert line.moves() == []


@pytest.mark.fault("F9")
@pytest.mark.parametrize("choice", ["3", None])
def test_hands_choice_is_kept_when_made_right_before_the_alias_moves(
    line: Line, registrar: Registrar, choice: str | None
) -> None:
    """The guarded write goes only from what the restore point names."""
    line.at["restore point"] = lambda: registrar.point(MODEL, choice)
    outcome = line.promote("2")
    assert (outcome.verdict, registrar.named(MODEL)) == (Verdict.SUPERSEDED, choice)
    assert line.moves() == []


@pytest.mark.fault("F9")
@pytest.mark.parametrize(
    ("choice", "verdict"), [("3", Verdict.SUPERSEDED), (None, Verdict.SUPERSEDED), ("1", Verdict.ROLLED_BACK)]
)
def test_hands_choice_is_kept_when_made_while_workers_apply(
    line: Line, registrar: Registrar, choice: str | None, verdict: Verdict
) -> None:
    line.at["alias moved"] = lambda: registrar.point(MODEL, choice)
    outcome = line.promote("2")
    assert (outcome.verdict, registrar.named(MODEL)) == (verdict, choice)
    assert line.moves() == [("1", "2", Change.APPLIED)]
    line.assert_intact()


def test_promotion_is_rolled_back_when_serving_did_so_and_told_the_registry(
    line: Line, registrar: Registrar
) -> None:
    """The override is over by the time the promotion looks, and still tells why."""

    def roll_back() -> None:
        overrides.save(line.engine, line.override())
        registrar.point(MODEL, "1")
        overrides.end(line.engine, line.override(), "champion names 1")

    line.at["alias moved"] = roll_back
    outcome = line.promote("2")
    assert (outcome.verdict, outcome.reason) == (Verdict.ROLLED_BACK, "serving rolled it back: wrong sums")
    assert registrar.named(MODEL) == "1"


@pytest.mark.parametrize("step", ["alias moved", "applied"])
def test_promotion_is_rolled_back_when_serving_took_the_lease(line: Line, step: str) -> None:
    """A rollback waits for nobody; the registry hears of it later, from whoever laid it."""
    line.at[step] = line.roll_back
    outcome = line.promote("2")
    assert (outcome.verdict, outcome.reason) == (Verdict.ROLLED_BACK, "serving rolled it back: wrong sums")
    assert line.rollouts()[0].state is State.ROLLED_BACK


@pytest.mark.parametrize("step", ["validated", "restore point", "alias moved"])
def test_rollout_is_superseded_when_another_took_the_lease(line: Line, step: str) -> None:
    """As serving does to roll the old champion back."""
    line.at[step] = lambda: line.leases.preempt(f"model:{MODEL}", WORKER)
    outcome = line.promote("2")
    assert outcome.verdict is Verdict.SUPERSEDED
    assert WORKER in outcome.reason
    assert line.rollouts()[0].state is State.SUPERSEDED


@pytest.mark.fault("F8")
@pytest.mark.parametrize("step", ["validated", "restore point", "alias moved", "applied"])
def test_rollout_stays_open_for_the_run_that_took_it_up(line: Line, registrar: Registrar, step: str) -> None:
    """A run that was away for longer than the take-over ends nothing that is another's by now."""
    successor = holder_of("successor")
    taken: list[Lease] = []
    line.at[step] = lambda: taken.append(line.leases.preempt(f"model:{MODEL}", successor))
    outcome = line.promote("2")
    assert outcome.verdict is Verdict.JOINED
    assert successor in outcome.reason
    [rollout] = line.rollouts()
    assert rollout.state is State.OPEN
    line.leases.release(taken[0])
    assert line.carry_on(rollout).verdict is Verdict.PROMOTED
    assert [r.state for r in line.rollouts()] == [State.PROMOTED]
    assert registrar.named(MODEL) == "2"


def test_rollback_of_before_is_lifted_when_its_version_is_promoted_on_purpose(
    line: Line, registrar: Registrar
) -> None:
    overrides.save(line.engine, line.override())
    line.clock.advance(1)
    assert line.promote("2").verdict is Verdict.PROMOTED
    assert overrides.active(line.engine) == []


def test_rollback_is_lifted_also_while_the_alias_still_names_its_version(
    line: Line, registrar: Registrar
) -> None:
    """MLflow has not heard of the rollback yet, and somebody wants that version after all."""
    registrar.point(MODEL, "2")
    overrides.save(line.engine, line.override())
    line.clock.advance(1)
    outcome = line.promote("2")
    assert (outcome.verdict, outcome.reason) == (Verdict.PROMOTED, "in the place of version 1")
    assert line.asked_of_validator == ["1"], "compared with the version that answers"
    assert overrides.active(line.engine) == []


def test_other_rollbacks_hold_when_a_version_is_promoted(line: Line) -> None:
    overrides.save(line.engine, line.override("3", "1"))
    line.clock.advance(1)
    assert line.promote("2").verdict is Verdict.PROMOTED
    assert [o.not_version for o in overrides.active(line.engine)] == ["3"]


# Taken up where another run stopped


def interrupted(line: Line, phase: Phase, *, passed: bool = True) -> rollouts.Rollout:
    """A rollout whose run died right after it had noted `phase`."""
    rollout = line.enter("2")
    lease = line.leases.acquire(f"model:{MODEL}", "promote:dead")
    assert isinstance(lease, Lease)
    for step in list(Phase)[1 : list(Phase).index(phase) + 1]:
        rollout = rollouts.advance(
            line.engine,
            rollout,
            step,
            lease,
            line.clock.now(),
            evidence={"passed": passed, "reason": "worse", "against": "1"},
            restore_point={"champion": "1"},
        )
    line.leases.release(lease)
    return rollout


def test_failed_verdict_is_not_forgotten_when_its_run_died_before_the_end(
    line: Line, registrar: Registrar
) -> None:
    """The verdict on record counts, not that the step was reached."""
    outcome = line.carry_on(interrupted(line, Phase.VALIDATED, passed=False))
    assert (outcome.verdict, outcome.reason) == (Verdict.REFUSED, "worse")
    assert (registrar.named(MODEL), line.asked_of_validator) == ("1", [])


@pytest.mark.parametrize("phase", [Phase.VALIDATED, Phase.RESTORE_POINT])
def test_hands_choice_is_kept_when_made_while_nobody_worked(
    line: Line, registrar: Registrar, phase: Phase
) -> None:
    """What was validated against the old champion says nothing of the new one."""
    rollout = interrupted(line, phase)
    registrar.point(MODEL, "3")
    assert line.carry_on(rollout).verdict is Verdict.SUPERSEDED
    assert registrar.named(MODEL) == "3"


@pytest.mark.parametrize("phase", [Phase.RESTORE_POINT, Phase.ALIAS_MOVED])
def test_rollback_is_kept_when_made_while_nobody_worked(
    line: Line, registrar: Registrar, phase: Phase
) -> None:
    """The dead run's write had arrived, serving rolled it back: it is not written again."""
    rollout = interrupted(line, phase)
    overrides.save(line.engine, line.override())
    outcome = line.carry_on(rollout)
    assert (outcome.verdict, registrar.named(MODEL)) == (Verdict.ROLLED_BACK, "1")
    assert registrar.writes() == [] or "alias" not in str(registrar.writes())


# MLflow away

AWAY = Fault(500)


def away(registrar: Registrar) -> None:
    registrar.fault = AWAY


def away_after_next_write(registrar: Registrar) -> None:
    """The write arrives, and from then on nothing answers."""
    registrar.before_write = lambda: away(registrar)


def read_only(registrar: Registrar) -> None:
    registrar.fault = Fault(500, where="registered-models/alias")


@pytest.mark.fault("F1")
@pytest.mark.parametrize(
    ("step", "fail", "stops_at"),
    [
        pytest.param("validated", away, Phase.BENCHMARKED, id="after the validation"),
        pytest.param("benchmarked", away, Phase.BENCHMARKED, id="after the benchmark"),
        pytest.param("restore point", away, Phase.RESTORE_POINT, id="before the alias write"),
        pytest.param("restore point", away_after_next_write, Phase.RESTORE_POINT, id="after the alias write"),
        pytest.param("restore point", read_only, Phase.RESTORE_POINT, id="write refused"),
    ],
)
def test_rollout_stays_open_when_mlflow_goes_away(
    line: Line, registrar: Registrar, step: str, fail: Callable[[Registrar], None], stops_at: Phase
) -> None:
    """Neither lost nor half done: the next run carries it to its end, without validating again."""
    line.at[step] = lambda: fail(registrar)
    outcome = line.promote("2")
    assert outcome.verdict is Verdict.UNAVAILABLE
    assert "stays open" in outcome.reason
    [rollout] = line.rollouts()
    assert (rollout.state, rollout.phase) == (State.OPEN, stops_at)
    assert line.notices() == []
    registrar.fault = registrar.before_write = None
    assert line.carry_on(rollout).verdict is Verdict.PROMOTED
    assert registrar.named(MODEL) == "2"
    assert (line.asked_of_validator, line.asked_of_benchmark) == (["1"], ["1"])
    assert line.steps() == STEPS
    line.assert_intact()


@pytest.mark.fault("F1")
def test_rollout_stays_open_when_mlflow_is_away_from_the_start(line: Line, registrar: Registrar) -> None:
    rollout = line.enter("2")
    away(registrar)
    assert line.carry_on(rollout).verdict is Verdict.UNAVAILABLE
    assert line.rollouts()[0].phase is Phase.REQUESTED
    registrar.fault = None
    assert line.carry_on(rollout).verdict is Verdict.PROMOTED


@pytest.mark.fault("F1")
def test_version_is_promoted_when_mlflow_goes_away_after_the_alias_moved(
    line: Line, registrar: Registrar
) -> None:
    """The workers have it and say so; what the registry cannot be told is left to tend."""

    def seen_by_the_worker() -> None:
        line.beat()
        line.clock.advance(1)
        away(registrar)

    line.at["alias moved"] = seen_by_the_worker
    outcome = line.promote("2")
    assert outcome.verdict is Verdict.PROMOTED
    assert "the registry was not told" in outcome.warnings[0]
    assert any("the registry cannot be asked" in sentence for sentence in line.said)


@pytest.mark.fault("F1")
def test_alias_is_put_back_later_when_mlflow_is_away_as_a_worker_refuses(
    line: Line, registrar: Registrar
) -> None:
    """No verdict is told while the alias still names what it is about."""
    line.refuses = {"2": "self-test failed"}

    def seen_by_the_worker() -> None:
        line.beat()
        away(registrar)

    line.at["alias moved"] = seen_by_the_worker
    assert line.promote("2").verdict is Verdict.UNAVAILABLE
    [rollout] = line.rollouts()
    assert (rollout.state, rollout.phase) == (State.OPEN, Phase.ALIAS_MOVED)
    registrar.fault = None
    outcome = line.carry_on(rollout)
    assert (outcome.verdict, registrar.named(MODEL)) == (Verdict.REFUSED, "1")


def test_verdict_stands_with_a_warning_when_the_old_champion_is_gone(
    line: Line, registrar: Registrar
) -> None:
    """There is nothing to put back; waiting for it would never end."""
    line.refuses = {"2": "self-test failed"}
    line.at["alias moved"] = lambda: registrar.models[MODEL].versions.pop("1")
    outcome = line.promote("2")
    assert outcome.verdict is Verdict.REFUSED
    assert "alias champion was not put back" in outcome.warnings[0]


def test_rollout_fails_when_its_version_was_deleted_in_the_middle(line: Line, registrar: Registrar) -> None:
    line.at["restore point"] = lambda: registrar.models[MODEL].versions.pop("2")
    outcome = line.promote("2")
    assert outcome.verdict is Verdict.FAILED
    assert "no version 2 of 'digits'" in outcome.reason
    assert registrar.named(MODEL) == "1"
