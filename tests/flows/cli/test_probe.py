"""What is recognised at a part's URL: the right server, a stranger, a closed door, nobody."""

import socket
from typing import Any

import pytest

from flows.cli.decision import Answer
from flows.cli.home import prepare
from flows.cli.probe import is_ready, probe_mlflow, probe_serving
from tests.flows.answers import Asked, answering
from tests.flows.conftest import SettingsFactory
from tests.mlflow_server import MlflowServer, free_port


@pytest.mark.parametrize(
    ("health", "search", "answer"),
    [
        pytest.param((200, "OK"), (200, {}), Answer.HEALTHY, id="MLflow"),
        pytest.param((200, "OK"), (401, "no"), Answer.UNAUTHORISED, id="wrong password"),
        pytest.param((401, ""), (403, "no"), Answer.UNAUTHORISED, id="everything behind a password"),
        pytest.param((200, "OK"), (503, "no"), Answer.UNHEALTHY, id="its database is down"),
        pytest.param((503, ""), (200, {}), Answer.UNHEALTHY, id="unwell"),
        pytest.param((200, "hello"), (200, {}), Answer.FOREIGN, id="some web page"),
        pytest.param((404, "no"), (404, "no"), Answer.FOREIGN, id="some server"),
        pytest.param((200, "OK"), (200, "<html>"), Answer.FOREIGN, id="answers OK to everything"),
    ],
)
def test_mlflow_is_recognised_when_it_answers(
    make_settings: SettingsFactory, health: tuple[int, Any], search: tuple[int, Any], answer: Answer
) -> None:
    """Health alone does not make a registry: it must let us read it."""

    def respond(asked: Asked) -> tuple[int, Any]:
        return health if asked.path == "/health" else search

    with answering(respond) as server:
        assert probe_mlflow(make_settings(mlflow_url=server.url)).answer is answer


@pytest.mark.parametrize(
    ("live", "audit", "answer"),
    [
        pytest.param(200, 200, Answer.HEALTHY, id="ours"),
        pytest.param(200, 503, Answer.HEALTHY, id="ours, store down"),
        pytest.param(200, 401, Answer.UNAUTHORISED, id="of another home"),
        pytest.param(200, 404, Answer.FOREIGN, id="another inference server"),
        pytest.param(404, 404, Answer.FOREIGN, id="some server"),
        pytest.param(500, 500, Answer.UNHEALTHY, id="unwell"),
    ],
)
def test_serving_is_recognised_when_it_answers(
    make_settings: SettingsFactory, live: int, audit: int, answer: Answer
) -> None:
    """Being alive is not enough: it must take this home's key."""
    with answering(lambda asked: (live if asked.path == "/v2/health/live" else audit, {})) as server:
        settings = make_settings(serving_url=server.url)
        prepare(settings)
        assert probe_serving(settings).answer is answer
    keys = [asked.headers.get("X-API-Key") for asked in server.asked if "audit" in asked.path]
    assert set(keys) <= {settings.admin_key_file.read_text()}


def test_silence_is_nothing_when_nobody_listens(make_settings: SettingsFactory) -> None:
    """A refused connection is nobody."""
    url = f"http://127.0.0.1:{free_port()}"
    settings = make_settings(mlflow_url=url, serving_url=url)
    assert probe_mlflow(settings).answer is Answer.NOTHING
    assert probe_serving(settings).answer is Answer.NOTHING
    assert not is_ready(url, "/health")


def test_stranger_is_recognised_when_it_hangs_up(make_settings: SettingsFactory) -> None:
    """What takes connections and speaks no HTTP is a stranger, not nobody."""
    import threading

    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1024)
                connection.sendall(b"220 mail.example ESMTP\r\n")

        thread = threading.Thread(target=hang_up)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        assert probe_mlflow(make_settings(mlflow_url=url)).answer is Answer.FOREIGN
        thread.join()


@pytest.mark.integration
def test_real_mlflow_is_healthy_when_running(
    make_settings: SettingsFactory, mlflow_server: MlflowServer
) -> None:
    """The server itself is recognised as what it is."""
    assert probe_mlflow(make_settings(mlflow_url=mlflow_server.url)).answer is Answer.HEALTHY
