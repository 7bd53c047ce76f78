"""What MLflow's deployments commands may be given, as Signalbox's API takes it: options, inputs, the help.

Called by `flows.cli.mlflow_plugin`, which MLflow looks into: nothing here may be a deployment client.
"""

from collections.abc import Mapping
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

_PLANS = {"stages": "rollout_stages", "rollout_stages": "rollout_stages"}
_SECONDS = frozenset({"stage_seconds", "stage_deadline_seconds"})
_LIMITS = frozenset({"min_accuracy", "max_accuracy_drop", "max_p95_ms", "max_memory_mb"})
_KNOWN = frozenset({"strategy", "wait", "wait_seconds", *_PLANS, *_SECONDS, *_LIMITS})
_WAIT_SECONDS = 900.0

HELP = """Signalbox serves the registered models of this MLflow and promotes their versions.

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
  strategy=staged|direct    stages=[shadow,]5,25,50,100    stage_seconds=60    stage_deadline_seconds=900
  min_accuracy=0.9    max_accuracy_drop=0.01    max_p95_ms=50    max_memory_mb=512
  wait=true|false    wait_seconds=900
"""


def wish_of(name: str, config: Mapping[str, Any], usual_strategy: str) -> tuple[dict[str, Any], float]:
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
    parts = value.split(",") if isinstance(value, str) else value
    return [0 if part == "shadow" else int(part) for part in parts]


def payload(inputs: Any) -> dict[str, Any]:
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
