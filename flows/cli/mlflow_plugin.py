"""MLflow's deployments interface to Signalbox: `mlflow deployments ... -t signalbox`.

A deployment is a registered model that is served; its name is the model's. To create or update one is to
promote a version, with all that belongs to it; to delete one is to withdraw alias `champion`. MLflow finds
this module by the entry point `mlflow.deployments` and calls the functions and the one class in it.
"""

import getpass
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, urlsplit

from mlflow.deployments import BaseDeploymentClient, PredictionsResponse
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    INVALID_PARAMETER_VALUE,
    RESOURCE_ALREADY_EXISTS,
    RESOURCE_DOES_NOT_EXIST,
    TEMPORARILY_UNAVAILABLE,
)

from flows.cli.client import ServingClient
from flows.cli.errors import CommandFailed, Unreachable
from flows.settings import FlowSettings
from flows.wiring import wired
from serving.core.errors import SignalboxError
from serving.core.model import Alias, VersionRef
from serving.store.guard import Wish

_MODEL_URI = re.compile(r"models:/(?P<name>[^/@]+)(?:/(?P<version>[1-9][0-9]*)|@(?P<alias>[^/@]+))")
_PLANS = {"stages": "rollout_stages", "rollout_stages": "rollout_stages"}
_SECONDS = frozenset({"stage_seconds", "stage_deadline_seconds"})
_LIMITS = frozenset({"min_accuracy", "max_accuracy_drop", "max_p95_ms", "max_memory_mb"})
_KNOWN = frozenset({"strategy", "wait", "wait_seconds", *_PLANS, *_SECONDS, *_LIMITS})
_WAIT_SECONDS = 900.0
_LOOK_SECONDS = 0.5


