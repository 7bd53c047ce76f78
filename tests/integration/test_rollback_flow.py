"""Flow `roll-back-model` as a real Prefect worker runs it: by stages under traffic, told in Prefect too."""

from collections.abc import Iterator

import httpx
import pytest

from serving.store import audit
from tests.integration.conftest import StartServing
from tests.integration.promotions import PROMOTION_SECONDS, Promotions, promoting
from tests.mlflow_registry import MlflowRegistry
from tests.prefect_server import PrefectServer
from tests.traffic import Traffic, failed, wrong
from tests.waiting import until

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def promotions(
    registry: MlflowRegistry, prefect_server: PrefectServer, start_serving: StartServing
) -> Iterator[Promotions]:
    with promoting(registry, prefect_server, start_serving) as promotions:
        yield promotions


def test_gradual_rollback_is_carried_out_by_a_worker(promotions: Promotions) -> None:
    """Asked for over the API: 202, a run of the flow, the old version everywhere, no answer lost."""
    model, serving = promotions.serve("onnx:1", "onnx:2")
    serving.wait_for(model.name, "1")
    model.point("2")
    serving.wait_for(model.name, "2")
    until(lambda: model.aliases().get("previous") == "1", "previous is written", seconds=30)
    wish = {"model": model.name, "strategy": "gradual", "stages": [50], "stage_seconds": 1, "reason": "odd"}
    with Traffic(serving.url, model.name, rate_per_second=20) as traffic:
        accepted = serving.call("POST", "/api/v2/rollback", json=wish)
        assert accepted.status_code == httpx.codes.ACCEPTED, accepted.text
        told = accepted.json()
        assert (told["from"], told["to"]) == ("2", "1")
        until(
            lambda: serving.get(told["status_url"])["success"] is not None,
            "the rollback ended",
            seconds=PROMOTION_SECONDS,
            context=promotions.prefect.explain,
        )
    status = serving.get(told["status_url"])
    assert (status["state"], status["success"]) == ("completed", True), status["message"]
    assert (failed(traffic.samples), wrong(traffic.samples, model.constants)) == ([], [])
    assert model.aliases()["champion"] == "1"
    assert "challenger" not in model.aliases()
    run = promotions.prefect.ended("roll-back-model", rollback_id=told["rollback_id"])
    assert (run["state_type"], run["state_name"]) == ("COMPLETED", "Completed")
    artifacts = promotions.prefect.artifacts(f"rollback-{model.name}")
    assert told["rollback_id"] in artifacts[0]["data"]
    assert audit.verify(promotions.engine).verdict is audit.Verdict.INTACT
