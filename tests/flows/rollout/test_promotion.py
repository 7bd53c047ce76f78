"""One promotion whoever asked: the request, who works on it, and what the verdict leaves everywhere."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from flows.rollout.outcome import Outcome, Verdict
from flows.rollout.policy import Spec, Usual
from flows.rollout.promotion import Asked, record, refuse, tidy
from serving.core.errors import ChangeRefused
from serving.core.model import Tag
from serving.store import audit, policies, rollouts
from serving.store.leases import Lease
from serving.store.rollouts import Entry, Request, Rollout, State
from serving.store.text import JsonValue
from tests.flows.rollout.line import MODEL, SLOWER, WORKER, WORSE, Judgement, Line
from tests.flows.rollout.registrar import Registrar
from tests.mlflow_double import Fault

SECOND = timedelta(seconds=1)


def recorded(line: Line, asked: Asked) -> Entry | Outcome:
    return record(line.engine, line.registry, asked, line.clock)


def as_the_api_does(line: Line, version: str, **policy: JsonValue) -> Rollout:
    """An open staged rollout without a plan."""
    asked = Request(model=MODEL, version=version, strategy="staged", requested_by="anna", policy=policy)
    return rollouts.enter(line.engine, asked, line.clock.now(), line.clock.now()).rollout


def outcome_of(line: Line, asked: Asked) -> Outcome:
    found = recorded(line, asked)
    assert isinstance(found, Outcome)
    return found


# The request


@pytest.mark.parametrize(
    ("model", "version", "sentence"),
    [
        pytest.param("nope", "2", "no version 2 of 'nope'; registered are digits", id="unknown model"),
        pytest.param("nope", None, "no model 'nope'; registered are digits", id="unknown model, by alias"),
        pytest.param(
            MODEL, "9", "no version 9 of 'digits'; it has versions 1, 2, 3, 4", id="unknown version"
        ),
        pytest.param(MODEL, "two", "'two' is no version number; it has versions 1, 2", id="no number"),
        pytest.param(MODEL, None, "'digits' has no alias challenger; name a version", id="no challenger"),
        pytest.param("foreign", "1", "'foreign' is none of the models in SIGNALBOX_MODELS", id="not ours"),
    ],
)
def test_request_is_refused_saying_what_exists(
    line: Line, registrar: Registrar, model: str, version: str | None, sentence: str
) -> None:
    """Nothing is opened for a request that cannot stand."""
    registrar.add("foreign", registrar.models[MODEL].versions["1"].source)
    outcome = outcome_of(line, replace(line.ask(version), model=model))
    assert outcome.verdict is Verdict.REFUSED
    assert sentence in outcome.reason
    assert rollouts.recent(line.engine) == []


def test_request_is_refused_when_its_strategy_does_not_exist(line: Line) -> None:
    outcome = outcome_of(line, replace(line.ask(), strategy="hasty"))
    assert (outcome.verdict, outcome.rollout) == (Verdict.REFUSED, None)
    assert outcome.reason == "strategy 'hasty' does not exist; use staged, direct"


def test_request_means_the_challenger_when_it_names_no_version(line: Line, registrar: Registrar) -> None:
    registrar.point(MODEL, "3", "challenger")
    entry = recorded(line, line.ask(None))
    assert isinstance(entry, Entry)
    assert entry.rollout.version == "3"


def test_request_joins_when_the_same_version_is_being_promoted(line: Line) -> None:
    """Whoever asks second is answered by the first one's rollout."""
    first = line.enter("2")
    entry = recorded(line, line.ask("2", by="bob"))
    assert isinstance(entry, Entry)
    assert (entry.created, entry.rollout.id, entry.rollout.requested_by) == (False, first.id, "anna")


def test_request_is_busy_naming_who_when_another_version_is_being_promoted(line: Line) -> None:
    first = line.enter("2")
    outcome = outcome_of(line, line.ask("3", by="bob"))
    assert (outcome.verdict, outcome.is_good, outcome.rollout) == (Verdict.BUSY, False, first)
    assert outcome.reason == (
        f"version 2 of 'digits' is being promoted by anna (rollout {first.id}); ask again when it has ended"
    )


