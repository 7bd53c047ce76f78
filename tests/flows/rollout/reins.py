"""A promotion's run on a thread of its own that goes on only when told, and a registry without sockets.

So hands, clocks and other runs can come in between any two looks of a run, and right before any of its
writes to the registry: a run that is never told again is a process that was killed or stands still.
"""

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import httpx

from flows.rollout.keeper import holder_of
from flows.rollout.outcome import Outcome
from flows.rollout.promotion import work
from serving.store.guard import Guard
from serving.store.leases import Leases
from serving.store.rollouts import Rollout
from tests.flows.rollout.line import Line
from tests.flows.rollout.registrar import Registrar
from tests.mlflow_double import Missing

_API = "/api/2.0/mlflow/"
_PATIENCE_SECONDS = 60.0


class Killed(BaseException):
    """Ends a run where it stands."""


def answering(registrar: Registrar, on_write: Callable[[str], None]) -> httpx.MockTransport:
    """The double in this process; `on_write` is called before each write, on the writer's own thread, with
    the name of the alias or tag, if any.
    """

    def answer(request: httpx.Request) -> httpx.Response:
        if registrar.fault is not None:
            return httpx.Response(registrar.fault.status, content=registrar.fault.body)
        call = request.url.path.removeprefix(_API)
        try:
            if request.method == "GET":
                return httpx.Response(200, json=registrar.read(call, dict(request.url.params)))
            body = json.loads(request.content)
            on_write(body.get("alias") or body.get("key") or "")
            registrar.write(request.method, call, body)
        except (Missing, KeyError) as missing:
            code = {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": str(missing)}
            return httpx.Response(404, json=code)
        return httpx.Response(200, json={})

    return httpx.MockTransport(answer)


@dataclass(eq=False)
class Run:
    """One run of the flow on a rollout. `stops_at` parks it before its next write of that alias or tag."""

    line: Line
    rollout: Rollout
    name: str
    stops_at: str | None = None
    is_at_write: bool = False
    outcome: Outcome | None = None
    problem: BaseException | None = None
    _go: threading.Event = field(default_factory=threading.Event)
    _still: threading.Event = field(default_factory=threading.Event)
    _is_killed: bool = False

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._work, name=self.name, daemon=True)

    @property
    def is_over(self) -> bool:
        return self.outcome is not None or self.problem is not None

    def go_on(self) -> None:
        """Let it work until it rests, parks or ends."""
        assert not self.is_over
        self._still.clear()
        if self._thread.ident is None:
            self._thread.start()
        self._go.set()
        assert self._still.wait(_PATIENCE_SECONDS), f"{self.name} neither rests nor ends"
        if self.problem is not None and not isinstance(self.problem, Killed):
            raise self.problem

    def kill(self) -> None:
        """End it where it stands; what its process would still do on its way out happens."""
        if self._thread.ident is not None and not self.is_over:
            self._is_killed = True
            self.go_on()
        if self._thread.ident is not None:
            self._thread.join(_PATIENCE_SECONDS)

    def rest(self, seconds: float = 0.0) -> None:
        """What the run calls between two looks."""
        self._still.set()
        self._go.wait()
        self._go.clear()
        if self._is_killed:
            raise Killed

    def before_write(self, name: str) -> None:
        if name == self.stops_at and threading.current_thread() is self._thread:
            self.stops_at, self.is_at_write = None, True
            self.rest()
            self.is_at_write = False

    def _work(self) -> None:
        self._go.wait()
        self._go.clear()
        engine, clock, registry = self.line.engine, self.line.clock, self.line.registry
        leases = Leases(engine, clock)
        guard = Guard(registry, engine, leases)
        parts = replace(self.line.parts, guard=guard, pause=self.rest)
        try:
            self.outcome = work(self.rollout, parts, leases, holder_of(self.name), _silent, self.rest)
        except BaseException as error:  # carried to the thread that waits for it
            self.problem = error
        finally:
            self._still.set()


def _silent(_: Any) -> None:
    return
