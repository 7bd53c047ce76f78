"""Throws broken requests at a server and counts what comes back; run as a program for as long as you like.

    python -m tests.fuzz --count 1000000 --seed 7
    python -m tests.fuzz --url http://127.0.0.1:8080 --count 10000
    python -m tests.fuzz --endpoints --count 500 --key-file .signalbox/admin.key

Without a URL a server is started for the purpose: for bodies one in this process, spoken to through ASGI,
for `--endpoints` (every call of `/openapi.json`, by schemathesis) a process of its own. Ends with an error
at the first answer that no caller's fault explains.
"""

import argparse
import asyncio
import itertools
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import onnx
import psutil

from serving.api.edge import App
from tests.homes import write_admin_key
from tests.mlflow_double import MlflowDouble
from tests.models import onnx_adder, onnx_echo
from tests.mutation import Attempt, attempts
from tests.station import station

_TYPES = {
    "whole": onnx.TensorProto.INT64,
    "half": onnx.TensorProto.FLOAT16,
    "text": onnx.TensorProto.STRING,
    "flags": onnx.TensorProto.BOOL,
}
_WARM_UP = 5000
_SHOWN_BYTES = 300

Send = Callable[[Attempt], Awaitable[tuple[int, bytes]]]


@dataclass(slots=True)
class Found:
    """What came back. `grown_bytes` is of this process, from after the first few thousand requests."""

    statuses: Counter[int] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    slowest_seconds: float = 0.0
    grown_bytes: int = 0

    @property
    def count(self) -> int:
        return self.statuses.total()

    def __str__(self) -> str:
        statuses = ", ".join(f"{count} × {status}" for status, count in sorted(self.statuses.items()))
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(self.kinds.items()))
        return (
            f"{self.count} requests in {self.seconds:.1f} s, the slowest {self.slowest_seconds:.2f} s, "
            f"memory grown by {self.grown_bytes / (1 << 20):.1f} MB\n"
            f"  answers: {statuses}\n  broken by: {kinds}"
        )


class Unexpected(Exception):
    """An answer that no caller's fault explains."""


async def throw(send: Send, *, count: int, seed: int) -> Found:
    """Send `count` requests one after the other. Raises `Unexpected`."""
    found, process = Found(), psutil.Process()
    began, before_bytes = time.monotonic(), 0
    for number, attempt in enumerate(itertools.islice(attempts(seed), count)):
        if number == min(_WARM_UP, count // 4):
            before_bytes = process.memory_info().rss
        sent = time.monotonic()
        status, body = await send(attempt)
        found.slowest_seconds = max(found.slowest_seconds, time.monotonic() - sent)
        found.statuses[status] += 1
        found.kinds[attempt.kind] += 1
        if (problem := _problem(attempt, status, body)) is not None:
            shown = f"{attempt.path} {attempt.headers} {attempt.body[:_SHOWN_BYTES]!r}"
            raise Unexpected(f"seed {seed}, request {number} ({attempt.kind}): {problem}\n  {shown}")
    found.seconds = time.monotonic() - began
    found.grown_bytes = process.memory_info().rss - before_bytes
    return found


def _problem(attempt: Attempt, status: int, body: bytes) -> str | None:
    if attempt.kind == "valid" and status != httpx.codes.OK:
        return f"a valid request was answered {status}: {body[:_SHOWN_BYTES]!r}"
    if status >= httpx.codes.INTERNAL_SERVER_ERROR or status < httpx.codes.OK:
        return f"answered {status}: {body[:_SHOWN_BYTES]!r}"
    if status < httpx.codes.BAD_REQUEST:
        return None
    try:
        told = json.loads(body)
    except ValueError:
        return f"the error {status} is not JSON: {body[:_SHOWN_BYTES]!r}"
    is_right = isinstance(told, dict) and list(told) == ["error"] and bool(told["error"])
    return None if is_right else f'the error {status} is not {{"error": ...}}: {body[:_SHOWN_BYTES]!r}'


def through_asgi(application: App) -> Send:
    """Speaks to an application in this process, with as little in between as possible."""

    async def send(attempt: Attempt) -> tuple[int, bytes]:
        # A client quotes what is no ASCII in an address; the header's value is as it was sent.
        headers = [(b"host", b"localhost"), (b"content-length", str(len(attempt.body)).encode())]
        headers += [(name.encode(), value.encode("latin-1")) for name, value in attempt.headers.items()]
        url = httpx.URL("http://localhost" + attempt.path)
        scope: dict[str, object] = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": url.path,
            "raw_path": url.raw_path,
            "query_string": url.query,
            "root_path": "",
            "headers": headers,
            "client": ("127.0.0.1", 1),
            "server": ("localhost", 80),
        }
        body: list[dict[str, Any]] = [{"type": "http.request", "body": attempt.body, "more_body": False}]
        answer: list[Any] = []

        async def receive() -> Any:
            return body.pop() if body else {"type": "http.disconnect"}

        async def take(message: Any) -> None:
            answer.append(message)

        await application(scope, receive, take)
        return answer[0]["status"], b"".join(message.get("body", b"") for message in answer[1:])

    return send


