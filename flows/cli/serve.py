"""`signalbox serve`: this process becomes one serving process, in the foreground."""

import os

from flows.cli.console import warn
from flows.cli.home import prepare
from flows.cli.parts import SERVING_COMMAND, SERVING_ENVIRONMENT
from flows.settings import FlowSettings, part_environment
from serving.core.errors import StoreUnavailable, StoreUnusable
from serving.store.database import upgrade


def serve() -> None:
    """Run one serving process in the foreground, without a supervisor."""
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
    os.execve(SERVING_COMMAND[0], SERVING_COMMAND, environment)