def test_request_is_answered_by_a_rollout_that_ended_after_it_was_made(line: Line) -> None:
    """Of several who ask at once the slowest must not start a second one."""
    asked = line.ask("2", by="slow")
    line.clock.advance(1)
    promoted = line.promote("2")
    entry = recorded(line, asked)
    assert isinstance(entry, Entry)
    assert entry.rollout == promoted.rollout


def test_plan_goes_by_the_models_own_policies(line: Line) -> None:
    """Whoever asks names nothing; what is named goes before them; a direct one has no plan."""
    now = line.clock.now()
    policies.put(line.engine, MODEL, policies.PROMOTION, {"stages": [50, 100]}, "anna", now)
    policies.put(line.engine, MODEL, policies.JUDGE, {"min_samples": 7}, "anna", now)
    asked = replace(line.ask("2"), strategy="staged", policy={"stage_seconds": 5.0})
    entry = recorded(line, asked)
    assert isinstance(entry, Entry)
    assert entry.rollout.spec is not None
    spec = Spec.from_json(entry.rollout.spec)
    assert (spec.percents, spec.stage_seconds, spec.policy.min_samples) == ((50, 100), 5.0, 7)
    assert entry.rollout.policy == {"stages": [50, 100], "stage_seconds": 5.0}
    again = recorded(line, asked)
    assert isinstance(again, Entry)
    assert not again.created


def test_open_rollout_comes_with_the_refusal_when_its_own_plan_cannot_be_made(line: Line) -> None:
    """However the request that finds it is put; one that can be planned gets its plan."""
    impossible = as_the_api_does(line, "2", stage_deadline_seconds=30.0)
    plain = replace(line.ask("2"), strategy="staged")
    for asked in (plain, replace(plain, policy=impossible.policy)):
        outcome = outcome_of(line, asked)
        assert (outcome.verdict, outcome.rollout) == (Verdict.REFUSED, impossible)
        assert outcome.reason == (
            "the rollout cannot be planned: stage_deadline_seconds 30 is shorter than stage_seconds 60"
        )
    entry = recorded(line, replace(plain, usual=Usual(stage_seconds=30.0)))
    assert isinstance(entry, Entry)
    assert entry.rollout.spec is not None


def test_open_rollout_is_let_be_when_only_the_request_cannot_be_planned(line: Line) -> None:
    sound = as_the_api_does(line, "2")
    asked = replace(line.ask("2"), strategy="staged", policy={"stage_deadline_seconds": 30.0})
    outcome = outcome_of(line, asked)
    assert (outcome.verdict, outcome.rollout) == (Verdict.REFUSED, None)
    assert rollouts.get(line.engine, sound.id).state is State.OPEN


def test_rollout_that_cannot_be_planned_ends_refused_and_frees_its_model(
    line: Line, registrar: Registrar, tmp_path: Path
) -> None:
    """Announced and explained as any refusal is: a policy file that somebody broke, here."""
    registrar.point(MODEL, "2", "challenger")
    broken = tmp_path / "policies.toml"
    broken.write_text("[default")
    as_the_api_does(line, "2")
    asked = replace(line.ask("2"), strategy="staged", usual=Usual(policy_file=broken))
    found = outcome_of(line, asked)
    assert found.rollout is not None
    outcome = refuse(found.rollout, found.reason, line.parts, line.leases, "promote:run-1", line.pause)
    assert outcome.verdict is Verdict.REFUSED
    assert outcome.rollout is not None
    assert (outcome.rollout.state, outcome.rollout.reason) == (State.REFUSED, found.reason)
    assert f"the rollout policy {broken} is no TOML" in found.reason
    assert registrar.models[MODEL].aliases == {"champion": "1"}
    assert registrar.tags("2")[Tag.VERDICT] == f"refused: {found.reason}"
    assert line.notices() == [("refused", "2")]
    assert line.promote("3").verdict is Verdict.PROMOTED
    line.assert_intact()


def test_rollout_that_was_given_its_plan_meanwhile_is_not_refused(line: Line) -> None:
    """The file was put right, and another run has begun it."""
    rollout = as_the_api_does(line, "2")
    rollouts.specify(line.engine, rollout, {"stages": [100]})
    outcome = refuse(rollout, "no TOML", line.parts, line.leases, "promote:run-1", line.pause)
    assert outcome.verdict is Verdict.JOINED
    assert rollouts.get(line.engine, rollout.id).state is State.OPEN