def through_http(client: httpx.AsyncClient) -> Send:
    """Speaks to a server over its socket; a connection that breaks is status 0."""

    async def send(attempt: Attempt) -> tuple[int, bytes]:
        headers = {name.encode(): value.encode("latin-1") for name, value in attempt.headers.items()}
        try:
            answer = await client.post(attempt.path, content=attempt.body, headers=headers)
        except (httpx.TransportError, httpx.DecodingError) as error:
            return 0, repr(error).encode()
        return answer.status_code, answer.content

    return send


def add_models(double: MlflowDouble, folder: Path) -> None:
    """One model per kind of tensor, as `tests.mutation.MODELS` names them."""
    double.add("m", onnx_adder(folder / "m"))
    double.point("m", "1")
    for name, elem_type in _TYPES.items():
        double.add(name, onnx_echo(folder / name, elem_type))
        double.point(name, "1")


async def in_process(folder: Path, *, count: int, seed: int) -> Found:
    """A whole server in this process, started for the purpose under `folder`."""
    home = folder / "home"
    home.mkdir(parents=True)
    write_admin_key(home)
    with MlflowDouble() as double:
        add_models(double, folder / "models")
        async with station(home, double, poll_seconds=1.0) as server:
            for model in ("m", *_TYPES):
                await server.serves_at_all(model)
            return await throw(through_asgi(server.server.application), count=count, seed=seed)


async def _over_http(url: str, *, count: int, seed: int) -> Found:
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=60.0) as client:
        return await throw(through_http(client), count=count, seed=seed)


def _explored(url: str | None, key_file: Path | None, *, count: int, seed: int) -> str:
    """What every endpoint answered, a line each; of a server started for the purpose where none is named."""
    from tests.endpoints import explore
    from tests.serving_process import ServingProcess

    if url is not None:
        key = key_file.read_text() if key_file is not None else ""
        found = explore(url, key, examples=count, chosen_seed=seed)
    else:
        with tempfile.TemporaryDirectory() as folder, MlflowDouble() as double:
            add_models(double, Path(folder) / "models")
            serving = ServingProcess(Path(folder) / "home", double.url, "*")
            serving.start_ready()
            try:
                found = explore(serving.url, serving.key, examples=count, chosen_seed=seed)
            finally:
                serving.kill()
    return "\n".join(f"{label}: {dict(sorted(statuses.items()))}" for label, statuses in found.items())


def _bodies(url: str | None, *, count: int, seed: int) -> str:
    if url is not None:
        return str(asyncio.run(_over_http(url, count=count, seed=seed)))
    with tempfile.TemporaryDirectory() as folder:
        return str(asyncio.run(in_process(Path(folder), count=count, seed=seed)))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Throws broken requests.")
    parser.add_argument("--count", type=int, help="requests, with --endpoints examples per endpoint")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--url", help="a running server that serves the models of tests.mutation")
    parser.add_argument("--endpoints", action="store_true", help="every call of /openapi.json")
    parser.add_argument("--key-file", type=Path, help="the server's admin.key, for --endpoints")
    given = parser.parse_args()
    try:
        if given.endpoints:
            told = _explored(given.url, given.key_file, count=given.count or 100, seed=given.seed)
        else:
            told = _bodies(given.url, count=given.count or 100_000, seed=given.seed)
    except (Unexpected, AssertionError) as error:
        print(f"unexpected: {error}", file=sys.stderr)
        return 1
    print(told)
    return 0


if __name__ == "__main__":
    sys.exit(main())
