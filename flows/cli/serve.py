"""`signalbox serve`: this process becomes a serving process, or the parent of several, in the foreground."""

import os
from typing import Annotated

import typer

from flows.cli.console import warn
from flows.cli.home import prepare
from flows.cli.parts import SERVING_COMMAND, SERVING_ENVIRONMENT
from flows.settings import FlowSettings, part_environment
from serving.core.errors import StoreUnavailable, StoreUnusable
from serving.store.database import upgrade


def serve(
    workers: Annotated[
        int | None, typer.Option(min=1, max=64, help="Processes that answer on the one port.")
    ] = None,
) -> None:
    """Run one server in the foreground, without a supervisor."""
    settings = FlowSettings()
    prepare(settings)
    try:
        upgrade(settings.database_url)
    except StoreUnusable:
        raise
    except StoreUnavailable as error:
        # Serving answers from its local record while the store is down.
        warn(str(error))
    environment = {**part_environment(settings), **SERVING_ENVIRONMENT}
    wanted = () if workers is None else ("--workers", str(workers))
    os.execve(SERVING_COMMAND[0], (*SERVING_COMMAND, *wanted), environment)
