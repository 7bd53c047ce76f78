"""The whole stack as `signalbox up` starts it, in a home and on ports of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import httpx

from tests.mlflow_registry import MlflowRegistry, RegisteredModel, log_models
from tests.mlflow_server import MlflowServer, free_port
from tests.serving_process import ROOT, read_answer, request_body
from tests.waiting import until

RECIPES = ("onnx:1", "onnx:2")
_COMMAND_SECONDS = 300.0
_ANSWER_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Stack:
    """`environment` is what every command of this stack runs with."""

    home: Path
    registry: MlflowRegistry
    serving_url: str
    environment: Mapping[str, str]

    def run(self, *arguments: str) -> str:
        """A command as a person types it; what it printed. Raises RuntimeError where it fails."""
        done = subprocess.run(
            [sys.executable, "-P", "-m", "flows.cli.main", *arguments],
            cwd=self.home.parent,
            env=dict(self.environment),
            capture_output=True,
            text=True,
            timeout=_COMMAND_SECONDS,
            check=False,
        )
        if done.returncode:
            said = (done.stderr or done.stdout)[-1000:]
            raise RuntimeError(f"signalbox {' '.join(arguments)} ended with {done.returncode}: {said}")
        return done.stdout

    def run_seconds(self, *arguments: str) -> float:
        started = perf_counter()
        self.run(*arguments)
        return perf_counter() - started

    def status(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self.run("status", "--json"))
        return told

    def champion(self, *recipes: str, prefix: str) -> RegisteredModel:
        """A new model of which version 1 answers."""
        model = self.registry.model(*recipes, prefix=prefix)
        model.point("1")
        until(lambda: self.answering(model) == "1", f"{model.name} answers", seconds=_ANSWER_SECONDS)
        return model

    def answering(self, model: RegisteredModel) -> str | None:
        url = f"{self.serving_url}/v2/models/{model.name}/infer"
        answer = httpx.post(url, json=request_body(0.5), trust_env=False, timeout=30.0)
        return read_answer(answer, 0.5).version


@contextmanager
def raised(home: Path) -> Iterator[Stack]:
    """A stack that is up, with models logged, and down at the end."""
    mlflow = MlflowServer(home)  # its address and folders; the stack starts the server itself
    url = f"http://127.0.0.1:{free_port()}"
    stack = Stack(home, MlflowRegistry(mlflow, {}), url, _environment(home, mlflow.url, url))
    home.parent.mkdir(parents=True, exist_ok=True)
    try:
        stack.run("up", "--detach")
        stack.registry.logged |= log_models(mlflow, *RECIPES)
        yield stack
    finally:
        stack.run("down")


def _environment(home: Path, mlflow_url: str, serving_url: str) -> dict[str, str]:
    """Nothing of a stack that the user runs beside this one, except what Python itself needs."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SIGNALBOX_")}
    return kept | {
        "PYTHONPATH": str(ROOT),
        "SIGNALBOX_HOME": str(home),
        "SIGNALBOX_MLFLOW_URL": mlflow_url,
        "SIGNALBOX_PREFECT_API_URL": f"http://127.0.0.1:{free_port()}/api",
        "SIGNALBOX_SERVING_URL": serving_url,
        "SIGNALBOX_GRPC_PORT": str(free_port()),
    }
