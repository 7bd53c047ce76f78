"""The ways back through real MLflow and serving: by stages, to a restore point, over a restart, refused."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from flows.restorability import points_checked
from flows.roll_back import parts_of
from flows.rollout.retreating import Outcome, work
from flows.settings import FlowSettings
from flows.wiring import Wiring, wired
from serving.store import freezes, outbox, restore_points, rollbacks, rollouts
from serving.store.rollbacks import State
from tests.integration.conftest import StartServing
from tests.mlflow_registry import MlflowRegistry, RegisteredModel
from tests.serving_process import ServingProcess
from tests.traffic import Traffic, failed, wrong
from tests.waiting import until

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@contextmanager
def desk(serving: ServingProcess, model: RegisteredModel) -> Iterator[Wiring]:
    """What a flow beside this server works with."""
    settings = FlowSettings(
        home=serving.home,
        mlflow_url=serving.mlflow_url,
        serving_url=serving.url,
        store_url=serving.store_url,
        models=model.name,
    )
    with wired(settings) as wiring:
        yield wiring


def carried_on(serving: ServingProcess, model: RegisteredModel) -> Outcome:
    """What the flow does once Prefect has a worker for it."""
    with desk(serving, model) as wiring:
        [record] = rollbacks.under_way(wiring.engine)
        return work(record, parts_of(wiring), wiring.leases, "rollback:test", lambda _: None)


def two_versions(
    registry: MlflowRegistry, start_serving: StartServing
) -> tuple[RegisteredModel, ServingProcess]:
    """Version 2 answers, 1 did before."""
    model = registry.model("onnx:1", "onnx:2", prefix="way-back")
    model.point("1")
    serving = start_serving(model.name, probe_seconds=0.5)
    serving.wait_for(model.name, "1")
    model.point("2")
    serving.wait_for(model.name, "2")
    until(lambda: model.aliases().get("previous") == "1", "previous is written", seconds=20)
    return model, serving


def test_gradual_rollback_loses_no_request_and_waits_for_prefect(
    registry: MlflowRegistry, start_serving: StartServing
) -> None:
    """Prefect away: 503 that says what works, and the rollback on record; then by stages under traffic."""
    model, serving = two_versions(registry, start_serving)
    wish = {"model": model.name, "strategy": "gradual", "stages": [60, 20], "stage_seconds": 2}
    answer = serving.call("POST", "/api/v2/rollback", json=wish)
    assert answer.status_code == httpx.codes.SERVICE_UNAVAILABLE
    told = answer.json()["error"]
    assert "is recorded and begins when Prefect is back" in told
    assert "instant and emergency rollbacks work" in told
    with Traffic(serving.url, model.name, rate_per_second=40) as traffic:
        outcome = carried_on(serving, model)
    assert outcome.record.state is State.COMPLETED, f"{outcome.reason}\n{serving.explain()}"
    assert failed(traffic.samples) == []
    assert wrong(traffic.samples, model.constants) == []
    assert set(outcome.record.evidence) >= {"stage_60", "stage_20", "applied"}
    assert model.aliases()["champion"] == "1"
    assert "challenger" not in model.aliases()
    serving.wait_for(model.name, "1")
    until(lambda: model.aliases().get("previous") != "2", "the version left is not previous", seconds=10)
    status = serving.get(f"/api/v2/rollback/{outcome.record.id}")
    assert (status["state"], status["success"]) == ("completed", True)
    serving.assert_nothing_lost()


def test_instant_rollback_to_a_restore_point_brings_back_all_of_it(
    registry: MlflowRegistry, start_serving: StartServing
) -> None:
    """Traffic at once; shadow and the rest by the flow; the status outlives a kill."""
    model, serving = two_versions(registry, start_serving)
    model.point("1")
    serving.wait_for(model.name, "1")
    model.point("2", "shadow")
    made = serving.call("POST", "/api/v2/restore-points", json={"model": model.name, "reason": "good"})
    assert made.status_code == httpx.codes.CREATED, made.text
    point = made.json()
    assert (point["champion"], point["is_intact"], point["created_by"]) == ("1", True, "admin")
    model.point("2")
    model.unpoint("shadow")
    serving.wait_for(model.name, "2")
    shown = serving.get(f"/api/v2/restore-points/{point['id']}?diff=now")
    changed = {each["path"]: (each["then"], each["now"]) for each in shown["diff"]}
    assert changed["model.aliases.champion"] == ("1", "2")
    taken = serving.roll_back(model.name, restore_point=point["id"])
    assert (taken["from"], taken["to"]) == ("2", "1")
    assert serving.infer(model.name).version == "1"
    serving.wait(lambda: serving.get(taken["status_url"])["registry"] == "settled", "the registry knows")
    outcome = carried_on(serving, model)
    assert outcome.record.state is State.COMPLETED, outcome.reason
    assert model.aliases()["champion"] == "1"
    assert model.aliases()["shadow"] == "2"
    serving.kill()
    serving.start_ready()
    serving.wait(lambda: serving.get(taken["status_url"])["verified"], "every replica proved it")
    status = serving.get(taken["status_url"])
    assert (status["success"], status["restore_point"]) == (True, point["id"])


@pytest.mark.fault("F24")
def test_status_of_an_emergency_outlives_a_restart_without_the_registry(
    registry: MlflowRegistry, start_serving: StartServing
) -> None:
    """Neither MLflow nor a worker of Prefect; the override and what is known of it hold over a kill."""
    model, serving = two_versions(registry, start_serving)
    registry.server.stop()
    taken = serving.roll_back(model.name, strategy="emergency", reason="wrong answers")
    serving.kill()
    serving.start_ready()
    assert serving.infer(model.name).version == "1"
    status = serving.get(taken["status_url"])
    assert (status["from"], status["to"], status["registry"]) == ("2", "1", "pending")
    registry.server.start()
    until(lambda: model.aliases()["champion"] == "1", "alias moved back", seconds=45)


@pytest.mark.fault("F22")
def test_restore_point_of_a_deleted_version_is_found_before_it_is_needed(
    registry: MlflowRegistry, start_serving: StartServing
) -> None:
    """Sound at first, by a process that loads it; gone, an alert, and the way there is refused."""
    model, serving = two_versions(registry, start_serving)
    model.point("1")
    serving.wait_for(model.name, "1")
    point = serving.call("POST", "/api/v2/restore-points", json={"model": model.name}).json()
    with desk(serving, model) as wiring:
        [found] = points_checked(wiring)
        assert "is restorable: answered" in found
        assert list(points_checked(wiring)) == []
        model.point("2")
        serving.wait_for(model.name, "2")
        registry.call("DELETE", "model-versions/delete", {"name": model.name, "version": "1"})
        [lost] = points_checked(wiring)
        assert "is unusable: version 1 was deleted from the registry" in lost
        assert list(points_checked(wiring)) == []
        kinds = [row.notice.kind for row in outbox.recent(wiring.engine, 50)]
        assert kinds.count("restore_point_unusable") == 1
        judged = restore_points.get(wiring.engine, point["id"])
        assert judged.verdict is restore_points.Verdict.UNUSABLE
    refused = serving.call(
        "POST", "/api/v2/rollback", json={"model": model.name, "restore_point": point["id"]}
    )
    assert refused.status_code == httpx.codes.CONFLICT
    assert "cannot be restored: version 1 was deleted" in refused.json()["error"]
    assert serving.infer(model.name).version == "2"


@pytest.mark.fault("F8")
def test_promotion_is_refused_over_the_api_when_frozen_or_busy(
    registry: MlflowRegistry, start_serving: StartServing
) -> None:
    """Who froze it, and who promotes, is named; rolling back stays possible; Prefect away is 503."""
    model, serving = two_versions(registry, start_serving)
    third = model.add("onnx:3")
    until_moment = datetime.now(UTC) + timedelta(hours=1)
    frozen = serving.call(
        "POST", "/api/v2/freezes", json={"model": model.name, "until": until_moment.isoformat()}
    )
    assert frozen.status_code == httpx.codes.CREATED, frozen.text
    asked = {"model": model.name, "version": third, "strategy": "direct"}
    refused = serving.call("POST", "/api/v2/update-models", json=asked)
    assert refused.status_code == httpx.codes.CONFLICT
    assert "is frozen by admin until" in refused.json()["error"]
    serving.wait(lambda: serving.model(model.name)["frozen"], "model-info tells of it")
    assert serving.roll_back(model.name)["to"] == "1"
    lifted = serving.call("POST", "/api/v2/freezes", json={"model": model.name, "lift": True})
    assert lifted.status_code == httpx.codes.OK
    recorded = serving.call("POST", "/api/v2/update-models", json=asked)
    assert recorded.status_code == httpx.codes.SERVICE_UNAVAILABLE
    assert "is recorded and begins when Prefect is back" in recorded.json()["error"]
    [rollout] = serving.get(f"/api/v2/rollouts?model={model.name}")["rollouts"]
    assert (rollout["new_version"], rollout["state"], rollout["success"]) == (third, "open", None)
    busy = serving.call("POST", "/api/v2/update-models", json=asked | {"version": "2"})
    assert busy.status_code == httpx.codes.CONFLICT
    assert f"version {third} of '{model.name}' is being promoted by admin" in busy.json()["error"]
    with desk(serving, model) as wiring:
        assert rollouts.get(wiring.engine, rollout["swap_id"]).requested_by == "admin"
        assert freezes.in_force(wiring.engine, wiring.clock.now()) == []