class SignalboxClient(BaseDeploymentClient):  # type: ignore[misc]  # MLflow ships no types here
    """What MLflow's command line and `get_deploy_client("signalbox")` work with."""

    def __init__(self, target_uri: str) -> None:
        super().__init__(target_uri)
        self._settings = FlowSettings()
        place = urlsplit(target_uri).netloc
        self._url = f"http://{place}" if place else self._settings.serving_url

    def create_deployment(
        self,
        name: str,
        model_uri: str,
        flavor: str | None = None,
        config: Mapping[str, Any] | None = None,
        endpoint: str | None = None,
    ) -> dict[str, Any]:
        """Promote the first version of a model; refused where one answers already."""
        _refuse_extras(flavor, endpoint)
        if self._champion(name) is not None:
            problem = f"deployment '{name}' exists already; change it with update"
            raise MlflowException(problem, error_code=RESOURCE_ALREADY_EXISTS)
        self._promote(name, model_uri, config, usual_strategy="direct")
        return {"name": name, "flavor": None, **self.get_deployment(name)}

    def update_deployment(
        self,
        name: str,
        model_uri: str | None = None,
        flavor: str | None = None,
        config: Mapping[str, Any] | None = None,
        endpoint: str | None = None,
    ) -> dict[str, Any]:
        """Promote another version, by stages unless `config` says `strategy=direct`."""
        _refuse_extras(flavor, endpoint)
        if model_uri is None:
            problem = "what can be updated is the version: name one with -m models:/NAME/VERSION"
            raise MlflowException(problem, error_code=INVALID_PARAMETER_VALUE)
        if self._champion(name) is None:
            problem = f"there is no deployment '{name}'; make one with create"
            raise MlflowException(problem, error_code=RESOURCE_DOES_NOT_EXIST)
        self._promote(name, model_uri, config, usual_strategy="staged")
        return {"name": name, "flavor": None}

    def delete_deployment(
        self, name: str, config: Mapping[str, Any] | None = None, endpoint: str | None = None
    ) -> None:
        """Withdraw alias `champion`; serving goes on for SIGNALBOX_ORPHAN_MINUTES. Repeatable."""
        _refuse_extras(None, endpoint)
        actor = f"unverified:{getpass.getuser()}"
        with _told(), wired(self._settings) as wiring:
            if name not in wiring.registry.registered_models():
                return
            wish = Wish(name, Alias.CHAMPION, None, actor, "mlflow deployments delete")
            with wiring.guard.holding(name, f"mlflow-plugin:{time.monotonic_ns()}") as lease:
                move = wiring.guard.move(wish, lease)
        if not move.is_settled:
            problem = f"alias champion of '{name}' was not withdrawn: {move.reason}"
            raise MlflowException(problem, error_code=TEMPORARILY_UNAVAILABLE)

    def list_deployments(self, endpoint: str | None = None) -> list[dict[str, Any]]:
        """Every model that has a champion, wanted or served."""
        _refuse_extras(None, endpoint)
        with _told(), self._serving() as serving:
            models = serving.get("/api/v2/model-info")["models"]
        return [_deployment(model) for model in models if _names_champion(model)]

    def get_deployment(self, name: str, endpoint: str | None = None) -> dict[str, Any]:
        _refuse_extras(None, endpoint)
        found = self._champion(name)
        if found is None:
            known = ", ".join(each["name"] for each in self.list_deployments()) or "none"
            raise MlflowException(
                f"there is no deployment '{name}'; there are: {known}", error_code=RESOURCE_DOES_NOT_EXIST
            )
        return found

    def predict(
        self, deployment_name: str | None = None, inputs: Any = None, endpoint: str | None = None
    ) -> PredictionsResponse:
        """Ask the champion as MLflow's scoring server is asked; a data frame, an array or a mapping."""
        _refuse_extras(None, endpoint)
        if deployment_name is None:
            raise MlflowException("name a deployment", error_code=INVALID_PARAMETER_VALUE)
        with _told(), self._serving() as serving:
            path = f"/models/{quote(deployment_name, safe='')}/invocations"
            return PredictionsResponse(serving.post(path, _payload(inputs)))

    def explain(self, deployment_name: str | None = None, df: Any = None, endpoint: str | None = None) -> Any:
        raise MlflowException("Signalbox serves answers, not explanations")

    def _champion(self, name: str) -> dict[str, Any] | None:
        return next((each for each in self.list_deployments() if each["name"] == name), None)

    def _promote(
        self, name: str, model_uri: str, config: Mapping[str, Any] | None, *, usual_strategy: str
    ) -> None:
        wish, wait_seconds = _wish(name, dict(config or {}), usual_strategy)
        wish["version"] = self._version(name, model_uri)
        with _told(), self._serving() as serving:
            accepted = serving.post("/api/v2/update-models", wish)
            status = self._followed(serving, str(accepted["status_url"]), wait_seconds)
        if status["success"] is False:
            raise MlflowException(
                f"version {wish['version']} of '{name}' was not promoted ({status['state']}): "
                f"{status['message']}; rollout {status['swap_id']}"
            )
        if status["success"] is None and wait_seconds > 0:
            raise MlflowException(
                f"the rollout of version {wish['version']} of '{name}' goes on after {wait_seconds:g} s "
                f"({status['message']}); follow it with 'signalbox rollouts {name}'",
                error_code=TEMPORARILY_UNAVAILABLE,
            )

    def _followed(self, serving: ServingClient, path: str, seconds: float) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        while True:
            status = serving.get(path)
            if status["success"] is not None or time.monotonic() >= deadline:
                return status
            time.sleep(_LOOK_SECONDS)

    def _version(self, name: str, model_uri: str) -> str:
        found = _MODEL_URI.fullmatch(model_uri)
        if found is None or found["name"] != name:
            problem = f"the model of deployment '{name}' is named models:/{name}/VERSION, not '{model_uri}'"
            raise MlflowException(problem, error_code=INVALID_PARAMETER_VALUE)
        with _told(), wired(self._settings) as wiring:
            alias = found["alias"]
            version = wiring.registry.alias(name, alias) if alias is not None else found["version"]
            if version is None:
                problem = f"'{name}' has no alias '{alias}'"
                raise MlflowException(problem, error_code=RESOURCE_DOES_NOT_EXIST)
            return wiring.registry.version(VersionRef(name, version)).ref.version

    def _serving(self) -> ServingClient:
        return ServingClient.of(self._settings, self._url)


def run_local(
    target: str,
    name: str,
    model_uri: str,
    flavor: str | None = None,
    config: Mapping[str, Any] | None = None,
) -> None:
    """Deploy to the Signalbox of this machine, which `signalbox up` starts: it is local already."""
    client = SignalboxClient(target)
    with _told(), client._serving() as serving:
        serving.get("/v2")
    if client._champion(name) is None:
        client.create_deployment(name, model_uri, flavor, config)
    else:
        client.update_deployment(name, model_uri, flavor, {"strategy": "direct", **(config or {})})


def target_help() -> str:
    """What `mlflow deployments help -t signalbox` prints."""
    return _HELP


