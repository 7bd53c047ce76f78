"""Serving killed: the others answer on, and it comes back with the same versions without MLflow."""

import json
from time import monotonic

import pytest

from tests.integration.conftest import StartServing
from tests.mlflow_registry import MlflowRegistry
from tests.traffic import Traffic, failed, wrong
from tests.waiting import until

pytestmark = pytest.mark.integration


@pytest.mark.fault("F5")
def test_serving_restores_its_versions_when_killed_under_load_and_mlflow_is_down(
    registry: MlflowRegistry, start_serving: StartServing
) -> None:
    """Same champion, same `previous`, same override as before, from local files alone; right answers only."""
    steady = registry.model("onnx:1", "torch:2", prefix="restart")
    undone = registry.model("torch:1", "onnx:2", prefix="restart")
    steady.point("1")
    undone.point("1")
    serving = start_serving(f"{steady.name},{undone.name}")
    replica = start_serving(steady.name, store_url=serving.store_url)
    steady.point("2")
    undone.point("2")
    for model in (steady, undone):
        serving.wait_for(model.name, "2")
        serving.wait_for(model.name, "1", "previous")
    replica.wait_for(steady.name, "2")

    with (
        Traffic(serving.url, steady.name, rate_per_second=50) as traffic,
        Traffic(replica.url, steady.name, rate_per_second=50) as beside,
    ):
        registry.server.stop()
        serving.roll_back(undone.name, strategy="emergency", allow_signature_change=True)
        assert serving.infer(undone.name).version == "1"
        serving.wait(lambda: traffic.answers_of("2") >= 25, "answers before the kill")
        killed = monotonic()
        serving.kill()
        serving.start_ready()
        back = monotonic()
        assert serving.infer(undone.name).version == "1", "the override must hold"
        assert serving.infer(steady.name, address="previous").version == "1"
        answered = traffic.answers_of("2")
        serving.wait(lambda: traffic.answers_of("2") >= answered + 25, "answers after the restart")
    assert failed(beside.samples) == []
    assert wrong(traffic.samples + beside.samples, steady.constants) == []
    assert {sample.version for sample in traffic.samples if sample.is_answered} == {"2"}
    # A request may have been under way when the process died.
    assert [s for s in failed(traffic.samples) if s.ended < killed or s.started > back] == []

    registry.server.start()
    until(lambda: undone.aliases()["champion"] == "1", "the registry hears of the rollback", seconds=45)
    serving.wait(lambda: serving.model(steady.name)["registry_stale"] is None, "the registry is followed")
    assert steady.aliases()["champion"] == "2"
    serving.assert_nothing_lost()


def test_serving_fetches_again_when_its_cache_was_damaged_while_it_was_down(
    registry: MlflowRegistry, start_serving: StartServing
) -> None:
    """A flipped byte in the local copy is never served: the version is downloaded anew."""
    model = registry.model("onnx:1", prefix="restart")
    model.point("1")
    serving = start_serving(model.name)
    serving.kill()
    [copy] = serving.home.rglob("model.onnx")
    good = copy.read_bytes()
    copy.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    serving.start_ready()
    serving.wait_for(model.name, "1")
    assert serving.infer(model.name).added == 1.0
    assert next(iter(serving.home.rglob("model.onnx"))).read_bytes() == good
    serving.assert_nothing_lost()


def test_serving_refuses_to_start_when_its_record_is_damaged(
    registry: MlflowRegistry, start_serving: StartServing
) -> None:
    """It says which file is damaged and what to do, and does not start from nothing silently."""
    model = registry.model("onnx:1", prefix="restart")
    model.point("1")
    serving = start_serving(model.name)
    serving.kill()
    record = serving.home / "serving" / "served.json"
    assert model.name in json.loads(record.read_text())["models"]
    record.write_text(record.read_text()[:-40])
    with pytest.raises(AssertionError, match=r"served\.json is damaged .*; move the file away"):
        serving.start_ready()
    serving.kill()
    record.unlink()
    serving.start_ready()
    serving.wait_for(model.name, "1")
    serving.assert_nothing_lost()