# What the verdict leaves


def test_promotion_is_told_everywhere(line: Line, registrar: Registrar) -> None:
    """Alias challenger gone, tags, notice, audit; the description of a good version stays its author's."""
    registrar.point(MODEL, "2", "challenger")
    registrar.descriptions["2"] = "Trained on Tuesday."
    outcome = line.promote(None)
    assert outcome.verdict is Verdict.PROMOTED
    assert outcome.rollout is not None
    assert registrar.models[MODEL].aliases == {"champion": "2"}
    assert registrar.tags("2") == {
        Tag.VALIDATION: "passed",
        Tag.VERDICT: "promoted: in the place of version 1",
        Tag.ROLLOUT: outcome.rollout.id,
    }
    assert registrar.descriptions["2"] == "Trained on Tuesday."
    assert line.notices() == [("promoted", "2")]
    assert [row.entry.actor for row in audit.tail(line.engine, action="promote")] == [
        "anna",
        *["promote:run-1"] * 6,
    ]
    line.assert_intact()


def test_refusal_is_told_everywhere(line: Line, registrar: Registrar) -> None:
    registrar.point(MODEL, "2", "challenger")
    registrar.descriptions["2"] = "Trained on Tuesday."
    line.judgement = WORSE
    outcome = line.promote(None)
    assert outcome.verdict is Verdict.REFUSED
    assert registrar.models[MODEL].aliases == {"champion": "1"}
    tags = registrar.tags("2")
    assert (tags[Tag.VALIDATION], tags[Tag.VERDICT]) == ("failed", f"refused: {WORSE.reason}")
    author, _, verdict = registrar.descriptions["2"].partition("\n\n")
    assert author == "Trained on Tuesday."
    assert verdict == f"Signalbox: refused {line.clock.now().isoformat(timespec='seconds')}: {WORSE.reason}"
    assert line.notices() == [("refused", "2")]
    line.assert_intact()


def test_refusal_for_its_cost_is_told_everywhere(line: Line, registrar: Registrar) -> None:
    """As a failed validation is: `SIGNALBOX_REQUIRE_VALIDATION` keeps it from being promoted by hand too."""
    registrar.point(MODEL, "2", "challenger")
    line.cost = SLOWER
    assert line.promote(None).verdict is Verdict.REFUSED
    assert registrar.models[MODEL].aliases == {"champion": "1"}
    tags = registrar.tags("2")
    assert (tags[Tag.VALIDATION], tags[Tag.VERDICT]) == ("failed", f"refused: {SLOWER.reason}")
    assert SLOWER.reason in registrar.descriptions["2"]
    assert line.notices() == [("refused", "2")]
    line.assert_intact()


def test_description_holds_the_last_verdict_alone_when_refused_twice(
    line: Line, registrar: Registrar
) -> None:
    line.judgement = WORSE
    line.promote("2")
    line.clock.advance(1)
    line.judgement = Judgement(passed=False, reason="hanging")
    line.promote("2")
    assert registrar.descriptions["2"].count("Signalbox:") == 1
    assert registrar.descriptions["2"].endswith("hanging")
    assert line.notices() == [("refused", "2"), ("refused", "2")]


def test_challenger_set_meanwhile_is_kept_when_it_names_another_version(
    line: Line, registrar: Registrar
) -> None:
    """It is a wish of its own, for tend to see."""
    registrar.point(MODEL, "2", "challenger")
    line.at["applied"] = lambda: registrar.point(MODEL, "3", "challenger")
    assert line.promote(None).verdict is Verdict.PROMOTED
    assert registrar.named(MODEL, "challenger") == "3"