_HELP = """Signalbox serves the registered models of this MLflow and promotes their versions.

Target:   signalbox               the server at SIGNALBOX_SERVING_URL (default http://127.0.0.1:8080)
          signalbox://HOST:PORT   another one
The key in admin.key of SIGNALBOX_HOME is used. Start everything with 'signalbox up'.

Name of a deployment: the registered model. Model: models:/NAME/VERSION or models:/NAME@ALIAS.

create    promotes a first version at once
update    promotes a version by stages of live traffic, judged at each; waits for the end
delete    withdraws alias champion
predict   asks the champion; input as of MLflow's /invocations
run-local as create or update, at once, on this machine's server

-C options of create and update:
  strategy=staged|direct    stages=5,25,50,100    stage_seconds=60    stage_deadline_seconds=900
  min_accuracy=0.9    max_accuracy_drop=0.01    max_p95_ms=50    max_memory_mb=512
  wait=true|false    wait_seconds=900
"""


@contextmanager
def _told() -> Iterator[None]:
    """Our errors as MLflow's: the sentence stays."""
    try:
        yield
    except Unreachable as error:
        raise MlflowException(str(error), error_code=TEMPORARILY_UNAVAILABLE) from None
    except (CommandFailed, SignalboxError) as error:
        raise MlflowException(str(error)) from None


def _wish(name: str, config: Mapping[str, Any], usual_strategy: str) -> tuple[dict[str, Any], float]:
    """The body for `update-models`, and how long to wait. `-C` gives everything as text."""
    if unknown := config.keys() - _KNOWN:
        problem = f"'{min(unknown)}' is no option; known are {', '.join(sorted(_KNOWN))}"
        raise MlflowException(problem, error_code=INVALID_PARAMETER_VALUE)
    wish: dict[str, Any] = {"model": name, "strategy": config.get("strategy", usual_strategy)}
    try:
        for option, field in _PLANS.items():
            if option in config:
                wish[field] = _percents(config[option])
        wish |= {option: float(config[option]) for option in _SECONDS & config.keys()}
        limits = {option: float(config[option]) for option in _LIMITS & config.keys()}
        seconds = float(config.get("wait_seconds", _WAIT_SECONDS))
    except (TypeError, ValueError) as error:
        problem = f"an option cannot be used: {error}"
        raise MlflowException(problem, error_code=INVALID_PARAMETER_VALUE) from None
    if limits:
        wish["validation"] = limits
    waits = str(config.get("wait", "true")).lower() not in ("false", "no", "0")
    return wish, seconds if waits else 0.0


def _percents(value: Any) -> list[int]:
    return [int(part) for part in (value.split(",") if isinstance(value, str) else value)]


def _payload(inputs: Any) -> dict[str, Any]:
    """In one of the forms of `/invocations`; what has columns goes as a table."""
    if hasattr(inputs, "to_dict") and hasattr(inputs, "columns"):
        return {"dataframe_split": inputs.to_dict(orient="split")}
    if isinstance(inputs, Mapping) and inputs.keys() & {"dataframe_split", "dataframe_records", "instances"}:
        return dict(inputs)
    if isinstance(inputs, Mapping):
        given = inputs.get("inputs", inputs)
        plain = {n: _plain(v) for n, v in given.items()} if isinstance(given, Mapping) else _plain(given)
        return {"inputs": plain}
    return {"inputs": _plain(inputs)}


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value


def _names_champion(model: Mapping[str, Any]) -> bool:
    state = model["aliases"].get(Alias.CHAMPION, {})
    return bool(state.get("wanted") or state.get("served"))


def _deployment(model: Mapping[str, Any]) -> dict[str, Any]:
    champion = model["aliases"][Alias.CHAMPION]
    version = champion["served"] or champion["wanted"]
    return {
        "name": model["name"],
        "model_uri": f"models:/{model['name']}/{version}",
        "version": champion["served"],
        "wanted": champion["wanted"],
        "reason": champion["reason"],
        "frozen": model.get("frozen"),
        "tags": model["tags"],
    }


def _refuse_extras(flavor: str | None, endpoint: str | None) -> None:
    if flavor is not None:
        problem = "the flavour is the version's own; leave it out"
        raise MlflowException(problem, error_code=INVALID_PARAMETER_VALUE)
    if endpoint is not None:
        raise MlflowException("Signalbox has no endpoints", error_code=INVALID_PARAMETER_VALUE)
