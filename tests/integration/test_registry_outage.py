"""MLflow away, closed to us or talking nonsense: serving keeps its last good state, and says so."""

import pytest

from tests.integration.conftest import StartServing
from tests.mlflow_gate import MlflowGate, Way
from tests.mlflow_registry import MlflowRegistry
from tests.serving_process import ServingProcess
from tests.traffic import Traffic, failed, wrong

pytestmark = [pytest.mark.integration, pytest.mark.fault("F1")]

SENTENCES = {
    Way.UNAUTHORIZED: "refused the credentials",
    Way.ERROR: "answered 500",
    Way.HTML: "not its registry API",
    Way.OTHER_JSON: "not its registry API",
    Way.SLOW: "did not answer",
}


def stale(serving: ServingProcess, model: str) -> str:
    return serving.model(model)["registry_stale"] or ""


def operational(serving: ServingProcess, model: str) -> str:
    [report] = serving.get(f"/api/v2/model-health?model={model}")["models"]
    level = report["levels"]["operational"]
    return str(level["status"]) if "registry_stale" in level["message"] else "not told"


def test_serving_answers_on_when_mlflow_fails_in_every_way(
    registry: MlflowRegistry, start_serving: StartServing
) -> None:
    """No request fails, each way is told in its own words, and a move made meanwhile is followed after."""
    model = registry.model("onnx:1", "onnx:2", prefix="outage")
    model.point("1")
    with MlflowGate(registry.server.url) as gate:
        serving = start_serving(model.name, mlflow_url=gate.url)
        with Traffic(serving.url, model.name, rate_per_second=50) as traffic:
            for number, (way, sentence) in enumerate(SENTENCES.items()):
                gate.way = way
                serving.wait(lambda s=sentence: s in stale(serving, model.name), f"told: {sentence}")  # type: ignore[misc]
                serving.wait(lambda: operational(serving, model.name) == "warning", "health says so")
                assert "registry_stale 1.0" in serving.call("GET", "/metrics").text
                version = "2" if number % 2 == 0 else "1"
                model.point(version)
                gate.way = Way.OPEN
                serving.wait_for(model.name, version)
                serving.wait(lambda: not stale(serving, model.name), "it is fresh again")
    assert failed(traffic.samples) == []
    assert wrong(traffic.samples, model.constants) == []
    serving.assert_nothing_lost()


def test_serving_follows_again_when_mlflow_was_killed_and_came_back(
    registry: MlflowRegistry, start_serving: StartServing
) -> None:
    """`kill -9` of the real server under load: 0 failed, and the next move arrives without a restart."""
    model = registry.model("onnx:1", "onnx:2", prefix="outage")
    model.point("1")
    serving = start_serving(model.name)
    with Traffic(serving.url, model.name, rate_per_second=50) as traffic:
        registry.server.stop()
        serving.wait(lambda: "did not answer" in stale(serving, model.name), "it is shown as stale")
        registry.server.start()
        model.point("2")
        serving.wait_for(model.name, "2")
    assert failed(traffic.samples) == []
    assert wrong(traffic.samples, model.constants) == []
    assert stale(serving, model.name) == ""
    serving.assert_nothing_lost()


def test_serving_waits_and_says_why_when_mlflow_refuses_it_from_the_start(
    registry: MlflowRegistry, start_serving: StartServing
) -> None:
    """Not ready, alive, and telling what to set; ready by itself once it is let in."""
    model = registry.model("onnx:1", prefix="outage")
    model.point("1")
    with MlflowGate(registry.server.url) as gate:
        serving = start_serving(model.name, mlflow_url=gate.url)
        serving.kill()
        (serving.home / "serving" / "served.json").unlink()
        gate.way = Way.UNAUTHORIZED
        serving.start()
        serving.wait(lambda: "SIGNALBOX_MLFLOW_USERNAME" in _waiting_for(serving), "it says what to set", 60)
        assert serving.get("/v2/health/live") == {"live": True}
        assert serving.infer(model.name).status == 404
        gate.way = Way.OPEN
        serving.wait_ready()
        assert serving.infer(model.name).version == "1"
        serving.assert_nothing_lost()


def _waiting_for(serving: ServingProcess) -> str:
    if not serving.is_listening():
        return ""
    answer = serving.call("GET", "/v2/health/ready")
    return " ".join(answer.json().get("waiting_for", []))
