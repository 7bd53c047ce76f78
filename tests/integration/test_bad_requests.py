"""Requests that are malformed, oversized, slow or of the wrong tensors, over a real socket.

Each is answered 4xx with a sentence, in time; memory stays bounded, and a well-behaved caller beside
them notices nothing.
"""

import json
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from shutil import which
from statistics import quantiles
from typing import Any

import httpx
import psutil
import pytest

from tests.fuzz import add_models
from tests.mlflow_double import MlflowDouble
from tests.serving_process import ServingProcess
from tests.traffic import Traffic, failed

pytestmark = [pytest.mark.integration, pytest.mark.fault("F19")]

BODY_LIMIT_MB = 4
MB = 1 << 20
GROWTH_BYTES = 64 * MB


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServingProcess]:
    """A server with small limits and a model for every kind of tensor."""
    folder = tmp_path_factory.mktemp("bad")
    with MlflowDouble() as double:
        add_models(double, folder / "models")
        limits = {
            "header_seconds": 1,
            "body_seconds": 1,
            "max_body_mb": BODY_LIMIT_MB,
            "max_connections": 300,
        }
        serving = ServingProcess(folder / "home", double.url, "*", limits)
        serving.start_ready()
        try:
            yield serving
        finally:
            serving.kill()


def tensor(**changed: Any) -> bytes:
    """A request for model `m`, valid but for what is changed."""
    valid = {"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}
    return json.dumps({"inputs": [valid | changed]}).encode()


def binary(size: object, raw: bytes) -> tuple[bytes, int]:
    head: dict[str, Any] = {"name": "x", "datatype": "FP32", "shape": [1, 3]}
    encoded = json.dumps({"inputs": [head | {"parameters": {"binary_data_size": size}}]}).encode()
    return encoded + raw, len(encoded)


ROW = struct.pack("<3f", 1, 2, 3)


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        pytest.param(b"", 400, "JSON", id="empty"),
        pytest.param(b'{"inputs": [', 400, "JSON", id="malformed"),
        pytest.param(b"\xff\xfe\x00", 400, "JSON", id="not-text"),
        pytest.param(b"[]", 400, "object", id="no-object"),
        pytest.param(tensor(datatype="INT64"), 400, "tensor 'x'", id="wrong-datatype"),
        pytest.param(tensor(datatype="FP99"), 400, "tensor 'x'", id="no-datatype"),
        pytest.param(tensor(name="z"), 400, "'x'", id="wrong-name"),
        pytest.param(tensor(shape=[1, 4]), 400, "tensor 'x'", id="wrong-product"),
        pytest.param(tensor(shape=[10**9, 3]), 400, "tensor 'x'", id="a-billion"),
        pytest.param(tensor(shape=[10**9, 10**9, 10**9]), 400, "tensor 'x'", id="beyond-counting"),
        pytest.param(tensor(shape=[-1, 3]), 400, "tensor 'x'", id="negative"),
        pytest.param(tensor(data=[1, 2, None]), 400, "null", id="null"),
        pytest.param(tensor(data=[1, 2, "3"]), 400, "string", id="string"),
        pytest.param(tensor(data=[1, [2], 3]), 400, "tensor 'x'", id="ragged"),
        pytest.param(tensor(data=[1, 2, 1e300]), 400, "beyond the range", id="out-of-range"),
        pytest.param(tensor().replace(b"3]}", b"NaN]}"), 400, "JSON", id="nan"),
        pytest.param(tensor().replace(b"3]}", b"Infinity]}"), 400, "JSON", id="infinity"),
        pytest.param(tensor().replace(b"3]}", b"1e999]}"), 400, "", id="infinite"),
        pytest.param(b'{"inputs": ' + b"[" * 100_000, 400, "JSON", id="deep-and-open"),
        pytest.param(b'{"inputs": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400, "JSON", id="deep"),
        pytest.param(b"x" * (BODY_LIMIT_MB * MB + 1), 413, f"{BODY_LIMIT_MB * MB} bytes", id="oversize"),
    ],
)
def test_request_is_refused_with_a_sentence_when_it_is_wrong(
    serving: ServingProcess, body: bytes, status: int, told: str
) -> None:
    """Naming the tensor where there is one."""
    answer = serving.call("POST", "/v2/models/m/infer", content=body)
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == ["error"]
    assert told in answer.json()["error"]


@pytest.mark.parametrize(
    ("size", "raw", "length", "told"),
    [
        pytest.param(12, ROW[:8], None, "8 bytes are left", id="cut-short"),
        pytest.param(8, ROW, None, "4 bytes follow", id="too-much"),
        pytest.param(10**12, ROW, None, "are left in the body", id="absurd"),
        pytest.param(-1, ROW, None, "number of bytes", id="negative"),
        pytest.param("12", ROW, None, "number of bytes", id="text"),
        pytest.param(8, ROW[:8], None, "takes 12 bytes", id="wrong-product"),
        pytest.param(12, ROW, "9999999", "the body has", id="json-longer-than-body"),
        pytest.param(12, ROW, "x", "number of bytes", id="json-length-text"),
        pytest.param(12, ROW, "5", "JSON", id="json-cut"),
    ],
)
def test_binary_request_is_refused_when_its_sizes_are_wrong(
    serving: ServingProcess, size: object, raw: bytes, length: str | None, told: str
) -> None:
    """Saying which size."""
    body, json_bytes = binary(size, raw)
    headers = {"Inference-Header-Content-Length": length or str(json_bytes)}
    answer = serving.call("POST", "/v2/models/m/infer", content=body, headers=headers)
    assert (answer.status_code, list(answer.json())) == (400, ["error"])
    assert told in answer.json()["error"]


