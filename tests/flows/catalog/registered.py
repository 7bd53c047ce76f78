"""Registered models of a real MLflow server, filled through its REST API alone."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import httpx

_API = "/api/2.0/mlflow"
_ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"
_numbers = count(1)


@dataclass
class Model:
    """One registered model."""

    client: httpx.Client
    name: str = field(default_factory=lambda: f"validated-{next(_numbers)}")

    def __post_init__(self) -> None:
        self.post("registered-models/create", {"name": self.name})

    def add(self, folder: Path) -> str:
        """Upload a folder as a run's model and register it as the next version."""
        run = self._run()
        for file in filter(Path.is_file, folder.rglob("*")):
            self.upload(file, f"{_path(run)}/model/{file.relative_to(folder).as_posix()}")
        source = {"source": f"{run['artifact_uri']}/model", "run_id": str(run["run_id"])}
        told = self.post("model-versions/create", {"name": self.name, **source})
        return str(told["model_version"]["version"])

    def upload(self, file: Path, path: str) -> None:
        self.client.put(f"{_ARTIFACTS}/{path}", content=file.read_bytes()).raise_for_status()

    def point(self, version: str) -> None:
        body = {"name": self.name, "alias": "champion", "version": version}
        self.post("registered-models/alias", body)

    def champion(self) -> str | None:
        params = {"name": self.name}
        model = self._get("registered-models/get", params)["registered_model"]
        aliases = {entry["alias"]: str(entry["version"]) for entry in model.get("aliases", [])}
        return aliases.get("champion")

    def declare(self, uri: str, version: str | None = None) -> None:
        self.tag("signalbox.evaluation_set", uri, version)

    def tag(self, key: str, value: str, version: str | None = None) -> None:
        """Of a version, or of the model where none is named."""
        body = {"name": self.name, "key": key, "value": value}
        call = "registered-models/set-tag" if version is None else "model-versions/set-tag"
        self.post(call, body if version is None else body | {"version": version})

    def tags(self, version: str) -> dict[str, str]:
        found = self._get("model-versions/get", {"name": self.name, "version": version})["model_version"]
        return {entry["key"]: entry["value"] for entry in found.get("tags", [])}

    def run_with(self, file: Path) -> str:
        """A run that logged the file under `sets/`; its id."""
        run = self._run()
        self.upload(file, f"{_path(run)}/sets/{file.name}")
        return str(run["run_id"])

    def post(self, call: str, body: Mapping[str, str]) -> dict[str, Any]:
        answer = self.client.post(f"{_API}/{call}", json=dict(body))
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    def _get(self, call: str, params: Mapping[str, str]) -> dict[str, Any]:
        answer = self.client.get(f"{_API}/{call}", params=dict(params))
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    def _run(self) -> dict[str, Any]:
        run: dict[str, Any] = self.post("runs/create", {"experiment_id": "0"})["run"]["info"]
        return run


def _path(run: Mapping[str, Any]) -> str:
    """Where a run's artifacts lie behind the proxy."""
    return str(run["artifact_uri"]).removeprefix("mlflow-artifacts:/")
