"""The MLflow launcher: what it keeps, what it refuses, and that its webhooks reach loopback."""

import base64
import hashlib
import hmac
import queue
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from tests.mlflow_server import LAUNCHER, MlflowServer

SECRET = "a secret of both sides"
MODEL = "launch-test"


@dataclass(frozen=True, slots=True)
class Delivery:
    headers: dict[str, str]
    body: bytes

    def is_signed_with(self, secret: str) -> bool:
        told = f"{self.headers['x-mlflow-delivery-id']}.{self.headers['x-mlflow-timestamp']}.".encode()
        digest = hmac.new(secret.encode(), told + self.body, hashlib.sha256).digest()
        return self.headers["x-mlflow-signature"] == f"v1,{base64.b64encode(digest).decode()}"


@dataclass(frozen=True, slots=True)
class Receiver:
    url: str
    deliveries: queue.Queue[Delivery] = field(default_factory=queue.Queue)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A web server on loopback that keeps what is posted to it."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    receiver = Receiver(f"http://127.0.0.1:{server.server_port}/hook")

    class Receiving(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            receiver.deliveries.put(Delivery(headers, body))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server.RequestHandlerClass = Receiving
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield receiver
    server.shutdown()
    thread.join()
    server.server_close()


def _call(server: MlflowServer, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
    url = f"{server.url}/api/2.0/mlflow/{path}"
    answer = httpx.request(method, url, json=body, trust_env=False).raise_for_status()
    content: dict[str, Any] = answer.json()
    return content


@pytest.mark.parametrize("arguments", [["--colour", "red"], ["--port"], ["serve"]])
def test_launcher_names_the_option_when_it_cannot_use_it(arguments: list[str]) -> None:
    """A wrong call starts nothing and says in one sentence what was wrong."""
    run = subprocess.run([LAUNCHER, *arguments], capture_output=True, text=True, timeout=30, check=False)
    assert run.returncode == 2
    assert run.stderr.startswith("launch: ")
    assert arguments[0] in run.stderr
    assert len(run.stderr.splitlines()) == 1


@pytest.mark.integration
@pytest.mark.slow
def test_webhook_secret_outlives_the_server_when_restarted(
    mlflow_server: MlflowServer, receiver: Receiver
) -> None:
    """A webhook registered before a restart is delivered after it, to plain HTTP on loopback, signed."""
    key = mlflow_server.home / "mlflow" / "webhook.key"
    before = key.read_bytes()
    assert key.stat().st_mode & 0o777 == 0o600
    event = {"entity": "REGISTERED_MODEL", "action": "CREATED"}
    hook = {"name": MODEL, "url": receiver.url, "secret": SECRET, "status": "ACTIVE", "events": [event]}
    created = _call(mlflow_server, "POST", "webhooks", hook)["webhook"]
    mlflow_server.stop()
    mlflow_server.start()
    try:
        _call(mlflow_server, "POST", "registered-models/create", {"name": MODEL})
        delivery = receiver.deliveries.get(timeout=30)
    finally:
        _call(mlflow_server, "DELETE", f"webhooks/{created['webhook_id']}", {})
    assert delivery.is_signed_with(SECRET)
    assert not delivery.is_signed_with("another secret")
    assert key.read_bytes() == before