@pytest.mark.parametrize(
    ("path", "status", "told"),
    [
        ("/v2/models/nobody/infer", 404, "available: "),
        ("/v2/models/m/versions/77/infer", 404, "does not serve"),
        ("/models/nobody/invocations", 404, "available: "),
        ("/v2/models/m/nothing", 404, ""),
        (f"/v2/models/{'m' * 9000}/infer", 414, "longer than"),
    ],
)
def test_request_is_refused_when_there_is_no_such_thing(
    serving: ServingProcess, path: str, status: int, told: str
) -> None:
    """Naming what there is."""
    body = tensor() if "invocations" not in path else b'{"inputs": [[1, 2, 3]]}'
    headers = {"Content-Type": "application/json"}
    answer = serving.call("POST", path, content=body, headers=headers)
    assert (answer.status_code, list(answer.json())) == (status, ["error"])
    assert told in answer.json()["error"]


def test_oversize_is_read_as_413_by_plain_clients(serving: ServingProcess, tmp_path: Path) -> None:
    """curl, with and without waiting for leave to send, and a client that sends it all first."""
    curl = which("curl")
    assert curl is not None, "curl is not installed"
    file = tmp_path / "large"
    file.write_bytes(b"x" * (2 * BODY_LIMIT_MB * MB))
    url = f"{serving.url}/v2/models/m/infer"
    for expect in ("Expect: 100-continue", "Expect:"):
        arguments = ["--silent", "--show-error", "--header", expect, "--data-binary", f"@{file}", url]
        run = subprocess.run([curl, *arguments], capture_output=True, text=True, timeout=60, check=False)
        assert run.returncode == 0, run.stderr
        assert json.loads(run.stdout)["error"].startswith("the body is larger than the limit")
    with httpx.Client(trust_env=False, timeout=60) as client:
        for content in (file.read_bytes(), iter([b"x" * MB] * (2 * BODY_LIMIT_MB))):
            assert client.post(url, content=content).status_code == 413


def test_slow_callers_are_cut_off_and_others_notice_nothing(serving: ServingProcess) -> None:
    """A hundred that dawdle with headers, a hundred with their body; memory bounded, traffic whole."""
    process = psutil.Process(serving.pid)
    head = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4000000\r\n\r\n"
    with Traffic(serving.url, "m", rate_per_second=50) as traffic, ExitStack() as stack:
        serving.wait(lambda: len(traffic.samples) > 50, "traffic flows")
        before_bytes = process.memory_info().rss
        slow = [stack.enter_context(closing(_said(serving, head[:40]))) for _ in range(100)]
        slow += [stack.enter_context(closing(_said(serving, head + b"x"))) for _ in range(100)]
        told = [_error(connection) for connection in slow]
        grown_bytes = process.memory_info().rss - before_bytes
        count = len(traffic.samples)
        serving.wait(lambda: len(traffic.samples) > count + 50, "traffic flows on")
    assert [status for status, _ in told] == [408] * 200
    assert all("the headers did not arrive in time" in problem for _, problem in told[:100])
    assert all("the body did not arrive in time" in problem for _, problem in told[100:])
    assert failed(traffic.samples) == []
    p99_ms = quantiles([(s.ended - s.started) * 1000 for s in traffic.samples], n=100)[98]
    print(f"p99 of others {p99_ms:.1f} ms, memory grown by {grown_bytes / MB:.1f} MB")
    assert grown_bytes < GROWTH_BYTES


def test_connections_beyond_the_limit_are_told_to_come_back(serving: ServingProcess) -> None:
    """Those that are open are answered on, and once the flood is over everybody is."""
    with httpx.Client(base_url=serving.url, trust_env=False) as early, ExitStack() as stack:
        assert early.get("/v2/health/live").status_code == 200
        flood = [stack.enter_context(closing(_said(serving, b"GET /v2"))) for _ in range(310)]
        assert _error(flood[-1]) == (
            503,
            "300 connections are open already (SIGNALBOX_MAX_CONNECTIONS); try again",
        )
        assert early.get("/v2/health/live").status_code == 200
    serving.wait(lambda: serving.infer("m").status == 200, "new connections are answered again")


def test_inflight_bodies_are_bounded_together(serving: ServingProcess) -> None:
    """Many large bodies that are never complete fill no memory: what they hold is bounded, and released."""
    process = psutil.Process(serving.pid)
    before_bytes = process.memory_info().rss
    head = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4000000\r\n\r\n"
    with ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(closing(_said(serving, head + b"x" * (2 * MB))))
        assert serving.infer("m").status == 200
        assert process.memory_info().rss - before_bytes < 20 * 2 * MB + GROWTH_BYTES
    serving.wait(
        lambda: process.memory_info().rss - before_bytes < GROWTH_BYTES,
        "the memory was given back",
        seconds=30,
    )


def _said(serving: ServingProcess, text: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", serving.port), timeout=30)
    connection.sendall(text)
    return connection


def _error(connection: socket.socket) -> tuple[int, str]:
    """Status and sentence of the one answer, once the server has closed its side."""
    told = b""
    while piece := connection.recv(1 << 16):
        told += piece
    head, _, body = told.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["error"]
