"""Promotions through real MLflow, serving, Prefect server and worker: every way in, every part away once."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest

from flows.benchmark_model import benchmarker
from flows.rollout.attention import MISSED_AFTER
from flows.rollout.keeper import holder_of
from flows.rollout.outcome import Outcome, Verdict
from flows.rollout.parts import Parts
from flows.rollout.promotion import Asked, record, work
from flows.settings import FlowSettings
from flows.validate_model import validator
from flows.wiring import wired
from serving.store.rollouts import Entry, Phase, Rollout, State
from tests.integration.conftest import StartServing
from tests.integration.promotions import PROMOTE, Promotions, promoting
from tests.mlflow_gate import MlflowGate, Way
from tests.mlflow_registry import MlflowRegistry, RegisteredModel
from tests.prefect_server import PrefectServer
from tests.traffic import Traffic, failed, wrong
from tests.waiting import until

pytestmark = [pytest.mark.integration, pytest.mark.slow]

MISSED_SECONDS = MISSED_AFTER.total_seconds()


@pytest.fixture
def promotions(
    registry: MlflowRegistry, prefect_server: PrefectServer, start_serving: StartServing
) -> Iterator[Promotions]:
    with promoting(registry, prefect_server, start_serving) as promotions:
        yield promotions


def test_challenger_is_promoted_by_its_event_when_set_through_rest(promotions: Promotions) -> None:
    """Alias in, champion out, without a failed request; the report is an artifact of the run."""
    model, serving = promotions.serve("onnx:1", "onnx:2")
    with Traffic(serving.url, model.name, rate_per_second=20) as traffic:
        model.point("2", "challenger")
        rollout = promotions.assert_promoted(model, "2")
    assert rollout.requested_by == "alias challenger"
    assert promotions.champion_moves(model) == [("1", "2")]
    assert serving.infer(model.name).version == "2"
    assert failed(traffic.samples) == []
    assert wrong(traffic.samples, model.constants) == []
    run = promotions.prefect.ended(PROMOTE, model=model.name)
    assert (run["state_type"], run["state_name"]) == ("COMPLETED", "Promoted")
    [report] = promotions.prefect.artifacts(f"promotion-{model.name}")
    assert report["flow_run_id"] == run["id"]
    assert f"# {model.name}: promoted" in report["data"]
    assert "- champion before: 1" in report["data"]
    assert len(serving.notices("promoted", model.name)) == 1


def test_version_is_promoted_by_stages_when_the_command_line_asks(promotions: Promotions) -> None:
    """The plan goes with the run; the evidence of each stage is in the artifact and beside MLflow's run."""
    model, serving = promotions.serve("onnx:1", "onnx:2")
    with Traffic(serving.url, model.name, rate_per_second=40) as traffic:
        plan = ("--strategy", "staged", "--stages", "50,100", "--stage-seconds", "3")
        asked = promotions.signalbox("promote", model.name, "2", *plan)
        assert asked.returncode == 0, asked.stderr
        rollout = promotions.finished(model, seconds=240.0)
    assert rollout.state is State.PROMOTED, rollout.reason
    assert [stage["percent"] for stage in (rollout.status or {})["passed"]] == [50, 100]
    assert failed(traffic.samples) == []
    assert wrong(traffic.samples, model.constants) == []
    key = f"promotion-{model.name}"
    # Of all runs that joined the rollout, the one that brought it to its end leaves the report.
    until(lambda: promotions.prefect.artifacts(key), "the report is in Prefect", seconds=60)
    [report] = promotions.prefect.artifacts(key)
    assert "| 50 % | error rate | success |" in report["data"]
    run_id = promotions.registry.logged["onnx:2"].run_id
    listed = promotions.registry.call("GET", f"artifacts/list?run_id={run_id}&path=signalbox")
    assert f"signalbox/rollout-{rollout.id}.md" in [file["path"] for file in listed["files"]]


