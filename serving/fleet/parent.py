"""The parent process of several workers: takes the ports, makes their common folder, and runs the foreman."""

import asyncio
import logging
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path

from serving.core.errors import SignalboxError
from serving.fleet.foreman import Foreman
from serving.fleet.ports import listening, reserved
from serving.settings import ServingSettings

log = logging.getLogger(__name__)


def run(settings: ServingSettings) -> int:
    """Run the workers until told to stop; the process's exit code."""
    return asyncio.run(_serve(settings))


async def _serve(settings: ServingSettings) -> int:
    with ExitStack() as stack:
        sockets = listening(settings.host, settings.port, settings.workers)
        for made in sockets:
            stack.enter_context(made)
        grpc_port = _grpc_port(settings, stack)
        folder = Path(tempfile.mkdtemp(prefix="signalbox-"))  # short: a socket's path has 107 characters
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        settings = settings.model_copy(
            update={
                "port": sockets[0].getsockname()[1],
                "grpc_port": grpc_port,
                "worker_folder": folder,
            }
        )
        return await Foreman(settings, sockets).run()


def _grpc_port(settings: ServingSettings, stack: ExitStack) -> int:
    """The port kept for the workers' gRPC, 0 for none; as one process decides it for itself."""
    if settings.grpc_port == 0:
        return 0
    try:
        stack.enter_context(reserved(settings.host, settings.grpc_port, "SIGNALBOX_GRPC_PORT"))
    except SignalboxError as error:
        if "grpc_port" in settings.model_fields_set:
            raise
        log.warning("grpc_left_out reason=%s", error)
        return 0
    return settings.grpc_port
