"""A promotion in a process of its own that kills itself after a given number of durable writes.

Each commit of the store and each write to the registry counts, in the order in which they are made.
"""

import multiprocessing
import os
import signal
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx
from sqlalchemy import event

from flows.rollout.keeper import holder_of
from flows.rollout.outcome import Verdict
from flows.rollout.parts import Parts
from flows.rollout.promotion import record, work
from serving.core.clock import ManualClock
from serving.store.database import open_engine
from serving.store.guard import Guard
from serving.store.leases import Leases
from serving.store.rollouts import Entry
from tests.flows.rollout.line import MODEL, Judgement, Line, registry_of

# A server that forks: starting an interpreter takes longer than everything it is started for.
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload([__name__])
_END_SECONDS = 60.0


@dataclass
class Fuse:
    """Lets `writes` durable writes happen and kills the process at the next."""

    writes: int

    def burn(self, *_: Any) -> None:
        if self.writes == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.writes -= 1

    def burn_on_request(self, request: httpx.Request) -> None:
        if request.method != "GET":
            self.burn()


def promote_and_die(
    store_url: str, registry_url: str, judgement: Judgement, cost: Judgement, writes: int
) -> int | None:
    """Ask for version 2 and promote it; the exit code: 0 at its end, else that of `kill -9`."""
    arguments = (store_url, registry_url, judgement, cost, writes)
    process = _PROCESSES.Process(target=_promote, args=arguments, daemon=True)
    process.start()
    process.join(_END_SECONDS)
    assert process.exitcode is not None, "the promotion hangs"
    return process.exitcode


def _promote(store_url: str, registry_url: str, judgement: Judgement, cost: Judgement, writes: int) -> None:
    fuse, clock = Fuse(writes), ManualClock()
    watched, engine = open_engine(store_url), open_engine(store_url)
    with (
        httpx.Client(base_url=registry_url, event_hooks={"request": [fuse.burn_on_request]}) as client,
        httpx.Client(base_url=registry_url) as unwatched,
    ):
        line = Line(engine, registry_of(unwatched), clock, judgement)
        line.beat()
        event.listen(watched, "commit", fuse.burn)
        registry, leases = registry_of(client), Leases(watched, clock)
        guard = Guard(registry, watched, leases)
        parts = Parts(
            watched,
            registry,
            guard,
            clock,
            lambda rollout, champion: judgement,
            lambda rollout, champion: cost,
            line.pause,
        )
        entry = record(watched, registry, line.ask("2"), clock)
        assert isinstance(entry, Entry)
        clock.wall += timedelta(seconds=1)
        outcome = work(entry.rollout, parts, leases, holder_of("doomed"), lambda sentence: None, line.pause)
        assert outcome.verdict is (Verdict.PROMOTED if judgement.passed and cost.passed else Verdict.REFUSED)
        assert MODEL in str(outcome.rollout)