@pytest.mark.fault("F26")
def test_challenger_is_promoted_by_tend_when_its_event_is_lost(promotions: Promotions) -> None:
    """No webhook, and a Prefect that serving cannot reach: the poll notes it, the minutely flow starts it."""
    model, _ = promotions.serve("onnx:1", "onnx:2", announces=False)
    model.point("2", "challenger")
    until(lambda: promotions.waits(model, MISSED_SECONDS), "it counts as missed", seconds=MISSED_SECONDS + 10)
    promotions.run("tend")  # gives way to a scheduled one, should that run now
    rollout = promotions.assert_promoted(model, "2")
    assert rollout.requested_by.startswith("tend (alias challenger")


@pytest.mark.fault("F26")
def test_one_rollout_answers_everybody_when_all_ask_at_once(promotions: Promotions) -> None:
    """Event, command line, Prefect's API and tend: one is promoted, the others joined it."""
    model, _ = promotions.serve("onnx:1", "onnx:2")
    with ThreadPoolExecutor() as together:
        model.point("2", "challenger")
        typed = together.submit(promotions.signalbox, "promote", model.name, "2")
        by_api = together.submit(promotions.run, PROMOTE, model=model.name, version=2)
        by_tend = together.submit(promotions.run, "reconcile")
        assert typed.result().returncode == 0, typed.result().stderr
    promotions.assert_promoted(model, "2")
    assert len(promotions.rollouts(model)) == 1
    assert promotions.champion_moves(model) == [("1", "2")]
    ends = [promotions.ended(run["id"]) for run in promotions.prefect.runs(PROMOTE, model=model.name)]
    assert {run["state_type"] for run in ends} == {"COMPLETED"}
    # Two at least: Prefect on SQLite refuses some of what is asked of it at the same moment.
    assert len(ends) >= 2
    assert sorted(run["state_name"] for run in ends) == ["Joined"] * (len(ends) - 1) + ["Promoted"]
    for run_id in (by_api.result()["id"], by_tend.result()["id"]):
        assert promotions.ended(run_id)["state_type"] == "COMPLETED"


def promote_here(
    promotions: Promotions,
    model: RegisteredModel,
    gate: MlflowGate,
    fail_at: dict[str, Way],
    version: str = "2",
) -> Outcome:
    """A promotion in this process that reaches MLflow through a gate; `fail_at` a step the gate changes."""
    settings = FlowSettings(
        **promotions.prefect.settings.model_dump(exclude={"mlflow_url"}), mlflow_url=gate.url
    )

    def report(sentence: str) -> None:
        gate.way = fail_at.pop(sentence.rpartition(": ")[2], gate.way)

    with wired(settings) as wiring:
        asked = Asked(model=model.name, version=version, asked_at=wiring.clock.now(), by="anna")
        known: Rollout | None = next(iter(promotions.rollouts(model)), None)
        entry = known or record(wiring.engine, wiring.registry, asked, wiring.clock)
        rollout = entry.rollout if isinstance(entry, Entry) else entry
        assert isinstance(rollout, Rollout), rollout
        gate.way = fail_at.pop("begin", gate.way)
        parts = Parts(
            wiring.engine,
            wiring.registry,
            wiring.guard,
            wiring.clock,
            validator(wiring),
            benchmarker(wiring),
        )
        return work(rollout, parts, wiring.leases, holder_of(uuid4().hex), report)


@pytest.mark.fault("F26")
def test_refused_challenger_is_judged_once_when_its_alias_cannot_be_deleted(promotions: Promotions) -> None:
    """MLflow takes no writes as the verdict falls; tend takes the alias away later and starts nothing."""
    model, serving = promotions.serve("onnx:1", "wrong_shape", announces=False)
    model.point("2", "challenger")
    until(lambda: promotions.waits(model, 0), "the challenger is noted")
    with MlflowGate(promotions.registry.server.url, Way.READ_ONLY) as gate:
        outcome = promote_here(promotions, model, gate, {})
    assert outcome.verdict is Verdict.REFUSED, outcome.reason
    assert "the registry was not told" in outcome.warnings[0]
    promotions.reconcile()  # unless a scheduled tend has come first
    assert model.aliases() == {"champion": "1"}
    assert model.name not in promotions.reconcile()
    assert len(promotions.rollouts(model)) == 1
    assert promotions.prefect.runs(PROMOTE, model=model.name) == []
    assert serving.infer(model.name).version == "1"
    promotions.assert_nothing_lost()


