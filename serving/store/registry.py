"""The MLflow model registry over its REST API: the wanted state, read and written with plain HTTP.

Thread-safe. One search call per poll; every answer that is not what MLflow promises is a
`RegistryUnavailable`, so a caller keeps its last good state instead of believing an empty one.
"""

import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from serving.core.errors import NotServed, RegistryUnavailable
from serving.core.model import VersionRef
from serving.store.settings import StoreSettings

_API = "/api/2.0/mlflow"
_PAGE_SIZE = 1000
_TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class RegisteredModel:
    """One registered model as the registry shows it; aliases and tags without the environment's prefix."""

    name: str
    created_ms: int
    aliases: Mapping[str, str]
    tags: Mapping[str, str]
    description: str


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """One version. `source` and `created_ms` tell it from a namesake of a deleted model."""

    ref: VersionRef
    created_ms: int
    updated_ms: int
    source: str
    run_id: str
    status: str
    description: str
    user: str
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Run:
    """What training left behind: last value of each metric, parameters, dataset names."""

    metrics: Mapping[str, float]
    params: Mapping[str, str]
    datasets: tuple[str, ...]


def connect(settings: StoreSettings) -> httpx.Client:
    """An HTTP client for the registry, with the credentials and trust the settings name.

    Raises `RegistryUnavailable` for settings that cannot work.
    """
    auth: httpx.BasicAuth | None = None
    headers = {}
    if settings.mlflow_token is not None:
        headers["Authorization"] = f"Bearer {settings.mlflow_token.get_secret_value()}"
    elif settings.mlflow_username is not None:
        password = settings.mlflow_password.get_secret_value() if settings.mlflow_password else ""
        auth = httpx.BasicAuth(settings.mlflow_username, password)
    try:
        return httpx.Client(
            base_url=settings.mlflow_url,
            auth=auth,
            headers=headers,
            timeout=_TIMEOUT_SECONDS,
            verify=ssl.create_default_context(cafile=settings.ca_bundle) if settings.ca_bundle else True,
            trust_env=not _is_loopback(settings.mlflow_url),
        )
    except httpx.InvalidURL as error:
        raise RegistryUnavailable(f"SIGNALBOX_MLFLOW_URL is not a URL: {error}") from error
    except OSError as error:
        raise RegistryUnavailable(f"SIGNALBOX_CA_BUNDLE cannot be used: {error}") from error


