"""`python -m serving`: read the settings, run the server, stop it without losing a request."""

import asyncio
import gc
import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, NoReturn, Protocol, cast

import uvicorn
import uvloop
from pydantic import ValidationError

from serving.api.keyring import AdminKeyFile, KeyMirror, Keyring
from serving.app import Server, running
from serving.core.errors import SignalboxError
from serving.settings import ServingSettings
from serving.wire import bounded

log = logging.getLogger(__name__)


def main() -> int:
    """The process's exit code."""
    try:
        settings = ServingSettings()
        logging.basicConfig(
            level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s"
        )
        logging.getLogger("httpx").setLevel(logging.WARNING)
        _refuse_open_door(settings)
        if settings.tls is not None:
            settings.tls.check()
        return uvloop.run(_serve(settings))
    except (SignalboxError, ValidationError) as error:
        print(f"serving cannot start: {error}", file=sys.stderr)
        return 1


class Beside(Protocol):
    """A transport beside HTTP, drained together with it."""

    async def stop(self, grace_seconds: float) -> None:
        """Take nothing new, finish what was accepted."""
        ...


async def _serve(settings: ServingSettings) -> int:
    # gRPC takes a moment to import, which it does while the models load.
    importing = asyncio.create_task(asyncio.to_thread(_import_rpc, settings))
    async with running(settings) as server:
        beside = await _start_rpc(settings, server, await importing)
        http = DrainingServer(_config(settings, server), server, beside)
        _spare_collections()
        await http.serve()
        if not http.started and beside is not None:
            await beside.stop(0.0)
        return 0 if http.started else 1


def _spare_collections() -> None:
    """Keep what start-up made out of later garbage collections, and make those rare.

    Records that wait for the inference log outlive young collections, so that full ones came several
    times a second; each went through all modules and stopped every request for a tenth of a second.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def _import_rpc(settings: ServingSettings) -> Any:
    return import_module("serving.rpc.server") if settings.grpc_port else None


async def _start_rpc(settings: ServingSettings, server: Server, rpc: Any) -> Beside | None:
    """The started gRPC server. A taken port is an error where somebody chose it, else gRPC is left out."""
    if rpc is None:
        return None
    beside = rpc.RpcServer(server.backing, max_calls=settings.max_connections)
    try:
        await beside.start(settings.host, settings.grpc_port, settings.tls)
    except SignalboxError as error:
        if "grpc_port" in settings.model_fields_set:
            raise
        log.warning("grpc_left_out reason=%s", error)
        return None
    return cast(Beside, beside)


def _config(settings: ServingSettings, server: Server) -> uvicorn.Config:
    return uvicorn.Config(
        server.application,
        host=settings.host,
        port=settings.port,
        loop="none",
        http=bounded(settings.wire_limits),
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=round(settings.drain_seconds),
        ssl_certfile=settings.tls_certificate,
        ssl_keyfile=settings.tls_key,
    )


class DrainingServer(uvicorn.Server):
    """Reports not-ready as soon as it is told to stop, then finishes what it accepted."""

    def __init__(self, config: uvicorn.Config, server: Server, beside: Beside | None) -> None:
        super().__init__(config)
        self._readiness = server.readiness
        self._beside = beside

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As the base class, which then raises the signal again: that would end us before we tidied up."""
        with super().capture_signals():
            yield
            self._captured_signals.clear()

    async def shutdown(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        self._readiness.is_draining = True
        async with asyncio.TaskGroup() as drains:
            drains.create_task(super().shutdown(None))
            if self._beside is not None:
                grace_seconds = float(self.config.timeout_graceful_shutdown or 0)
                drains.create_task(self._beside.stop(grace_seconds))


def _refuse_open_door(settings: ServingSettings) -> None:
    """Beyond loopback nothing is served without a key to check."""
    keyring = Keyring(AdminKeyFile(settings.admin_key_file).digest, KeyMirror(settings.key_mirror_file))
    if not settings.is_loopback and keyring.is_empty:
        raise SignalboxError(
            f"SIGNALBOX_HOST={settings.host} is reachable by others, but there is no "
            f"key in {settings.admin_key_file} that only its owner can read; create one (mode 0600), "
            "or bind to 127.0.0.1"
        )


def _leave(code: int) -> NoReturn:
    """End the process, everything being closed. A thread that a model never returns would end it badly:
    it cannot be joined, and torch aborts when the interpreter takes its leave around it.
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    if any(thread.daemon for thread in threading.enumerate()):
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    _leave(main())
