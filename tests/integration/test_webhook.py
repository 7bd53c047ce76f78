"""Webhooks only save waiting: lost, repeated, mixed up or forged, they never change what is served."""

import base64
import hashlib
import hmac
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from time import monotonic, time
from uuid import uuid4

import pytest

from tests.integration.conftest import StartServing
from tests.mlflow_registry import MlflowRegistry, RegisteredModel
from tests.serving_process import ServingProcess
from tests.waiting import holds, until

pytestmark = [pytest.mark.integration, pytest.mark.fault("F10")]

SECRET = "a secret of MLflow and serving"
RARE_POLL_SECONDS = 30
PATH = "/api/v2/webhooks/mlflow"


@dataclass(frozen=True, slots=True)
class Delivery:
    """A delivery as MLflow makes it; signing happens when it is sent."""

    model: str
    version: str
    id: str = field(default_factory=lambda: uuid4().hex)
    timestamp: int = field(default_factory=lambda: int(time()))

    @property
    def body(self) -> bytes:
        payload = {"name": self.model, "alias": "champion", "version": self.version}
        return json.dumps({"entity": "model_version_alias", "action": "created", "data": payload}).encode()

    def signature(self, secret: str) -> str:
        told = f"{self.id}.{self.timestamp}.".encode() + self.body
        return "v1," + base64.b64encode(hmac.new(secret.encode(), told, hashlib.sha256).digest()).decode()


def deliver(
    serving: ServingProcess, delivery: Delivery, *, secret: str = SECRET, **replaced: str | None
) -> int:
    """The status of a delivery; `replaced` overwrites headers, None leaves one out."""
    headers = {
        "x-mlflow-delivery-id": delivery.id,
        "x-mlflow-timestamp": str(delivery.timestamp),
        "x-mlflow-signature": delivery.signature(secret),
    }
    for name, value in replaced.items():
        headers["x-mlflow-" + name.replace("_", "-")] = value or ""
    return serving.call("POST", PATH, content=delivery.body, headers=headers).status_code


@pytest.fixture
def model(registry: MlflowRegistry) -> RegisteredModel:
    model = registry.model("onnx:1", "onnx:2", "onnx:3", prefix="hook")
    model.point("1")
    return model


@pytest.fixture
def rare_poll(start_serving: StartServing, model: RegisteredModel) -> ServingProcess:
    """A replica that hardly ever looks by itself."""
    serving = start_serving(model.name, poll_seconds=RARE_POLL_SECONDS)
    (serving.home / "webhook.secret").write_text(SECRET)
    serving.wait_for(model.name, "1")
    return serving


@pytest.fixture
def mlflow_delivers(registry: MlflowRegistry, rare_poll: ServingProcess) -> Iterator[None]:
    """MLflow itself has the replica's webhook."""
    events = [{"entity": "MODEL_VERSION_ALIAS", "action": action} for action in ("CREATED", "DELETED")]
    wanted = {"name": "replica", "url": rare_poll.url + PATH, "secret": SECRET, "events": events}
    created = registry.post("webhooks", {**wanted, "status": "ACTIVE"})
    # MLflow looks at its list of webhooks anew only when that is a second old.
    known_at = monotonic() + 1.5
    until(lambda: monotonic() >= known_at, what="MLflow knows its new webhook")
    yield
    registry.call("DELETE", f"webhooks/{created['webhook']['webhook_id']}")


def test_poll_corrects_when_every_delivery_is_lost(
    start_serving: StartServing, model: RegisteredModel
) -> None:
    """Without any webhook the default poll follows within seconds."""
    serving = start_serving(model.name, poll_seconds=1)
    model.point("2")
    assert serving.wait_for(model.name, "2") < 5
    serving.assert_nothing_lost()


@pytest.mark.usefixtures("mlflow_delivers")
def test_delivery_wakes_serving_when_mlflow_sends_it(
    rare_poll: ServingProcess, model: RegisteredModel
) -> None:
    """MLflow's own deliveries bring each move to the answers long before the poll would."""
    took = []
    for version in ("2", "3", "1"):
        began = monotonic()
        model.point(version)
        rare_poll.wait_for(model.name, version)
        took.append(monotonic() - began)
    assert max(took) < RARE_POLL_SECONDS / 6, took
    rare_poll.assert_nothing_lost()


def test_delivery_is_refused_when_repeated(rare_poll: ServingProcess, model: RegisteredModel) -> None:
    """The first is taken and wakes serving; the same again, or replayed later, is 401 and changes nothing."""
    model.point("2")
    delivery = Delivery(model.name, "2")
    assert deliver(rare_poll, delivery) == 204
    rare_poll.wait_for(model.name, "2", seconds=5)
    assert [deliver(rare_poll, delivery) for _ in range(3)] == [401, 401, 401]
    assert rare_poll.infer(model.name).version == "2"
    rare_poll.assert_nothing_lost()


def test_registry_decides_when_deliveries_arrive_in_the_wrong_order(
    rare_poll: ServingProcess, model: RegisteredModel
) -> None:
    """What a delivery says is not believed: the news of 2 after the news of 3 leaves 3 answering."""
    earlier = Delivery(model.name, "2")
    model.point("2")
    model.point("3")
    assert deliver(rare_poll, Delivery(model.name, "3")) == 204
    rare_poll.wait_for(model.name, "3", seconds=5)
    assert deliver(rare_poll, earlier) == 204
    holds(lambda: rare_poll.infer(model.name).version == "3", "version 3 answers", seconds=1.5)
    rare_poll.assert_nothing_lost()


def test_delivery_is_refused_when_forged(rare_poll: ServingProcess, model: RegisteredModel) -> None:
    """A wrong key, another body, no signature, an odd timestamp: 401, and serving does not even look."""
    model.point("2")
    forged, old = Delivery(model.name, "2"), Delivery(model.name, "2", timestamp=int(time()) - 3600)
    other_body = Delivery(model.name, "3", id=forged.id, timestamp=forged.timestamp)
    statuses = {
        "wrong key": deliver(rare_poll, forged, secret="guessed"),
        "other body": deliver(rare_poll, forged, signature=other_body.signature(SECRET)),
        "other id": deliver(rare_poll, forged, delivery_id=uuid4().hex),
        "no signature": deliver(rare_poll, forged, signature=None),
        "replayed an hour later": deliver(rare_poll, old),
        "old, with a new timestamp": deliver(rare_poll, old, timestamp=str(int(time()))),
        "odd timestamp": deliver(rare_poll, forged, timestamp="now"),
    }
    assert set(statuses.values()) == {401}, statuses
    holds(lambda: rare_poll.infer(model.name).version == "1", "version 1 answers", seconds=1.5)
    assert deliver(rare_poll, forged) == 204, "the genuine one must still be taken"
    rare_poll.wait_for(model.name, "2", seconds=5)
    rare_poll.assert_nothing_lost()


def test_delivery_is_refused_when_no_secret_is_configured(
    rare_poll: ServingProcess, model: RegisteredModel
) -> None:
    """A server without a secret takes nobody's word, and says what it lacks."""
    (rare_poll.home / "webhook.secret").unlink()
    response = rare_poll.call("POST", PATH, content=b"{}")
    assert response.status_code == 401
    assert "no webhook secret" in response.json()["error"]
    rare_poll.assert_nothing_lost()