class Registry:
    """Reads versions and aliases, and makes the raw writes that `serving.store.guard` guards."""

    def __init__(self, client: httpx.Client, serves: Callable[[str], bool], env: str = "") -> None:
        self._client = client
        self._serves = serves
        self._prefix = f"{env}-" if env else ""

    @property
    def url(self) -> str:
        return str(self._client.base_url).rstrip("/")

    def stored_tag(self, key: str) -> str:
        """The name under which this environment's tag `key` is stored."""
        return self._prefix + key

    def registered_models(self) -> dict[str, RegisteredModel]:
        """Every model that passes the name globs, by name."""
        models: dict[str, RegisteredModel] = {}
        for page in self._pages("registered-models/search", {}):
            with self._well_formed():
                parsed = [self._registered_model(raw) for raw in page.get("registered_models", [])]
            models |= {model.name: model for model in parsed if self._serves(model.name)}
        return models

    def registered_model(self, name: str) -> RegisteredModel:
        """Raises `NotServed` when the registry has no such model."""
        page = self._get("registered-models/get", {"name": name}, missing=f"model '{name}'")
        with self._well_formed():
            return self._registered_model(page["registered_model"])

    def version(self, ref: VersionRef) -> ModelVersion:
        """Raises `NotServed` when the registry has no such version."""
        params = {"name": ref.model, "version": ref.version}
        page = self._get("model-versions/get", params, missing=f"version {ref.version} of '{ref.model}'")
        with self._well_formed():
            return self._model_version(page["model_version"])

    def versions(self, model: str) -> list[ModelVersion]:
        """All versions of a model, oldest first."""
        quoted = model.replace("'", "\\'")
        found: list[ModelVersion] = []
        for page in self._pages("model-versions/search", {"filter": f"name='{quoted}'"}):
            with self._well_formed():
                found += [self._model_version(raw) for raw in page.get("model_versions", [])]
        return sorted(found, key=lambda version: int(version.ref.version))

    def versions_tagged(self, tag: str, value: str) -> list[ModelVersion]:
        """Versions of all models that pass the name globs and carry this tag, oldest first."""
        quoted = value.replace("'", "\\'")
        found: list[ModelVersion] = []
        wanted = {"filter": f"tags.`{self._prefix}{tag}`='{quoted}'"}
        for page in self._pages("model-versions/search", wanted):
            with self._well_formed():
                found += [self._model_version(raw) for raw in page.get("model_versions", [])]
        return sorted((one for one in found if self._serves(one.ref.model)), key=lambda one: one.created_ms)

    def run(self, run_id: str) -> Run:
        page = self._get("runs/get", {"run_id": run_id}, missing=f"run {run_id}")
        with self._well_formed():
            data = page["run"].get("data", {})
            inputs = page["run"].get("inputs", {}).get("dataset_inputs", [])
            return Run(
                metrics={entry["key"]: float(entry["value"]) for entry in data.get("metrics", [])},
                params={entry["key"]: entry["value"] for entry in data.get("params", [])},
                datasets=tuple(entry["dataset"]["name"] for entry in inputs),
            )

    def download_uri(self, ref: VersionRef) -> str:
        params = {"name": ref.model, "version": ref.version}
        page = self._get("model-versions/get-download-uri", params, missing=f"version {ref}")
        with self._well_formed():
            return str(page["artifact_uri"])

    def alias(self, model: str, alias: str) -> str | None:
        """The version `alias` names now, or None."""
        return self.registered_model(model).aliases.get(alias)

    def set_alias(self, model: str, alias: str, version: str) -> None:
        body = {"name": model, "alias": self._prefix + alias, "version": version}
        self._send("POST", "registered-models/alias", body)

    def delete_alias(self, model: str, alias: str) -> None:
        self._send("DELETE", "registered-models/alias", {"name": model, "alias": self._prefix + alias})

    def tag(self, model: str, key: str) -> str | None:
        """The value of a registered model's tag now, or None."""
        return self.registered_model(model).tags.get(key)

    def set_tag(self, model: str, key: str, value: str) -> None:
        body = {"name": model, "key": self._prefix + key, "value": value}
        self._send("POST", "registered-models/set-tag", body)

    def delete_tag(self, model: str, key: str) -> None:
        self._send("DELETE", "registered-models/delete-tag", {"name": model, "key": self._prefix + key})

    def set_version_tag(self, ref: VersionRef, key: str, value: str) -> None:
        body = {"name": ref.model, "version": ref.version, "key": self._prefix + key, "value": value}
        self._send("POST", "model-versions/set-tag", body)

    def set_version_description(self, ref: VersionRef, description: str) -> None:
        body = {"name": ref.model, "version": ref.version, "description": description}
        self._send("PATCH", "model-versions/update", body)

    def _registered_model(self, raw: Mapping[str, Any]) -> RegisteredModel:
        aliases = {entry["alias"]: str(entry["version"]) for entry in raw.get("aliases", [])}
        return RegisteredModel(
            name=raw["name"],
            created_ms=int(raw["creation_timestamp"]),
            aliases=self._ours(aliases),
            tags=self._ours({entry["key"]: entry.get("value", "") for entry in raw.get("tags", [])}),
            description=raw.get("description", ""),
        )

    def _model_version(self, raw: Mapping[str, Any]) -> ModelVersion:
        return ModelVersion(
            ref=VersionRef(raw["name"], str(raw["version"])),
            created_ms=int(raw["creation_timestamp"]),
            updated_ms=int(raw.get("last_updated_timestamp", raw["creation_timestamp"])),
            source=raw.get("source", ""),
            run_id=raw.get("run_id", ""),
            status=raw.get("status", "READY"),
            description=raw.get("description", ""),
            user=raw.get("user_id", ""),
            tags=self._ours({entry["key"]: entry.get("value", "") for entry in raw.get("tags", [])}),
        )

    def _ours(self, named: Mapping[str, str]) -> dict[str, str]:
        start = len(self._prefix)
        return {key[start:]: value for key, value in named.items() if key.startswith(self._prefix)}

    def _pages(self, call: str, params: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        token = ""
        while True:
            place: dict[str, str | int] = {"page_token": token} if token else {}
            page = self._get(call, {**params, "max_results": _PAGE_SIZE, **place})
            yield page
            token = str(page.get("next_page_token") or "")
            if not token:
                return

    def _get(self, call: str, params: Mapping[str, str | int], missing: str = "") -> dict[str, Any]:
        with self._reachable():
            response = self._client.get(f"{_API}/{call}", params=dict(params))
        return self._answer(response, missing)

    def _send(self, method: str, call: str, body: Mapping[str, str]) -> None:
        with self._reachable():
            response = self._client.request(method, f"{_API}/{call}", json=dict(body))
        self._answer(response, missing=f"{body['name']} as named in {call}")

    def _answer(self, response: httpx.Response, missing: str) -> dict[str, Any]:
        if response.status_code == httpx.codes.NOT_FOUND and missing and _error_code(response):
            raise NotServed(f"the registry at {self.url} has no {missing}")
        if response.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise RegistryUnavailable(
                f"MLflow at {self.url} refused the credentials (status {response.status_code}); set "
                "SIGNALBOX_MLFLOW_USERNAME and SIGNALBOX_MLFLOW_PASSWORD, or SIGNALBOX_MLFLOW_TOKEN"
            )
        if response.status_code != httpx.codes.OK:
            detail = response.text[:200]
            raise RegistryUnavailable(f"MLflow at {self.url} answered {response.status_code}: {detail}")
        with self._well_formed():
            answer = response.json()
            if not isinstance(answer, dict):
                raise TypeError("not a JSON object")
            return answer

    @contextmanager
    def _reachable(self) -> Iterator[None]:
        try:
            yield
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise RegistryUnavailable(f"MLflow at {self.url} did not answer: {reason}") from error

    @contextmanager
    def _well_formed(self) -> Iterator[None]:
        try:
            yield
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RegistryUnavailable(
                f"MLflow at {self.url} answered something that is not its registry API ({error!r})"
            ) from error


def _error_code(response: httpx.Response) -> str:
    """MLflow's own error code; empty for a 404 of something that is no MLflow server."""
    try:
        return str(response.json()["error_code"])
    except (KeyError, TypeError, ValueError):
        return ""


def _is_loopback(url: str) -> bool:
    host = httpx.URL(url).host
    return host in ("localhost", "::1") or host.startswith("127.")
