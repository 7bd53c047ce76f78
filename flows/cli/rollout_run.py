"""Has Prefect work on a rollout; without Prefect what was recorded waits for the minutely flow."""

from collections.abc import Mapping

from flows.cli.console import say, warn
from flows.cli.errors import CommandFailed
from flows.cli.orchestration import orchestration
from flows.settings import FlowSettings
from serving.store.text import JsonValue

DEPLOYMENT = "promote-model/promote-model"


def start(settings: FlowSettings, parameters: Mapping[str, JsonValue], *, quiet: bool) -> None:
    """Start a run of the flow that promotes, and say where it can be followed."""
    try:
        with orchestration(settings) as prefect:
            run = prefect.start_run(DEPLOYMENT, dict(parameters))
    except CommandFailed as error:
        warn(f"{error.problem}; the rollout is recorded and starts when Prefect is back")
        return
    if not quiet:
        say(f"follow it at {settings.prefect_api_url.removesuffix('/api')}/runs/flow-run/{run}")
