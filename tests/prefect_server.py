"""A real Prefect server and worker for tests, started and deployed to as `up` does, on free ports.

Flows see only registered models called `flow-*`: what other tests do in the shared registry is not theirs.
Used through the fixture `prefect_server` of conftest.
"""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from flows.cli.deployments import apply_deployments
from flows.cli.home import Home, prepare
from flows.cli.parts import PARTS
from flows.cli.sessions import end_session, read_leader
from flows.settings import FlowSettings, part_environment
from serving.store.database import upgrade
from tests.mlflow_server import free_port
from tests.waiting import until

ROOT = Path(__file__).parents[1]
START_SECONDS = 120.0
RUN_SECONDS = 90.0
MODELS = "flow-*"
_TERMINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


@dataclass
class PrefectServer:
    """Server and worker under `home`. `settings` are what flows run with; `plan` lays others over them."""

    home: Path
    mlflow_url: str
    port: int = field(default_factory=free_port)
    plan: dict[str, Any] = field(default_factory=dict)
    _processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict, init=False, repr=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api"

    @property
    def settings(self) -> FlowSettings:
        return FlowSettings(
            home=self.home,
            mlflow_url=self.mlflow_url,
            prefect_api_url=self.url,
            serving_url=f"http://127.0.0.1:{free_port()}",
            models=MODELS,
            # No caller asks most of these models anything: by stages they would be held.
            **({"strategy": "direct"} | self.plan),
        )

    @property
    def environment(self) -> dict[str, str]:
        """Of the processes, and of a `prefect` command that talks to this server."""
        return part_environment(self.settings) | {"PYTHONPATH": str(ROOT)}

    def start(self) -> None:
        """Server, worker, deployments. Raises when any does not come up."""
        prepare(self.settings)
        upgrade(self.settings.database_url)
        for name in ("prefect", "worker"):
            self.start_part(name)
        self.deploy()

    def start_part(self, name: str) -> None:
        """Start `prefect` or `worker` through the launcher of the supervisor, and wait until it is ready."""
        settings = self.settings
        part = next(part for part in PARTS if part.name == name)
        launch = [sys.executable, "-P", "-m", "flows.cli.part", "--pid-file", str(self._pid_file(name)), "--"]
        with self.log(name).open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [*launch, *part.command(settings)],
                cwd=self.home,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        until(
            lambda: part.ready(settings, self.url),
            f"{name} is ready",
            seconds=START_SECONDS,
            context=lambda: self.log(name).read_text(errors="replace")[-3000:],
        )

    def kill_part(self, name: str) -> None:
        """`kill -9` of the part's own process; its children are left for the next start to end."""
        process = self._processes.pop(name)
        process.kill()
        process.wait()

    @contextlib.contextmanager
    def planned(self, **settings: Any) -> Iterator[None]:
        """Within the block flows run with these settings: the worker, whose they are, is started anew."""
        self._replan(settings)
        try:
            yield
        finally:
            self._replan({})

    def _replan(self, settings: dict[str, Any]) -> None:
        self.plan = settings
        self.kill_part("worker")
        self.start_part("worker")

    def deploy(self) -> None:
        apply_deployments(Home(self.home), self.settings)

    def stop(self) -> None:
        for name in ("worker", "prefect"):
            leader = read_leader(self._pid_file(name))
            if leader is not None:
                end_session(leader)
            process = self._processes.pop(name, None)
            if process is not None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                process.wait()

    def log(self, name: str) -> Path:
        return self.home / "logs" / f"{name}.log"

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A `prefect` command as a user types it."""
        return subprocess.run(
            [sys.executable, "-P", "-m", "prefect", *arguments],
            cwd=self.home,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
            check=False,
        )

    def post(self, path: str, body: Any) -> Any:
        return self.call("POST", path, body)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        answer = httpx.request(method, self.url + path, json=body, trust_env=False, timeout=30.0)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def runs(self, deployment: str, **parameters: object) -> list[dict[str, Any]]:
        """Runs of a deployment, newest first, that were given these parameters."""
        asked = {
            "deployments": {"name": {"any_": [deployment]}},
            "sort": "EXPECTED_START_TIME_DESC",
            "limit": 200,
        }
        found: list[dict[str, Any]] = self.post("/flow_runs/filter", asked)
        return [run for run in found if parameters.items() <= run["parameters"].items()]

    def ended(self, deployment: str, seconds: float = RUN_SECONDS, **parameters: object) -> dict[str, Any]:
        """The newest such run once it has ended."""

        def newest() -> dict[str, Any] | None:
            found = self.runs(deployment, **parameters)
            return found[0] if found and found[0]["state_type"] in _TERMINAL else None

        until(newest, f"a run of {deployment} with {parameters} ended", seconds=seconds, context=self.explain)
        run = newest()
        assert run is not None
        return run

    def artifacts(self, key: str) -> list[dict[str, Any]]:
        """Artifacts of that key, newest first."""
        asked = {"artifacts": {"key": {"any_": [key]}}, "sort": "CREATED_DESC"}
        found: list[dict[str, Any]] = self.post("/artifacts/filter", asked)
        return found

    def explain(self) -> str:
        logs = (self.log(name) for name in ("prefect", "worker"))
        return "\n".join(
            f"{log} ends:\n{log.read_text(errors='replace')[-2500:]}" for log in logs if log.exists()
        )

    def _pid_file(self, name: str) -> Path:
        return Home(self.home).pid_file(name)
