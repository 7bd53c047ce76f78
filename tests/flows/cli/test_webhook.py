"""The webhook's registration, against a real MLflow server and a receiver."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from flows.cli.home import prepare
from flows.cli.webhook import register_webhook
from tests.flows.answers import Asked, answering
from tests.flows.conftest import SettingsFactory
from tests.mlflow_server import MlflowServer, free_port


@pytest.fixture
def registry_url(mlflow_server: MlflowServer) -> Iterator[str]:
    """A registry left without webhooks: deliveries to receivers that are gone hold up everybody else's."""
    yield mlflow_server.url
    calls = f"{mlflow_server.url}/api/2.0/mlflow/webhooks"
    with httpx.Client(trust_env=False) as client:
        for webhook in client.get(calls, params={"max_results": 100}).json().get("webhooks", []):
            client.delete(f"{calls}/{webhook['webhook_id']}").raise_for_status()


def webhooks_at(mlflow_url: str, target: str) -> list[dict[str, Any]]:
    with httpx.Client(trust_env=False) as client:
        listed = client.get(f"{mlflow_url}/api/2.0/mlflow/webhooks", params={"max_results": 100}).json()
    return [webhook for webhook in listed.get("webhooks", []) if webhook["url"] == target]


@pytest.mark.integration
def test_webhook_is_one_when_registered_twice(make_settings: SettingsFactory, registry_url: str) -> None:
    """It is found again by its URL, listens to both alias events, and its test delivery arrives signed."""
    with answering(lambda _: (200, {})) as receiver:
        settings = make_settings(mlflow_url=registry_url, serving_url=receiver.url)
        prepare(settings)
        assert register_webhook(settings) == ""
        assert register_webhook(settings) == ""
    found = webhooks_at(registry_url, f"{receiver.url}/api/v2/webhooks/mlflow")
    assert len(found) == 1
    assert found[0]["status"] == "ACTIVE"
    assert {event["action"] for event in found[0]["events"]} == {"CREATED", "DELETED"}
    delivered = receiver.asked[-1]
    assert delivered.body["entity"] == "model_version_alias"
    assert delivered.headers["X-MLflow-Signature"].startswith("v1,")


@pytest.mark.integration
def test_webhook_reports_why_when_delivery_fails(make_settings: SettingsFactory, registry_url: str) -> None:
    """A receiver that refuses or is not there is a reason, not an error."""
    with answering(lambda _: (401, {})) as receiver:
        settings = make_settings(mlflow_url=registry_url, serving_url=receiver.url)
        prepare(settings)
        assert "401" in register_webhook(settings)
    away = make_settings(mlflow_url=registry_url, serving_url=f"http://127.0.0.1:{free_port()}")
    assert "test delivery" in register_webhook(away)


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        pytest.param(400, {"message": "Invalid webhook URL scheme"}, "Invalid webhook URL", id="refused"),
        pytest.param(404, "nothing here", "404", id="no webhooks there"),
        pytest.param(200, "<html>", "", id="not JSON"),
    ],
)
def test_webhook_reports_why_when_mlflow_refuses(
    make_settings: SettingsFactory, status: int, body: Any, words: str
) -> None:
    """Whatever the registry answers, `up` goes on with a reason."""

    def respond(_: Asked) -> tuple[int, Any]:
        return status, body

    with answering(respond) as mlflow:
        settings = make_settings(mlflow_url=mlflow.url)
        prepare(settings)
        problem = register_webhook(settings)
    assert problem
    assert words in problem


def test_webhook_is_not_sent_when_serving_is_out_of_reach(make_settings: SettingsFactory) -> None:
    """A loopback address means another machine to a remote MLflow."""
    problem = register_webhook(make_settings(mlflow_url="http://mlflow.example:5000"))
    assert "cannot be reached" in problem