@pytest.mark.parametrize("fault", [Fault(500, where="set-tag"), Fault(500, where="registered-models/alias")])
def test_verdict_stands_with_a_warning_when_the_registry_takes_no_writes(
    line: Line, registrar: Registrar, fault: Fault
) -> None:
    """The store has the verdict; the registry is told by the next one who tidies."""
    registrar.point(MODEL, "2", "challenger")
    line.judgement = WORSE
    registrar.fault = fault
    outcome = line.promote(None)
    assert outcome.verdict is Verdict.REFUSED
    assert outcome.rollout is not None
    assert len(outcome.warnings) == 1
    assert registrar.named(MODEL, "challenger") == "2"
    registrar.fault = None
    with line.guard.holding(MODEL, "tend:1") as lease:
        assert tidy(outcome.rollout, line.registry, line.guard, lambda: lease) == ()
    assert registrar.named(MODEL, "challenger") is None
    assert registrar.tags("2")[Tag.VALIDATION] == "failed"


def test_tidying_again_changes_nothing(line: Line, registrar: Registrar) -> None:
    outcome = line.promote("2")
    assert outcome.rollout is not None
    writes = list(registrar.writes())
    with line.guard.holding(MODEL, "tend:1") as lease:
        assert tidy(outcome.rollout, line.registry, line.guard, lambda: lease) == ()
    assert registrar.writes() == writes


def test_outcome_is_told_when_the_lease_was_taken_before_the_registry_heard(
    line: Line, registrar: Registrar
) -> None:
    """A pre-empted run ends with its verdict and a warning, not with an exception."""
    registrar.point(MODEL, "2", "challenger")
    line.at["alias moved"] = line.roll_back
    outcome = line.promote(None)
    assert outcome.verdict is Verdict.ROLLED_BACK
    assert "the registry was not told" in outcome.warnings[0]
    assert WORKER in outcome.warnings[0]
    assert line.notices() == [("refused", "2")]


# Who works on it


def test_run_joins_when_the_rollout_ended_while_it_waited(line: Line, registrar: Registrar) -> None:
    """It reports the verdict of the run it waited for."""
    rollout = line.enter("2")
    held = line.leases.acquire(f"model:{MODEL}", "promote:first")
    assert isinstance(held, Lease)
    line.meanwhile = lambda: rollouts.finish(
        line.engine, rollout, State.REFUSED, "worse", "promote:first", line.clock.now(), None
    )
    outcome = line.carry_on(rollout)
    assert (outcome.verdict, outcome.is_good) == (Verdict.JOINED, True)
    assert outcome.reason == f"rollout {rollout.id} of the same version answers this: refused, worse"


def test_run_joins_naming_the_holder_when_another_works_on_it(line: Line) -> None:
    rollout = line.enter("2")
    held = line.leases.acquire(f"model:{MODEL}", "promote:first")
    assert isinstance(held, Lease)
    line.meanwhile = lambda: line.leases.renew(held)
    outcome = line.carry_on(rollout)
    assert outcome.verdict is Verdict.JOINED
    assert outcome.reason == f"rollout {rollout.id} is worked on by promote:first"
    assert line.rollouts()[0].state is State.OPEN


def test_run_finds_the_verdict_when_the_rollout_ended_before_it_got_the_lease(line: Line) -> None:
    rollout = line.enter("2")
    promoted = line.carry_on(rollout)
    outcome = line.carry_on(rollout)
    assert (outcome.verdict, outcome.rollout) == (Verdict.JOINED, promoted.rollout)
    assert len(line.rollouts()) == 1


def test_lease_is_free_when_a_run_has_ended(line: Line) -> None:
    """Whatever came of it: the next one waits for nobody."""
    line.judgement = WORSE
    line.promote("2")
    with line.guard.holding(MODEL, "tend:1"):
        pass
    held = line.leases.acquire(f"model:{MODEL}", "promote:other")
    assert isinstance(held, Lease)
    with pytest.raises(ChangeRefused), line.guard.holding(MODEL, "tend:2"):
        pass


def test_requested_again_after_a_refusal_a_version_is_judged_again(line: Line) -> None:
    """Asked on purpose, a verdict of before is no answer."""
    line.judgement = WORSE
    assert line.promote("2").verdict is Verdict.REFUSED
    line.clock.advance(1)
    line.judgement = Judgement()
    assert line.promote("2").verdict is Verdict.PROMOTED
    assert [rollout.state for rollout in line.rollouts()] == [State.REFUSED, State.PROMOTED]
