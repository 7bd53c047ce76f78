"""The split under live traffic: counted, sticky, durable; callers do not notice that a challenger fails."""

import json
from collections import Counter

import httpx
import pytest

from serving.core.traffic import goes_to_challenger
from serving.store import overrides
from tests.integration.conftest import StartServing
from tests.mlflow_registry import MlflowRegistry, RegisteredModel
from tests.serving_process import ServingProcess, request_body
from tests.traffic import Traffic, failed, wrong
from tests.waiting import holds, until

pytestmark = pytest.mark.integration

TAG = "signalbox.traffic"
KEYS = [f"user-{n}" for n in range(60)]
REGISTRY_SECONDS = 45.0


def split(model: RegisteredModel, percent: int) -> None:
    model.tag(TAG, json.dumps({"challenger": "2", "percent": percent, "rollout": "r-1"}))


def state(serving: ServingProcess, model: RegisteredModel) -> dict[str, object]:
    return serving.get(f"/api/v2/traffic/{model.name}")


def has_percent(serving: ServingProcess, model: RegisteredModel, percent: int) -> None:
    serving.wait(lambda: state(serving, model)["percent"] == percent, f"{percent} % are applied")


def versions_by_key(serving: ServingProcess, model: RegisteredModel) -> list[str | None]:
    """The version that each key meets."""
    with httpx.Client(trust_env=False, timeout=15.0) as client:
        return [
            client.post(
                f"{serving.url}/v2/models/{model.name}/infer",
                json=request_body(0.5),
                headers={"X-Request-Key": key},
            ).headers.get("x-model-version")
            for key in KEYS
        ]


def expected(model: RegisteredModel, percent: int) -> list[str]:
    return ["2" if goes_to_challenger(model.name, key, percent) else "1" for key in KEYS]


@pytest.mark.fault("F5")
def test_quarter_of_live_traffic_is_the_challengers_also_after_a_kill_without_mlflow(
    registry: MlflowRegistry, start_serving: StartServing
) -> None:
    """Counted within four standard deviations; each user stays with one version, and nested upwards."""
    model = registry.model("onnx:1", "onnx:2", prefix="split")
    model.point("1")
    model.point("2", "challenger")
    split(model, 25)
    serving = start_serving(model.name)
    has_percent(serving, model, 25)
    with Traffic(serving.url, model.name, rate_per_second=40) as traffic:
        serving.wait(lambda: len(traffic.samples) >= 320, "enough answers", seconds=60)
    assert failed(traffic.samples) == []
    assert wrong(traffic.samples, model.constants) == []
    counted = Counter(sample.variant for sample in traffic.samples)
    total = sum(counted.values())
    assert set(counted) == {"champion", "challenger"}
    assert abs(counted["challenger"] / total - 0.25) < 4 * (0.25 * 0.75 / total) ** 0.5
    assert versions_by_key(serving, model) == expected(model, 25)

    registry.server.stop()
    serving.kill()
    serving.start_ready()
    assert state(serving, model) == {
        "model": model.name,
        "champion": "1",
        "challenger": "2",
        "percent": 25,
        "rollout": "r-1",
    }
    assert versions_by_key(serving, model) == expected(model, 25)

    registry.server.start()
    split(model, 50)
    has_percent(serving, model, 50)
    assert versions_by_key(serving, model) == expected(model, 50)
    answer = serving.call("PUT", f"/api/v2/traffic/{model.name}", json={"percent": 0})
    assert (answer.status_code, answer.json()["percent"]) == (200, 0)
    assert json.loads(model.tags()[TAG]) == {"challenger": "2", "percent": 0, "rollout": None}
    assert set(versions_by_key(serving, model)) == {"1"}
    serving.assert_nothing_lost()


