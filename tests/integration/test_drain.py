"""SIGTERM while requests are pipelined, scored or long, and told twice: what was accepted is answered."""

import json
import os
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.mlflow_double import MlflowDouble
from tests.models import torch_slow
from tests.serving_process import ServingProcess, request_body

pytestmark = [pytest.mark.integration, pytest.mark.fault("F6")]

PIPELINED = 4


@pytest.fixture
def serving(double: MlflowDouble, tmp_path: Path) -> Iterator[ServingProcess]:
    """A server whose model takes its time."""
    double.add("m", torch_slow(tmp_path / "1", 200_000))
    double.point("m", "1")
    serving = ServingProcess(tmp_path / "home", double.url, "*", {"max_batch_rows": 1})
    serving.start_ready()
    yield serving
    serving.kill()


def has_begun(serving: ServingProcess, requests: int) -> bool:
    """Whether that many are being computed or wait: none is answered yet, and the model is in use."""
    text = serving.call("GET", "/metrics").text
    return f'signalbox_requests_in_use{{model="m",version="1"}} {requests}.0' in text


def test_pipelined_requests_are_answered_when_told_to_stop(serving: ServingProcess) -> None:
    """All that were sent before, over the one connection, in order; then it is closed."""
    body = json.dumps(request_body(1.0)).encode()
    one = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: r-%d\r\n"
    one += b"Content-Length: %d\r\n\r\n"
    with socket.create_connection(("127.0.0.1", serving.port), timeout=60) as connection:
        for number in range(PIPELINED):
            connection.sendall(one % (number, len(body)) + body)
        serving.wait(lambda: has_begun(serving, 1), "the first one is being computed")
        assert serving.terminate() == 0, serving.explain()
        told = b""
        while piece := connection.recv(1 << 16):
            told += piece
    assert told.count(b"HTTP/1.1 200 OK") == PIPELINED
    places = [told.index(b"x-request-id: r-%d" % number) for number in range(PIPELINED)]
    assert places == sorted(places)
    assert "Traceback" not in serving.log.read_text()


def test_scoring_requests_are_answered_when_told_to_stop_twice(serving: ServingProcess) -> None:
    """A second SIGTERM is not a reason to drop what the first one spared."""

    def score() -> httpx.Response:
        return httpx.post(
            f"{serving.url}/invocations", json={"inputs": [[1.0, 2.0, 3.0]]}, timeout=60, trust_env=False
        )

    with ThreadPoolExecutor(4) as callers:
        asked = [callers.submit(score) for _ in range(4)]
        serving.wait(lambda: has_begun(serving, 4), "all four were accepted")
        os.kill(serving.pid, signal.SIGTERM)
        assert serving.terminate() == 0, serving.explain()
        assert [answer.result().status_code for answer in asked] == [200] * 4
    assert "Traceback" not in serving.log.read_text()


def test_request_longer_than_the_drain_is_told_so(double: MlflowDouble, tmp_path: Path) -> None:
    """A sentence and not a cut connection; the process ends soon after its limit, and well."""
    double.add("m", torch_slow(tmp_path / "1", 40_000_000))
    double.point("m", "1")
    serving = ServingProcess(tmp_path / "home", double.url, "*", {"drain_seconds": 1})
    serving.start_ready()
    try:
        with ThreadPoolExecutor(1) as callers:
            asked = callers.submit(
                httpx.post,
                f"{serving.url}/v2/models/m/infer",
                json=request_body(1.0),
                timeout=60,
                trust_env=False,
            )
            serving.wait(lambda: has_begun(serving, 1), "it is being computed")
            assert serving.terminate() == 0, serving.explain()
            answer = asked.result()
    finally:
        serving.kill()
    assert answer.status_code == 503
    assert answer.json() == {"error": "the server stopped before this was answered; ask another replica"}
    assert "Traceback" not in serving.log.read_text()
