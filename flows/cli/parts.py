"""The parts of a stack, one row each: what runs, where it answers and how it is told to be ready."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from flows.cli.decision import Answer, Facts, Probe
from flows.cli.errors import CommandFailed
from flows.cli.ports import port_owner
from flows.cli.probe import is_ready, probe_mlflow, probe_prefect, probe_serving
from flows.cli.worker import worker_command, worker_is_ready
from flows.settings import FlowSettings, is_loopback, url_host, url_port
from flows.trust import trust

# glibc keeps what a released model used unless large blocks are mapped on their own and trimmed early.
SERVING_ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
# -P: a user's own folder called `serving` or `flows` must not stand in for ours.
SERVING_COMMAND = (sys.executable, "-P", "-m", "serving")


@dataclass(frozen=True, slots=True)
class Part:
    """One row. Parts start in the order of the table and stop in the reverse one."""

    name: str
    title: str
    setting: str
    credentials: str
    url: Callable[[FlowSettings], str]
    command: Callable[[FlowSettings], list[str]]
    probe: Callable[[FlowSettings], Probe]
    ready: Callable[[FlowSettings, str], bool]
    obstacle: Callable[[FlowSettings], str]
    stop_seconds: int
    environment: Mapping[str, str] = field(default_factory=dict)
    # Started at once, while others are waited for: it needs none of them.
    early: bool = False
    # A part without a port is never somebody else's.
    listens: bool = True


def mlflow_command(settings: FlowSettings) -> list[str]:
    return [
        str(_mlflow_launcher()), "--python", sys.executable, "--home", str(settings.home),
        "--host", url_host(settings.mlflow_url), "--port", str(url_port(settings.mlflow_url)),
    ]  # fmt: skip


def _mlflow_launcher() -> Path:
    """In a checkout the launcher lies in `mlflow/`; an installed package carries it beside this module."""
    here = Path(__file__).parent
    for folder in (here.parents[1], here):
        if (folder / "mlflow" / "launch").is_file():
            return folder / "mlflow" / "launch"
    step = "reinstall the package, or set SIGNALBOX_MLFLOW_URL to a running MLflow"
    raise CommandFailed("the MLflow launcher mlflow/launch is missing", next_step=step)


def prefect_command(settings: FlowSettings) -> list[str]:
    host, port = url_host(settings.prefect_api_url), str(url_port(settings.prefect_api_url))
    return [sys.executable, "-P", "-m", "prefect", "server", "start", "--host", host, "--port", port]


def _prefect_obstacle(settings: FlowSettings) -> str:
    url = urlsplit(settings.prefect_api_url)
    if url.scheme == "http" and url.path == "/api":
        return ""
    return "start it by hand, or set SIGNALBOX_PREFECT_API_URL to a URL of the form http://host:port/api"


def _serving_obstacle(settings: FlowSettings) -> str:
    if settings.bind_port != url_port(settings.serving_url):
        return f"SIGNALBOX_PORT says {settings.bind_port} and SIGNALBOX_SERVING_URL does not: make them agree"
    scheme = "http" if settings.tls_certificate is None else "https"
    return _url_obstacle(settings.serving_url, "SIGNALBOX_SERVING_URL", scheme)


def _url_obstacle(url: str, setting: str, scheme: str = "http") -> str:
    """A server started here speaks at the root of its port, and plain HTTP unless it has a certificate."""
    is_root = urlsplit(url).scheme == scheme and urlsplit(url).path in ("", "/")
    return "" if is_root else f"start it by hand, or set {setting} to a URL of the form {scheme}://host:port"


PARTS = (
    Part(
        name="mlflow",
        title="MLflow",
        setting="SIGNALBOX_MLFLOW_URL",
        credentials="set SIGNALBOX_MLFLOW_USERNAME and SIGNALBOX_MLFLOW_PASSWORD, or SIGNALBOX_MLFLOW_TOKEN",
        url=lambda settings: settings.mlflow_url,
        command=mlflow_command,
        probe=probe_mlflow,
        ready=lambda _, url: is_ready(url, "/health"),
        obstacle=lambda settings: _url_obstacle(settings.mlflow_url, "SIGNALBOX_MLFLOW_URL"),
        stop_seconds=15,
        early=True,
    ),
    Part(
        name="prefect",
        title="Prefect",
        setting="SIGNALBOX_PREFECT_API_URL",
        credentials="set SIGNALBOX_PREFECT_API_KEY or SIGNALBOX_PREFECT_API_AUTH_STRING",
        url=lambda settings: settings.prefect_api_url,
        command=prefect_command,
        probe=probe_prefect,
        ready=lambda _, url: is_ready(url, "/health"),
        obstacle=_prefect_obstacle,
        stop_seconds=15,
        early=True,
    ),
    Part(
        name="serving",
        title="serving",
        setting="SIGNALBOX_SERVING_URL",
        credentials="set SIGNALBOX_HOME to the home that server was started with, or SIGNALBOX_SERVING_URL "
        "to a URL with a free port",
        url=lambda settings: settings.serving_url,
        command=lambda settings: list(SERVING_COMMAND),
        probe=probe_serving,
        ready=lambda settings, url: is_ready(url, "/v2/health/ready", trust(settings, url)),
        obstacle=_serving_obstacle,
        stop_seconds=45,
        environment=SERVING_ENVIRONMENT,
    ),
    Part(
        name="worker",
        title="the Prefect worker",
        setting="SIGNALBOX_PREFECT_API_URL",
        credentials="",
        url=lambda settings: settings.prefect_api_url,
        command=worker_command,
        probe=lambda _: Probe(Answer.NOTHING),
        ready=lambda settings, _: worker_is_ready(settings),
        obstacle=lambda _: "",
        stop_seconds=30,
        listens=False,
    ),
)


def facts_about(part: Part, settings: FlowSettings) -> Facts:
    """Look at the part's URL and port."""
    url = part.url(settings)
    host, port = url_host(url), url_port(url)
    loopback = not part.listens or is_loopback(host)
    return Facts(
        title=part.title,
        url=url,
        setting=part.setting,
        credentials=part.credentials,
        loopback=loopback,
        port=port,
        probe=part.probe(settings),
        owner=port_owner(host, port) if part.listens and loopback else None,
        obstacle=part.obstacle(settings),
    )
