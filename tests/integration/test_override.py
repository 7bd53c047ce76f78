"""A rollback acts before the registry does, and holds until the registry or a person says otherwise."""

import json

import pytest

from serving.store import overrides
from tests.integration.conftest import StartServing
from tests.mlflow_gate import MlflowGate, Way
from tests.mlflow_registry import MlflowRegistry
from tests.serving_process import ServingProcess
from tests.traffic import Traffic, failed, wrong
from tests.waiting import holds, until

pytestmark = [pytest.mark.integration, pytest.mark.fault("F24")]

REGISTRY_SECONDS = 45.0


def laid(serving: ServingProcess) -> list[str]:
    """The versions that this replica's own durable overrides keep from answering."""
    file = serving.home / "serving" / "overrides.json"
    entries = json.loads(file.read_text())["overrides"] if file.exists() else []
    return [entry["not_version"] for entry in entries]


def assert_settled(serving: ServingProcess) -> None:
    """The registry has caught up: no override is left, neither on the disk nor in the store."""
    serving.wait(lambda: laid(serving) == [], "the local override ends")
    with serving.store() as engine:
        serving.wait(lambda: overrides.active(engine) == [], "the stored override ends")
    serving.assert_nothing_lost()


def test_rollback_holds_when_serving_restarts_before_the_registry_heard_of_it(
    registry: MlflowRegistry, start_serving: StartServing
) -> None:
    """MLflow down, rolled back, killed, back: still the old version; then the registry is put right,
    and a later promotion by a person counts again."""
    model = registry.model("onnx:1", "onnx:2", prefix="override")
    model.point("1")
    serving = start_serving(model.name)
    model.point("2")
    serving.wait_for(model.name, "2")
    registry.server.stop()
    rollback = serving.roll_back(model.name, strategy="emergency", reason="wrong answers")
    assert (rollback["from"], rollback["to"]) == ("2", "1")
    assert serving.infer(model.name).version == "1"
    for _ in range(2):
        serving.kill()
        serving.start_ready()
        assert serving.infer(model.name).version == "1"
    assert laid(serving) == ["2"]

    registry.server.start()
    until(lambda: model.aliases()["champion"] == "1", "alias moved back", seconds=REGISTRY_SECONDS)
    assert_settled(serving)
    holds(lambda: serving.infer(model.name).version == "1", "version 1 answers", seconds=1)
    [written] = [
        e for e in serving.audited("alias", model.name) if e.details.get("reason") == "wrong answers"
    ][:1]
    assert written.actor == "admin"

    model.point("2")
    serving.wait_for(model.name, "2")
    holds(lambda: serving.infer(model.name).version == "2", "the person's choice stays", seconds=1.5)
    assert model.aliases()["champion"] == "2"
    serving.assert_nothing_lost()


def test_ejection_holds_when_serving_restarts_before_the_registry_heard_of_it(
    registry: MlflowRegistry, start_serving: StartServing
) -> None:
    """A champion that fails on traffic while MLflow is down is left by itself, also after a kill."""
    model = registry.model("onnx:1", "raises", prefix="override")
    model.point("1")
    serving = start_serving(model.name)
    model.point("2")
    serving.wait_for(model.name, "2")
    registry.server.stop()
    with Traffic(serving.url, model.name, rate_per_second=20, x=-1.0) as traffic:
        serving.wait(lambda: laid(serving) == ["2"], "the failing champion is left")
        serving.wait_for(model.name, "1")
    assert failed(traffic.samples) == []
    assert wrong(traffic.samples, model.constants) == []
    serving.kill()
    serving.start_ready()
    assert serving.infer(model.name, x=-1.0).version == "1"

    registry.server.start()
    until(lambda: model.aliases()["champion"] == "1", "alias moved back", seconds=REGISTRY_SECONDS)
    assert_settled(serving)
    assert model.aliases().get("previous") != "2"


def test_persons_choice_wins_when_made_before_serving_came_back(
    registry: MlflowRegistry, start_serving: StartServing
) -> None:
    """Rolled back from 2 to 1, killed; meanwhile somebody chose 3: 3 answers and the alias stays."""
    model = registry.model("onnx:1", "onnx:2", "onnx:3", prefix="override")
    model.point("1")
    with MlflowGate(registry.server.url) as gate:
        serving = start_serving(model.name, mlflow_url=gate.url)
        model.point("2")
        serving.wait_for(model.name, "2")
        gate.way = Way.ERROR
        serving.roll_back(model.name)
        serving.kill()
        model.point("3")
        serving.start_ready()
        assert serving.infer(model.name).version == "1", "what the registry says now is not known yet"
        gate.way = Way.OPEN
        serving.wait_for(model.name, "3")
        assert_settled(serving)
        holds(lambda: model.aliases()["champion"] == "3", "alias names 3", seconds=1.5)
        assert serving.infer(model.name).version == "3"


def test_rollback_holds_over_polls_when_the_registry_takes_no_writes(
    registry: MlflowRegistry, start_serving: StartServing
) -> None:
    """Each poll names the bad version; nobody is answered by it, nor by a replica that joins meanwhile."""
    model = registry.model("onnx:1", "onnx:2", prefix="override")
    model.point("1")
    with MlflowGate(registry.server.url) as gate:
        serving = start_serving(model.name, mlflow_url=gate.url)
        model.point("2")
        serving.wait_for(model.name, "2")
        gate.way = Way.READ_ONLY
        told = serving.roll_back(model.name)
        holds(lambda: serving.infer(model.name).version == "1", "version 1 answers", seconds=2)
        assert model.aliases()["champion"] == "2"
        assert serving.get(told["status_url"])["registry"] == "pending"
        serving.kill()
        serving.start_ready()
        joins = start_serving(model.name, mlflow_url=gate.url, store_url=serving.store_url)
        for each in (serving, joins):
            holds(lambda e=each: e.infer(model.name).version == "1", "version 1 answers", seconds=1)  # type: ignore[misc]
        gate.way = Way.OPEN
        until(lambda: model.aliases()["champion"] == "1", "alias moved back", seconds=REGISTRY_SECONDS)
        assert_settled(serving)


def test_rollback_reaches_the_other_replica_when_mlflow_is_down(
    registry: MlflowRegistry, start_serving: StartServing
) -> None:
    """Replicas share overrides through the store; MLflow is not needed for that."""
    model = registry.model("onnx:1", "onnx:2", prefix="override")
    model.point("1")
    with MlflowGate(registry.server.url) as gate:
        serving = start_serving(model.name, mlflow_url=gate.url)
        replica = start_serving(model.name, mlflow_url=gate.url, store_url=serving.store_url)
        model.point("2")
        for each in (serving, replica):
            each.wait_for(model.name, "2")
        gate.way = Way.ERROR
        serving.roll_back(model.name, strategy="emergency")
        replica.wait_for(model.name, "1", seconds=10)
        gate.way = Way.OPEN
        until(lambda: model.aliases()["champion"] == "1", "alias moved back", seconds=REGISTRY_SECONDS)
        assert_settled(serving)
        for each in (serving, replica):
            assert each.infer(model.name).version == "1"
