"""The model registry as a person uses it: versions registered, aliases moved, by MLflow's REST API.

Models are logged once per session by `tests.training` and registered under a name per test, which
is what MLflow's register button does.
"""

import json
import subprocess
import sys
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import httpx

from tests.mlflow_server import MlflowServer
from tests.training import LoggedModel

ROOT = Path(__file__).parents[1]
CHAMPION = "champion"
_TRAINING_SECONDS = 120
# Made once: reading the certificates costs more than a call, on the machine that is measured.
_TRUST = httpx.create_ssl_context(trust_env=False)


def log_models(server: MlflowServer, *recipes: str) -> dict[str, LoggedModel]:
    """Models by recipe, logged by a training script in a process of its own."""
    return logged_by("tests.training", server.url, *recipes)


def logged_by(program: str, *arguments: str) -> dict[str, LoggedModel]:
    """Models by recipe, as the program's lines tell of them."""
    run = subprocess.run(
        [sys.executable, "-m", program, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=_TRAINING_SECONDS,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    lines = [line.removeprefix("logged ") for line in run.stdout.splitlines() if line.startswith("logged ")]
    return {model.recipe: model for model in (LoggedModel(**json.loads(line)) for line in lines)}


@dataclass
class RegisteredModel:
    """One registered model. `constants` says by version what a right answer adds to its input."""

    name: str
    registry: "MlflowRegistry"
    constants: dict[str, float] = field(default_factory=dict)

    def add(self, recipe: str) -> str:
        """Register a logged model as the next version; its number."""
        logged = self.registry.logged[recipe]
        source = {"source": logged.uri, "run_id": logged.run_id, "model_id": logged.model_id}
        told = self.registry.post("model-versions/create", {"name": self.name, **source})
        version = str(told["model_version"]["version"])
        if logged.constant is not None:
            self.constants[version] = logged.constant
        return version

    def point(self, version: str, alias: str = CHAMPION) -> None:
        self.registry.post("registered-models/alias", {"name": self.name, "alias": alias, "version": version})

    def unpoint(self, alias: str = CHAMPION) -> None:
        self.registry.call("DELETE", "registered-models/alias", {"name": self.name, "alias": alias})

    def tag(self, key: str, value: str) -> None:
        self.registry.post("registered-models/set-tag", {"name": self.name, "key": key, "value": value})

    def tags(self) -> dict[str, str]:
        told = self.registry.call("GET", f"registered-models/get?name={self.name}")["registered_model"]
        return {entry["key"]: entry["value"] for entry in told.get("tags", [])}

    def aliases(self) -> dict[str, str]:
        told = self.registry.call("GET", f"registered-models/get?name={self.name}")["registered_model"]
        return {entry["alias"]: str(entry["version"]) for entry in told.get("aliases", [])}

    def delete(self) -> None:
        """The model with its versions and aliases, in one call."""
        self.registry.call("DELETE", "registered-models/delete", {"name": self.name})

    def delete_version(self, version: str) -> None:
        """One version, and with it the aliases that name it."""
        self.registry.call("DELETE", "model-versions/delete", {"name": self.name, "version": version})

    def rename(self, name: str) -> None:
        self.registry.post("registered-models/rename", {"name": self.name, "new_name": name})

    def files(self, version: str) -> Path:
        """Where the artifact store keeps the version's files."""
        query = f"model-versions/get-download-uri?name={self.name}&version={version}"
        uri = str(self.registry.call("GET", query)["artifact_uri"])
        return self.registry.server.home / "mlflow" / "artifacts" / uri.removeprefix("mlflow-artifacts:/")


@dataclass
class MlflowRegistry:
    """Every model of the session, on the session's MLflow server."""

    server: MlflowServer
    logged: dict[str, LoggedModel]
    _numbers: "count[int]" = field(default_factory=lambda: count(1), repr=False)

    def model(self, *recipes: str, prefix: str = "model") -> RegisteredModel:
        """A new registered model with one version per recipe, numbered from 1; no alias names any yet."""
        model = RegisteredModel(f"{prefix}-{next(self._numbers)}", self)
        self.post("registered-models/create", {"name": model.name})
        for recipe in recipes:
            model.add(recipe)
        return model

    def post(self, call: str, body: dict[str, Any]) -> dict[str, Any]:
        return self.call("POST", call, body)

    def call(self, method: str, call: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        url = f"{self.server.url}/api/2.0/mlflow/{call}"
        answer = httpx.request(method, url, json=body, trust_env=False, timeout=30.0, verify=_TRUST)
        assert answer.status_code == httpx.codes.OK, f"{method} {call}: {answer.status_code} {answer.text}"
        told: dict[str, Any] = answer.json()
        return told
