"""The writes that make a version in MLflow, over its REST API: run, logged model, files, version.

Called by `flows.catalog.register` in that order; the version comes last and in one call, so that what
the registry shows is whole. Everything made before carries the attempt's id, by which a later run finds
and removes what a dead one left. Nothing is retried blindly.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from flows.catalog.discover import payload
from serving.core.errors import ArtifactRefused, RegistryUnavailable
from serving.core.model import VersionRef

ATTEMPT_TAG = "signalbox.attempt"
_API = "/api/2.0/mlflow"
_PROXY = "/api/2.0/mlflow-artifacts/artifacts"
# A server that keeps files elsewhere answers once it has passed the whole file on.
_UPLOAD = httpx.Timeout(5.0, read=600.0, write=60.0)
_CHUNK_BYTES = 1 << 20
_BATCH = 100
_EVALUATION_FOLDER = "signalbox/evaluation"

Uploaded = Callable[[int], None]
"""Told how many more bytes have been sent."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """What one registration makes; everything in it is found by `id`."""

    id: str
    model: str
    experiment_id: str

    @property
    def text(self) -> str:
        """What the store keeps of it; `read_attempt` reads it back."""
        return f"{self.experiment_id}/{self.id}"


def read_attempt(text: str, model: str) -> Attempt:
    experiment_id, _, id = text.partition("/")
    return Attempt(id, model, experiment_id)


@dataclass(frozen=True, slots=True)
class Logged:
    """A run and the model it logs. `location` is the files' path in the store that MLflow proxies."""

    run_id: str
    model_id: str
    location: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the run says."""

    run_name: str
    user: str
    tags: Mapping[str, str]
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    dataset: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionFacts:
    """Tags as they are stored, with the environment's prefix."""

    tags: Mapping[str, str]
    description: str


