"""Settings of the command line and the flows; the only reader of the environment on this side.

Also decides which environment the parts are started with: what the user set for Signalbox is
passed on, ambient addresses of other MLflow and Prefect servers are replaced by ours.
"""

import os
import sys
import tempfile
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import Field, SecretStr, field_validator, model_validator

from flows.rollout.policy import Usual
from serving.store.settings import StoreSettings

_PREFIX = "SIGNALBOX_"
_DEFAULT_PORTS = {"http": 80, "https": 443}
_LOOPBACK_HOSTS = "localhost,127.0.0.1,::1"

PREFECT_BEHAVIOUR = {
    # A run that an event or a person asked for starts within seconds.
    "PREFECT_WORKER_QUERY_SECONDS": "1",
    # By default a run's process is started ten seconds early and waits.
    "PREFECT_WORKER_PREFETCH_SECONDS": "1",
    # In memory, a restart of the server would leave every slot of a killed run taken for ever.
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
    # Growth is bounded: a minutely flow leaves half a million runs a year.
    "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
    "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": str(7 * 86400),
    "PREFECT_SERVER_EVENTS_RETENTION_PERIOD": "P2D",
    # Nothing is sent to anybody, and no process samples itself.
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_TELEMETRY_ENABLE_RESOURCE_METRICS": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "DO_NOT_TRACK": "1",
    # Output goes to log files, and nobody is there to answer.
    "PREFECT_CLI_PROMPT": "false",
    "PREFECT_CLI_COLORS": "false",
    "PREFECT_LOGGING_COLORS": "false",
}
# Settings of another Prefect that the user works with; they must not reach ours.
_AMBIENT_PREFECT = {
    "PREFECT_API_URL",
    "PREFECT_API_KEY",
    "PREFECT_API_AUTH_STRING",
    "PREFECT_API_SSL_CERT_FILE",
    "PREFECT_API_TLS_INSECURE_SKIP_VERIFY",
    "PREFECT_HOME",
    "PREFECT_PROFILE",
    "PREFECT_PROFILES_PATH",
    "PREFECT_SERVER_API_AUTH_STRING",
    "PREFECT_SERVER_API_HOST",
    "PREFECT_SERVER_API_PORT",
    "PREFECT_SERVER_DATABASE_CONNECTION_URL",
    "PREFECT_API_DATABASE_CONNECTION_URL",
    "PREFECT_UI_API_URL",
}


class FlowSettings(StoreSettings):
    """`SIGNALBOX_*` variables of the `signalbox` command and the flows."""

    host: str = Field("127.0.0.1", description="Address the HTTP server binds.")
    port: int = Field(8080, ge=0, le=65535, description="Port of the HTTP server.")
    serving_url: str = Field(
        "http://127.0.0.1:8080", description="Where serving is reached; by default made from host and port."
    )
    tls_certificate: Path | None = Field(
        None, description="PEM file with the certificate chain; HTTP and gRPC then speak TLS alone."
    )
    replica_urls: str = Field(
        "", description="Comma-separated URLs of further serving replicas, for emergency rollback."
    )
    min_functional_accuracy: float = Field(
        0.8, ge=0, le=1, description="Accuracy on its declared set below which a model's health is a warning."
    )
    rollback_on_critical: bool = Field(
        True, description="Whether a champion whose functional health turns critical is rolled back."
    )
    memory_mb: int = Field(
        2048, gt=0, description="Memory that loaded models may take, measured; more than that sleep on disk."
    )
    validation_seconds: float = Field(
        40.0, gt=0, description="Longest time the measuring process of a validation may take."
    )
    validation_memory_mb: float = Field(
        4096.0,
        ge=256,
        description="Most memory that process may hold: both versions, the libraries and their work.",
    )
    start_seconds: float = Field(
        120.0, gt=0, description="Longest time `up` waits for one part to become ready."
    )
    slack_bot_token: SecretStr | None = Field(
        None, description="Bot token (xoxb-) of a Slack app that may `chat:write`; posts to the channel."
    )
    slack_channel: str = Field("", description="Slack channel for notices: its ID, or its name.")
    slack_webhook_url: SecretStr | None = Field(
        None, description="Incoming webhook of Slack, used where there is no bot token."
    )
    slack_api_url: str = Field("https://slack.com/api/", description="Slack's Web API.")
    drift_rows: int = Field(1000, gt=0, description="How many of the newest rows a drift check looks at.")
    drift_minimum_rows: int = Field(
        100, gt=1, description="Fewest rows on each side of a drift check; below it there is no verdict."
    )

    strategy: Literal["staged", "direct"] = Field(
        "staged", description="How a version is promoted where nobody says: `staged` or `direct`."
    )
    stages: str = Field(
        "5,25,50,100",
        description="Percents of traffic a staged rollout goes through; `shadow` first: copies only.",
    )
    stage_seconds: float = Field(
        60.0, gt=0, description="Shortest time that each stage of a rollout is observed."
    )
    rollout_policy: Path | None = Field(
        None, description="TOML file with limits of your own for the judge of staged rollouts."
    )

    model_quiet_seconds: float = Field(
        10.0, ge=0, le=60, description="How long a model file must stay unchanged before it is looked into."
    )
    register_seconds: float = Field(
        120.0, gt=0, description="Longest time that checking one model file may take."
    )
    register_memory_mb: float = Field(
        4096.0, gt=0, description="Most memory that loading one model file may take while it is checked."
    )
    max_model_mb: int = Field(8192, gt=0, description="Largest model file that is registered.")

    @model_validator(mode="before")
    @classmethod
    def _serving_url_from_address(cls, values: dict[str, Any]) -> dict[str, Any]:
        told = [values.get(name) for name in ("host", "port", "tls_certificate")]
        if not values.get("serving_url") and any(told):
            host = reachable_host(str(values.get("host") or "127.0.0.1"))
            scheme = "https" if values.get("tls_certificate") else "http"
            values["serving_url"] = f"{scheme}://{host}:{values.get('port') or 8080}"
        return values

    @field_validator("serving_url")
    @classmethod
    def _without_trailing_slash(cls, url: str) -> str:
        return url.rstrip("/")

    @property
    def usual_plan(self) -> Usual:
        return Usual(self.stages, self.stage_seconds, self.rollout_policy)

    @property
    def serving_urls(self) -> list[str]:
        """Every known serving replica, the one at `serving_url` first."""
        replicas = (url.strip().rstrip("/") for url in self.replica_urls.split(","))
        return list(dict.fromkeys([self.serving_url, *(url for url in replicas if url)]))

    @property
    def bind_host(self) -> str:
        """What serving is told to bind: as set, else where it is to be reached if that is this machine."""
        named = url_host(self.serving_url)
        return named if "host" not in self.model_fields_set and is_loopback(named) else self.host

    @property
    def bind_port(self) -> int:
        local = is_loopback(url_host(self.serving_url))
        return url_port(self.serving_url) if "port" not in self.model_fields_set and local else self.port