@pytest.mark.fault("F1")
def test_promotion_is_neither_lost_nor_half_done_when_mlflow_fails_in_every_way(
    promotions: Promotions,
) -> None:
    """Each run stops where MLflow did and says so; serving answers on; the last one ends promoted."""
    with MlflowGate(promotions.registry.server.url) as gate:
        model, serving = promotions.serve("onnx:1", "onnx:2", announces=False, mlflow_url=gate.url)
        stops = [
            ({"validated": Way.ERROR}, Phase.VALIDATED, "answered 500"),
            ({"begin": Way.HTML}, Phase.VALIDATED, "not its registry API"),
            ({"begin": Way.SLOW}, Phase.VALIDATED, "did not answer"),
            ({"restore point": Way.READ_ONLY}, Phase.RESTORE_POINT, "answered 500"),
        ]
        with Traffic(serving.url, model.name, rate_per_second=20) as traffic:
            for fail_at, phase, sentence in stops:
                outcome = promote_here(promotions, model, gate, dict(fail_at))
                assert (outcome.verdict, sentence in outcome.reason) == (Verdict.UNAVAILABLE, True), outcome
                [rollout] = promotions.rollouts(model)
                assert (rollout.state, rollout.phase) == (State.OPEN, phase)
                if gate.way is not Way.READ_ONLY:
                    serving.wait(lambda: serving.model(model.name)["registry_stale"], "it says so")
                gate.way = Way.OPEN
                serving.wait(lambda: not serving.model(model.name)["registry_stale"], "it is fresh again")
                assert (model.aliases(), serving.infer(model.name).version) == ({"champion": "1"}, "1")
            outcome = promote_here(promotions, model, gate, {})
        assert outcome.verdict is Verdict.PROMOTED, outcome.reason
        promotions.assert_promoted(model, "2")
    assert promotions.champion_moves(model) == [("1", "2")]
    assert failed(traffic.samples) == []
    assert wrong(traffic.samples, model.constants) == []


@pytest.mark.fault("F1", "F2")
def test_work_goes_on_when_prefect_or_mlflow_come_back(promotions: Promotions) -> None:
    """Prefect dead: asked for, recorded, rolled back all the same; MLflow dead: the run says so. Then both
    are back, and what was asked for is promoted without a person."""
    prefect = promotions.prefect
    model, serving = promotions.serve("onnx:1", "onnx:2", "onnx:3")
    model.point("2")
    serving.wait_for(model.name, "2")
    with Traffic(serving.url, model.name, rate_per_second=20) as traffic:
        for part in ("worker", "prefect"):
            prefect.kill_part(part)
        asked = promotions.signalbox("promote", model.name, "3")
        assert asked.returncode == 0, asked.stderr
        assert "the rollout is recorded and starts when Prefect is back" in asked.stderr
        assert [rollout.state for rollout in promotions.rollouts(model)] == [State.OPEN]
        serving.roll_back(model.name, strategy="emergency", reason="wrong sums")
        serving.wait_for(model.name, "1")

        for part in ("prefect", "worker"):
            prefect.start_part(part)
        promotions.registry.server.stop()
        tended = promotions.ended(promotions.run("reconcile")["id"])
        assert (tended["state_type"], tended["state_name"]) == ("FAILED", "Unavailable")
        assert "did not answer" in tended["state"]["message"]
        serving.wait(lambda: serving.model(model.name)["registry_stale"], "serving says so too")

        promotions.registry.server.start()
        serving.wait(lambda: model.aliases()["champion"] == "1", "the rollback reached the registry", 45)
        promotions.age(promotions.rollouts(model)[0], minutes=2)
        promotions.reconcile()
        promotions.assert_promoted(model, "3")
        serving.wait_for(model.name, "3")
    assert failed(traffic.samples) == []
    assert wrong(traffic.samples, model.constants) == []