class Tracking:
    """One MLflow server. Raises `RegistryUnavailable`, and `ArtifactRefused` for what it does not take."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def attempt(self, id: str, model: str) -> Attempt:
        """With the experiment of the model's name, made or brought back where it is not there."""
        found = self._send("GET", f"experiments/get-by-name?experiment_name={quote(model)}", missing=True)
        if not found:
            return Attempt(id, model, str(self._post("experiments/create", name=model)["experiment_id"]))
        experiment = found["experiment"]
        if experiment["lifecycle_stage"] != "active":
            self._post("experiments/restore", experiment_id=experiment["experiment_id"])
        return Attempt(id, model, str(experiment["experiment_id"]))

    def begin(self, attempt: Attempt, facts: Facts, now_ms: int) -> Logged:
        """A run that is still running, and a logged model that is still pending."""
        mark = {ATTEMPT_TAG: attempt.id}
        run = self._post(
            "runs/create",
            experiment_id=attempt.experiment_id,
            run_name=facts.run_name,
            start_time=now_ms,
            tags=_pairs({"mlflow.user": facts.user, "mlflow.source.name": "signalbox", **facts.tags, **mark}),
        )
        run_id = str(run["run"]["info"]["run_id"])
        made = self._post(
            "logged-models",
            experiment_id=attempt.experiment_id,
            name="".join(letter if letter.isalnum() or letter in "-_ " else "-" for letter in attempt.model),
            source_run_id=run_id,
            tags=_pairs(mark),
            params=_pairs(facts.params)[:_BATCH],
        )["model"]["info"]
        self._log(run_id, str(made["model_id"]), facts, now_ms)
        return Logged(run_id, str(made["model_id"]), self._proxied(str(made["artifact_uri"])))

    def upload(self, logged: Logged, root: Path, uploaded: Uploaded = lambda count: None) -> None:
        for file in payload(root):
            self._put(f"{logged.location}/{file.relative_to(root).as_posix()}", file, uploaded)

    def finish(self, logged: Logged, now_ms: int) -> None:
        """The logged model is ready, and the run has ended."""
        self._post("runs/outputs", run_id=logged.run_id, models=[{"model_id": logged.model_id, "step": 0}])
        ready = {"model_id": logged.model_id, "status": "LOGGED_MODEL_READY"}
        self._send("PATCH", f"logged-models/{logged.model_id}", ready)
        self._post("runs/update", run_id=logged.run_id, status="FINISHED", end_time=now_ms)

    def create_model(self, name: str) -> None:
        """The registered model, unless it is there."""
        if not self._send("GET", f"registered-models/get?name={quote(name)}", missing=True):
            self._post("registered-models/create", name=name)

    def set_model_tag(self, name: str, key: str, value: str) -> None:
        self._post("registered-models/set-tag", name=name, key=key, value=value)

    def create_version(self, model: str, logged: Logged, facts: VersionFacts) -> str:
        """With all its tags in the one call that makes it visible; its number."""
        made = self._post(
            "model-versions/create",
            name=model,
            source=f"models:/{logged.model_id}",
            run_id=logged.run_id,
            model_id=logged.model_id,
            tags=_pairs(facts.tags),
            description=facts.description,
        )
        return str(made["model_version"]["version"])

    def delete_version(self, model: str, version: str) -> None:
        self._send("DELETE", "model-versions/delete", {"name": model, "version": version}, missing=True)

    def delete_version_tag(self, ref: VersionRef, key: str) -> None:
        body = {"name": ref.model, "version": ref.version, "key": key}
        self._send("DELETE", "model-versions/delete-tag", body, missing=True)

    def log_metrics(self, run_id: str, metrics: Mapping[str, float], now_ms: int) -> None:
        self._post("runs/log-batch", run_id=run_id, metrics=_metrics(metrics, now_ms))

    def keep_evaluation(self, file: Path, sha256: str) -> str:
        """Store a set under its digest, once for however many versions; the value of its tag."""
        path = f"{_EVALUATION_FOLDER}/{sha256}.npz"
        with self._reachable():
            held = self._client.head(f"{_PROXY}/{path}", timeout=_UPLOAD)
        if held.status_code != httpx.codes.OK or held.headers.get("content-length") != str(
            file.stat().st_size
        ):
            self._put(path, file, lambda count: None)
        return f"mlflow-artifacts:/{path}"

    def remove(self, attempt: Attempt, keep_run_id: str | None = None) -> None:
        """Whatever an attempt left that no version names: files, logged models, runs."""
        search = {
            "experiment_ids": [attempt.experiment_id],
            "filter": f"tags.`{ATTEMPT_TAG}` = '{attempt.id}'",
        }
        for model in self._post("logged-models/search", **search).get("models", []):
            if model["info"].get("source_run_id") == keep_run_id:
                continue
            self._delete_files(self._proxied(str(model["info"]["artifact_uri"])))
            self._send("DELETE", f"logged-models/{model['info']['model_id']}", missing=True)
        for run in self._post("runs/search", **search).get("runs", []):
            if run["info"]["run_id"] != keep_run_id:
                self._post("runs/delete", run_id=run["info"]["run_id"])

    def _log(self, run_id: str, model_id: str, facts: Facts, now_ms: int) -> None:
        pairs = _pairs(facts.params)
        for start in range(0, len(pairs), _BATCH):
            self._post("runs/log-batch", run_id=run_id, params=pairs[start : start + _BATCH])
        if facts.metrics:
            metrics = [metric | {"model_id": model_id} for metric in _metrics(facts.metrics, now_ms)]
            self._post("runs/log-batch", run_id=run_id, metrics=metrics)
        if facts.dataset is not None:
            self._post("runs/log-inputs", run_id=run_id, datasets=[_dataset(facts.dataset)])

    def _put(self, path: str, file: Path, uploaded: Uploaded) -> None:
        size = {"Content-Length": str(file.stat().st_size)}
        url = f"{_PROXY}/{quote(path)}"
        with self._reachable():
            answer = self._client.put(url, content=_chunks(file, uploaded), headers=size, timeout=_UPLOAD)
        self._checked(answer, f"upload of {file.name}")

    def _delete_files(self, location: str) -> None:
        with self._reachable():
            answer = self._client.delete(f"{_PROXY}/{quote(location)}", timeout=_UPLOAD)
        if answer.status_code != httpx.codes.NOT_FOUND:
            self._checked(answer, f"removal of {location}")

    def _proxied(self, uri: str) -> str:
        parts = urlsplit(uri)
        if parts.scheme != "mlflow-artifacts":
            problem = (
                f"MLflow keeps files at '{parts.scheme or 'file'}:', to which nothing is written directly"
            )
            raise RegistryUnavailable(f"{problem}; let the MLflow server proxy artifacts (--serve-artifacts)")
        return parts.path.strip("/")

    def _post(self, call: str, **body: Any) -> dict[str, Any]:
        return self._send("POST", call, body)

    def _send(
        self, method: str, call: str, body: Mapping[str, Any] | None = None, *, missing: bool = False
    ) -> dict[str, Any]:
        """The answer; an empty one for a 404 where `missing` says that this may be."""
        with self._reachable():
            answer = self._client.request(method, f"{_API}/{call}", json=None if body is None else dict(body))
        if missing and answer.status_code == httpx.codes.NOT_FOUND:
            return {}
        return self._checked(answer, call)

    def _checked(self, answer: httpx.Response, what: str) -> dict[str, Any]:
        said = _said(answer)
        if (
            answer.status_code == httpx.codes.BAD_REQUEST
            and said.get("error_code") == "INVALID_PARAMETER_VALUE"
        ):
            problem = f"MLflow does not take what is said of it: {str(said.get('message'))[:300]}"
            raise ArtifactRefused(problem, next_step="correct the side file")
        if answer.status_code != httpx.codes.OK:
            url, detail = self._client.base_url, str(said.get("message") or answer.text)[:200]
            raise RegistryUnavailable(f"MLflow at {url} answered {answer.status_code} to {what}: {detail}")
        return said

    @contextmanager
    def _reachable(self) -> Iterator[None]:
        try:
            yield
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise RegistryUnavailable(
                f"MLflow at {self._client.base_url} did not answer: {reason}"
            ) from error


def _said(answer: httpx.Response) -> dict[str, Any]:
    try:
        content = answer.json() if answer.content else {}
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _pairs(values: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in values.items()]


def _metrics(metrics: Mapping[str, float], now_ms: int) -> list[dict[str, Any]]:
    return [{"key": key, "value": value, "timestamp": now_ms, "step": 0} for key, value in metrics.items()]


def _dataset(name: str) -> dict[str, Any]:
    """Known by its name alone: what it holds is with whoever trained on it."""
    described = {"name": name[:500], "digest": "unknown", "source_type": "external", "source": "{}"}
    return {"tags": _pairs({"mlflow.data.context": "training"}), "dataset": described}


def _chunks(file: Path, uploaded: Uploaded) -> Iterator[bytes]:
    with file.open("rb") as opened:
        while chunk := opened.read(_CHUNK_BYTES):
            yield chunk
            uploaded(len(chunk))