def test_change_is_met_by_every_worker_once_it_is_answered(
    registry: MlflowRegistry, start_serving: StartServing
) -> None:
    """Each key asks over a connection of its own, so that the kernel spreads them; then the challenger
    fails, and no worker sends anybody to it any more."""
    model = registry.model("onnx:1", "raises", prefix="split")
    model.point("1")
    model.point("2", "challenger")
    serving = start_serving(model.name, workers=2)
    serving.wait_for(model.name, "2", address="challenger")
    for percent in (100, 25, 50):
        answer = serving.call("PUT", f"/api/v2/traffic/{model.name}", json={"percent": percent})
        assert (answer.status_code, answer.json()["percent"]) == (200, percent)
        assert versions_by_connection(serving, model) == expected(model, percent)
    with Traffic(serving.url, model.name, rate_per_second=30, x=-1.0) as traffic:
        serving.wait(lambda: "challenger" not in model.aliases(), "the challenger is ejected", seconds=30)
        serving.wait(
            lambda: {s.variant for s in traffic.samples[-60:]} == {"champion"}, "nobody meets it", seconds=30
        )
    assert failed(traffic.samples) == []
    assert set(versions_by_connection(serving, model)) == {"1"}
    serving.assert_nothing_lost()


def versions_by_connection(serving: ServingProcess, model: RegisteredModel) -> list[str | None]:
    return [
        httpx.post(
            f"{serving.url}/v2/models/{model.name}/infer",
            json=request_body(0.5),
            headers={"X-Request-Key": key},
            trust_env=False,
            timeout=15.0,
        ).headers.get("x-model-version")
        for key in KEYS
    ]


def laid(serving: ServingProcess) -> list[tuple[str, str]]:
    """Role and version of this replica's own durable overrides."""
    file = serving.home / "serving" / "overrides.json"
    entries = json.loads(file.read_text())["overrides"] if file.exists() else []
    return [(entry["role"], entry["not_version"]) for entry in entries]


@pytest.mark.fault("F13", "F24")
def test_failing_challenger_is_ejected_under_traffic_and_stays_away_over_a_kill(
    registry: MlflowRegistry, start_serving: StartServing
) -> None:
    """With MLflow down: no caller fails, the restarted server and a replica that joins keep to it, and
    the registry is put right when it is back."""
    model = registry.model("onnx:1", "raises", prefix="split")
    model.point("1")
    model.point("2", "challenger")
    split(model, 50)
    serving = start_serving(model.name)
    has_percent(serving, model, 50)
    replica = start_serving(model.name, store_url=serving.store_url)
    has_percent(replica, model, 50)
    registry.server.stop()
    with Traffic(serving.url, model.name, rate_per_second=30, x=-1.0) as traffic:
        serving.wait(lambda: laid(serving) == [("challenger", "2")], "the challenger is ejected")
        has_percent(serving, model, 0)
        before = len(traffic.samples)
        serving.wait(lambda: len(traffic.samples) >= before + 30, "answers after the ejection")
    assert failed(traffic.samples) == []
    assert wrong(traffic.samples, model.constants) == []
    variants = Counter(sample.variant for sample in traffic.samples)
    assert variants["fallback"] >= 4
    assert {sample.variant for sample in traffic.samples[-20:]} == {"champion"}
    replica.wait(lambda: state(replica, model)["percent"] == 0, "the other replica follows")

    serving.kill()
    serving.start_ready()
    assert (state(serving, model)["challenger"], laid(serving)) == (None, [("challenger", "2")])
    assert set(versions_by_key(serving, model)) == {"1"}

    registry.server.start()
    until(lambda: "challenger" not in model.aliases(), "alias deleted", seconds=REGISTRY_SECONDS)
    assert TAG not in model.tags()
    serving.wait(lambda: laid(serving) == [], "the local override ends")
    with serving.store() as engine:
        serving.wait(lambda: overrides.active(engine) == [], "the stored override ends")
    for each in (serving, replica):
        holds(lambda e=each: set(versions_by_key(e, model)) == {"1"}, "champion answers", seconds=1)  # type: ignore[misc]
    assert [notice.version for notice in serving.notices("challenger_ejected", model.name)] == ["2"]
    serving.assert_nothing_lost()
