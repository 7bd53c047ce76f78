"""One process that answers: the application behind its transports, and how they stop without a loss.

Alone it binds the port itself. As one of several workers it listens on the sockets that its parent hands
it, and on none until it is told which.
"""

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from typing import Any, Protocol, cast

import uvicorn
import uvloop

from serving.api.edge import App
from serving.app import Server, running
from serving.closing import Closing
from serving.core.errors import SignalboxError
from serving.fleet.channel import Told
from serving.fleet.ports import BACKLOG
from serving.settings import ServingSettings
from serving.wire import bounded

log = logging.getLogger(__name__)

# Longer than clients and balancers keep an idle connection, which is a minute at most by default: whoever
# closes first risks that a request is on its way already.
_KEEP_ALIVE_SECONDS = 65


class Beside(Protocol):
    """A transport beside HTTP, drained together with it."""

    async def stop(self, grace_seconds: float) -> None:
        """Take nothing new, finish what was accepted."""
        ...


def run(settings: ServingSettings) -> int:
    """Answer until told to stop; the process's exit code."""
    return uvloop.run(_serve(settings))


async def _serve(settings: ServingSettings) -> int:
    # gRPC takes a moment to import, which it does while the models load.
    importing = asyncio.create_task(asyncio.to_thread(_import_rpc, settings))
    async with running(settings) as server:
        start_beside = partial(start_rpc, settings, server, await importing)
        if settings.is_fleet:
            http: DrainingServer = WorkerServer(settings, server, start_beside)
        else:
            http = DrainingServer(settings, server, await start_beside(), server.application)
        _spare_collections()
        await http.answer()
        if not http.started:
            await http.give_up()
        return 0 if http.started else 1


def _spare_collections() -> None:
    """Keep what start-up made out of later garbage collections, and make those rare.

    Records that wait for the inference log outlive young collections, so that full ones came several
    times a second; each went through all modules and stopped every request for a tenth of a second.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    # A thread that computes hands the interpreter over to the requests within a millisecond.
    sys.setswitchinterval(0.001)


def _import_rpc(settings: ServingSettings) -> Any:
    return import_module("serving.rpc.server") if settings.grpc_port else None


async def start_rpc(settings: ServingSettings, server: Server, rpc: Any) -> Beside | None:
    """The started gRPC server. A taken port is an error where somebody chose it, else gRPC is left out."""
    if rpc is None:
        return None
    beside = rpc.RpcServer(server.backing, max_calls=settings.max_connections, is_shared=settings.is_fleet)
    try:
        await beside.start(settings.host, settings.grpc_port, settings.tls)
    except SignalboxError as error:
        if "grpc_port" in settings.model_fields_set:
            raise
        log.warning("grpc_left_out reason=%s", error)
        return None
    return cast(Beside, beside)


class DrainingServer(uvicorn.Server):
    """Reports not-ready as soon as it is told to stop, then finishes what it accepted."""

    def __init__(
        self, settings: ServingSettings, server: Server, beside: Beside | None, application: App
    ) -> None:
        super().__init__(_config(settings, application))
        self._readiness = server.readiness
        self._beside = beside

    async def answer(self) -> None:
        """Listen and answer until told to stop."""
        await self.serve()

    async def give_up(self) -> None:
        """Stop what is beside when HTTP itself could not start."""
        if self._beside is not None:
            await self._beside.stop(0.0)

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


class WorkerServer(DrainingServer):
    """Listens on the sockets of those slots that the parent names, and leaves when the parent has gone.

    gRPC, whose sockets cannot be handed over, begins with the first of them: not before this worker answers.
    """

    def __init__(
        self,
        settings: ServingSettings,
        server: Server,
        start_beside: Callable[[], Awaitable[Beside | None]],
    ) -> None:
        self._closing = Closing(server.application)
        super().__init__(settings, server, None, self._closing)
        self._start_beside: Callable[[], Awaitable[Beside | None]] | None = start_beside
        self._drain_seconds = settings.drain_seconds
        self._sockets = {
            slot: socket.socket(fileno=number)
            for slot, number in enumerate(settings.inherited_sockets, start=1)
        }
        self._listening: dict[int, asyncio.Server] = {}
        self._leave_by = float("inf")
        assert server.channel is not None
        server.channel.answer("listen", self._listen)
        server.channel.answer("retire", self._retire)

    async def answer(self) -> None:
        threading.Thread(target=_leave_with_parent, name="parent", daemon=True).start()
        await self.serve(sockets=[])

    async def shutdown(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        self._keep_listening_on(frozenset())
        for held in self._sockets.values():
            held.close()
        await super().shutdown(sockets)

    async def _listen(self, asked: Told) -> Told:
        """Accept on exactly these slots' sockets from now on; what waits in others' queues stays there."""
        wanted = frozenset(asked["slots"])
        self._keep_listening_on(wanted)
        loop = asyncio.get_running_loop()
        for slot in wanted - self._listening.keys():
            # A copy, because the loop closes what it listened on.
            copy = self._sockets[slot].dup()
            self._listening[slot] = await loop.create_server(
                self._connection, sock=copy, ssl=self.config.ssl, backlog=BACKLOG
            )
        if wanted and self._start_beside is not None:
            start, self._start_beside = self._start_beside, None
            self._beside = await start()
        return {}

    def _keep_listening_on(self, wanted: frozenset[int]) -> None:
        for slot in self._listening.keys() - wanted:
            self._listening.pop(slot).close()

    def _connection(self) -> asyncio.Protocol:
        make = cast(Any, self.config.http_protocol_class)
        connection: asyncio.Protocol = make(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state, _loop=None
        )
        return connection

    async def _retire(self, _: Told) -> Told:
        """Take no new connections, ask callers to make new ones, and end when all are gone.

        No open connection is closed under a request that is on its way: each is told with its next answer,
        and one that asks nothing more is closed when its time without a request is over.
        """
        self._keep_listening_on(frozenset())
        self._closing.is_on = True
        self._leave_by = asyncio.get_running_loop().time() + self._drain_seconds
        return {}

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second. Ends a retired worker that has no connection left, or no time."""
        is_over = asyncio.get_running_loop().time() >= self._leave_by
        if self._closing.is_on and (is_over or not self.server_state.connections):
            self.should_exit = True
        return await super().on_tick(counter)


def _leave_with_parent() -> None:
    """Our standard input closes when the parent ends, however it ends: it holds the other end."""
    while os.read(sys.stdin.fileno(), 1024):
        continue
    log.warning("parent_gone")
    os.kill(os.getpid(), signal.SIGTERM)


def _config(settings: ServingSettings, application: App) -> uvicorn.Config:
    return uvicorn.Config(
        application,
        host=settings.host,
        port=settings.port,
        loop="none",
        http=bounded(settings.wire_limits),
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=round(settings.drain_seconds),
        ssl_certfile=settings.tls_certificate,
        ssl_keyfile=settings.tls_key,
    )
