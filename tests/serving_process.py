"""A real `python -m serving` for tests, on a port and home that stay the same over restarts.

Every wait has a deadline, and says where the log is and how it ends when it passes.
"""

import contextlib
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import Engine

from serving.store import audit, outbox
from serving.store.database import open_engine
from tests.mlflow_server import free_port
from tests.waiting import until

ROOT = Path(__file__).parents[1]
READY_SECONDS = 60.0
STOP_SECONDS = 30.0
# Nobody listens there: a test must not start promotions in a stack that runs beside it.
NO_PREFECT = "http://127.0.0.1:9/api"
# What `up` sets too; see CONTRIBUTING.md.
_MALLOC = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
# Made once: reading the certificates costs more than most calls that are timed.
_TRUST = httpx.create_ssl_context(trust_env=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer to an inference request. `added` is what the model added to its input."""

    status: int
    version: str | None
    variant: str | None
    added: float | None
    error: str | None


def request_body(x: float) -> dict[str, Any]:
    return {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [x, x, x]}]}


def read_answer(response: httpx.Response, x: float) -> Answer:
    told = response.json()
    added = round(told["outputs"][0]["data"][0] - x, 3) if response.status_code == httpx.codes.OK else None
    version, variant = response.headers.get("x-model-version"), response.headers.get("x-model-variant")
    return Answer(response.status_code, version, variant, added, told.get("error"))


@dataclass
class ServingProcess:
    """`settings` are `SIGNALBOX_*` variables without the prefix, in lower case."""

    home: Path
    mlflow_url: str
    models: str
    settings: Mapping[str, object] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False, repr=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        return self.home / "serving.log"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def key(self) -> str:
        """The admin key."""
        return self._key_file.read_text()

    @property
    def store_url(self) -> str:
        return str(self.settings.get("store_url") or f"sqlite:///{self.home / 'signalbox.db'}")

    def start(self) -> "ServingProcess":
        """Start without waiting."""
        assert self._process is None, "it runs already"
        self._write_key()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "serving"],
                cwd=self.home,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self

    def start_ready(self) -> float:
        """Start and wait until `/v2/health/ready` says so; the seconds it took."""
        return self.start().wait_ready()

    def wait_ready(self) -> float:
        return self.wait(lambda: self._health("ready") == httpx.codes.OK, "serving is ready", READY_SECONDS)

    def kill(self) -> None:
        """`kill -9`; does nothing when stopped."""
        self._end(signal.SIGKILL)

    def terminate(self) -> int:
        """SIGTERM, and the exit code."""
        return self._end(signal.SIGTERM)

    def wait(self, condition: Callable[[], object], what: str, seconds: float = 15.0) -> float:
        """Seconds until `condition` was true; fails at once when the process has ended."""

        def met() -> object:
            ended = self._process is not None and self._process.poll() is not None
            assert not ended, f"serving ended while waiting: {what}\n{self.explain()}"
            return condition()

        return until(met, what, seconds=seconds, context=self.explain)

    def wait_for(self, model: str, version: str, address: str | None = None, seconds: float = 15.0) -> float:
        """Seconds until `version` answers for `model`."""
        what = f"version {version} of {model} answers"
        return self.wait(lambda: self.infer(model, address=address).version == version, what, seconds)

    def infer(self, model: str, x: float = 0.5, address: str | None = None) -> Answer:
        where = f"{model}/versions/{address}" if address else model
        response = self.call("POST", f"/v2/models/{where}/infer", json=request_body(x))
        return read_answer(response, x)

    def get(self, path: str) -> dict[str, Any]:
        response = self.call("GET", path)
        assert response.status_code == httpx.codes.OK, f"GET {path}: {response.status_code} {response.text}"
        told: dict[str, Any] = response.json()
        return told

    def call(self, method: str, path: str, **options: Any) -> httpx.Response:
        """A request with the admin key."""
        headers = {"X-API-Key": self.key} | options.pop("headers", {})
        usual: dict[str, Any] = {"trust_env": False, "timeout": 30.0, "verify": _TRUST}
        return httpx.request(method, self.url + path, headers=headers, **(usual | options))

    def model(self, name: str) -> dict[str, Any]:
        """The model's entry in model-info."""
        [entry] = self.get(f"/api/v2/model-info?model={name}")["models"]
        told: dict[str, Any] = entry
        return told

    def roll_back(self, model: str, **wish: object) -> dict[str, Any]:
        response = self.call("POST", "/api/v2/rollback", json={"model": model, **wish})
        assert response.status_code == httpx.codes.ACCEPTED, response.text
        told: dict[str, Any] = response.json()
        return told

    @contextlib.contextmanager
    def store(self) -> Iterator[Engine]:
        """The state store, as another process sees it."""
        engine = open_engine(self.store_url)
        try:
            yield engine
        finally:
            engine.dispose()

    def audited(self, action: str, model: str) -> list[audit.AuditEntry]:
        with self.store() as engine:
            return [row.entry for row in audit.tail(engine, 1000, model, action)]

    def notices(self, kind: str, model: str) -> list[outbox.Notice]:
        with self.store() as engine:
            queued = [row.notice for row in outbox.recent(engine, 1000)]
        return [notice for notice in queued if (notice.kind, notice.model) == (kind, model)]

    def assert_nothing_lost(self) -> None:
        """What must hold after every fault: the audit chain verifies."""
        with self.store() as engine:
            verification = audit.verify(engine)
        assert verification.verdict is audit.Verdict.INTACT, f"{verification}\n{self.explain()}"

    def explain(self) -> str:
        """Where to look, for failure messages."""
        tail = self.log.read_text(errors="replace")[-2500:] if self.log.exists() else ""
        return f"log {self.log} ends:\n{tail}"

    @property
    def _key_file(self) -> Path:
        return self.home / "admin.key"

    def _write_key(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        if not self._key_file.exists():
            self._key_file.touch(mode=0o600)
            self._key_file.write_text(secrets.token_hex(32))

    def _environment(self) -> dict[str, str]:
        own = {
            "home": self.home,
            "port": self.port,
            "grpc_port": 0,
            "mlflow_url": self.mlflow_url,
            "models": self.models,
            "poll_seconds": 0.25,
            "prefect_api_url": NO_PREFECT,
            "threads": 1,
            **self.settings,
        }
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SIGNALBOX_")}
        named = {f"SIGNALBOX_{name.upper()}": str(value) for name, value in own.items()}
        return kept | _MALLOC | named | {"PYTHONPATH": str(ROOT)}

    def is_listening(self) -> bool:
        return self._health("live") == httpx.codes.OK

    def is_ready(self, model: str) -> bool:
        return self.call("GET", f"/v2/models/{model}/ready").status_code == httpx.codes.OK

    def _health(self, of: str) -> int:
        try:
            return self.call("GET", f"/v2/health/{of}").status_code
        except httpx.TransportError:
            return 0

    def _end(self, how: signal.Signals) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        process.send_signal(how)
        try:
            return process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_SECONDS)
            raise AssertionError(f"serving did not end within {STOP_SECONDS:g} s\n{self.explain()}") from None