def url_host(url: str) -> str:
    return urlsplit(url).hostname or ""


def url_port(url: str) -> int:
    """The port a URL names, or the usual one of its scheme."""
    parts = urlsplit(url)
    return parts.port or _DEFAULT_PORTS.get(parts.scheme, 80)


def is_loopback(host: str) -> bool:
    """Whether `host` can only be this machine."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def reachable_host(bound: str) -> str:
    """How this machine reaches a server bound to `bound`, in the form a URL needs."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(bound, bound)
    return f"[{host}]" if ":" in host else host


def part_environment(settings: FlowSettings) -> dict[str, str]:
    """The whole environment of a started part."""
    ours = {
        "SIGNALBOX_HOST": settings.bind_host,
        "SIGNALBOX_PORT": str(settings.bind_port),
        "MLFLOW_TRACKING_URI": settings.mlflow_url,
        "PYTHONUNBUFFERED": "1",
        # Flow runs are started as `python3`, which must be the one that has Signalbox installed.
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath))),
    }
    ambient = {name: value for name, value in os.environ.items() if name not in _AMBIENT_PREFECT}
    prefect = _prefect_variables(settings)
    return {**ambient, **_dotenv(), **_as_variables(settings), **_proxy_exemption(), **prefect, **ours}


def _prefect_variables(settings: FlowSettings) -> dict[str, str]:
    """Where Prefect is and how it behaves; of the behaviour, what the user set for Prefect outranks ours."""
    found = {
        "PREFECT_HOME": str(settings.home / "prefect"),
        "PREFECT_API_URL": settings.prefect_api_url,
    }
    if settings.prefect_api_key is not None:
        found["PREFECT_API_KEY"] = settings.prefect_api_key.get_secret_value()
    if settings.prefect_api_auth_string is not None:
        secret = settings.prefect_api_auth_string.get_secret_value()
        found |= {"PREFECT_API_AUTH_STRING": secret, "PREFECT_SERVER_API_AUTH_STRING": secret}
    if settings.ca_bundle is not None:
        found["PREFECT_API_SSL_CERT_FILE"] = str(settings.ca_bundle)
    chosen = {name: os.environ[name] for name in PREFECT_BEHAVIOUR if name in os.environ}
    return {**PREFECT_BEHAVIOUR, **chosen, **found}


def runtime_folder() -> Path:
    """A short folder of this user alone for sockets whose path would otherwise be too long."""
    return Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()) / f"signalbox-{os.getuid()}"


def _dotenv() -> dict[str, str]:
    """Our variables of `.env`, for settings that only a started part knows; the environment outranks them."""
    found: Mapping[str, str | None] = dotenv_values(".env")
    named = {name.upper(): value for name, value in found.items() if value is not None}
    taken = {name.upper() for name in os.environ}
    return {name: value for name, value in named.items() if name.startswith(_PREFIX) and name not in taken}


def _as_variables(settings: FlowSettings) -> dict[str, str]:
    values = {name: getattr(settings, name) for name in FlowSettings.model_fields}
    plain = {
        name: value.get_secret_value() if isinstance(value, SecretStr) else value
        for name, value in values.items()
    }
    return {f"{_PREFIX}{name.upper()}": str(value) for name, value in plain.items() if value is not None}


def _proxy_exemption() -> dict[str, str]:
    """Parts talk to one another over loopback, where no proxy may come between."""
    given = os.environ.get("NO_PROXY") or os.environ.get("no_proxy") or ""
    exempt = f"{given},{_LOOPBACK_HOSTS}" if given else _LOOPBACK_HOSTS
    return {"NO_PROXY": exempt, "no_proxy": exempt}
