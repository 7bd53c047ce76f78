"""The demonstration's settings: a home and ports of its own, nothing of what the user set for theirs."""

import os
from collections.abc import Callable
from pathlib import Path

from pydantic import SecretStr

from flows.cli.demo.slack_receiver import SlackReceiver
from flows.cli.errors import CommandFailed
from flows.cli.ports import port_owner
from flows.settings import FlowSettings

HOME_NAME = ".signalbox-demo"
MODEL = "digits"

_HOST = "127.0.0.1"
_PORTS_TO_TRY = 100
_START_SECONDS = 180.0
_STAGE_SECONDS = 4.0
# What is set for the user's own servers and runs must reach neither the stack nor the training.
_FOREIGN = ("SIGNALBOX_", "MLFLOW_", "PREFECT_")


def forget_ambient() -> None:
    """Drop the user's variables from the environment of this process and of all it starts."""
    for name in [name for name in os.environ if name.upper().startswith(_FOREIGN)]:
        del os.environ[name]


def settings_for(home: Path, slack: SlackReceiver) -> FlowSettings:
    """Settings of a stack in `home`, each part on a port that nobody listens on; notices go to `slack`."""
    return FlowSettings(
        home=home,
        store_url=f"sqlite:///{home / 'signalbox.db'}",
        mlflow_url=_unused_url(5000),
        prefect_api_url=f"{_unused_url(4200)}/api",
        serving_url=_unused_url(8080),
        start_seconds=_START_SECONDS,
        # The traffic of seconds is enough for the judge; the least number of requests is left as it is.
        stage_seconds=_STAGE_SECONDS,
        slack_bot_token=SecretStr(slack.token),
        slack_channel=slack.channel,
        slack_api_url=slack.api_url,
    )


def _unused_url(usual_port: int) -> str:
    return f"http://{_HOST}:{unused_port(usual_port)}"


def unused_port(usual: int, is_busy: Callable[[int], bool] | None = None) -> int:
    """`usual`, or the first port above it that is free."""
    is_busy = is_busy or (lambda port: port_owner(_HOST, port) is not None)
    last = usual + _PORTS_TO_TRY - 1
    for port in range(usual, last + 1):
        if not is_busy(port):
            return port
    raise CommandFailed(f"all ports from {usual} to {last} are busy", next_step="free one of them")
