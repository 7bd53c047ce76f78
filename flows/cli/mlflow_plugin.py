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
from flows.cli.mlflow_options import HELP, payload, wish_of
from flows.settings import FlowSettings
from flows.wiring import wired
from serving.core.errors import SignalboxError
from serving.core.model import Alias, VersionRef
from serving.store.guard import Wish

_MODEL_URI = re.compile(r"models:/(?P<name>[^/@]+)(?:/(?P<version>[1-9][0-9]*)|@(?P<alias>[^/@]+))")
_LOOK_SECONDS = 0.5


class SignalboxClient(BaseDeploymentClient):  # type: ignore[misc]  # MLflow ships no types here
    """What MLflow's command line and `get_deploy_client("signalbox")` work with."""

    def __init__(self, target_uri: str) -> None:
        super().__init__(target_uri)
        self._settings = FlowSettings()
        place = urlsplit(target_uri).netloc
        scheme = urlsplit(self._settings.serving_url).scheme
        self._url = f"{scheme}://{place}" if place else self._settings.serving_url

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
            return PredictionsResponse(serving.post(path, payload(inputs)))

    def explain(self, deployment_name: str | None = None, df: Any = None, endpoint: str | None = None) -> Any:
        raise MlflowException("Signalbox serves answers, not explanations")

    def _champion(self, name: str) -> dict[str, Any] | None:
        return next((each for each in self.list_deployments() if each["name"] == name), None)

    def _promote(
        self, name: str, model_uri: str, config: Mapping[str, Any] | None, *, usual_strategy: str
    ) -> None:
        wish, wait_seconds = wish_of(name, dict(config or {}), usual_strategy)
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
    return HELP


@contextmanager
def _told() -> Iterator[None]:
    """Our errors as MLflow's: the sentence stays."""
    try:
        yield
    except Unreachable as error:
        raise MlflowException(str(error), error_code=TEMPORARILY_UNAVAILABLE) from None
    except (CommandFailed, SignalboxError) as error:
        raise MlflowException(str(error)) from None


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
