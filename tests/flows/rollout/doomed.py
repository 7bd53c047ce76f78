"""A promotion in a process of its own that kills itself after a given number of durable writes.

Each commit of the store and each write to the registry counts, in the order in which they are made.
"""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import httpx
from sqlalchemy import event

from flows.rollout.keeper import holder_of
from flows.rollout.outcome import Verdict
from flows.rollout.parts import Parts
from flows.rollout.promotion import Asked, record, work
from serving.core.clock import ManualClock
from serving.store.database import open_engine
from serving.store.guard import Guard
from serving.store.leases import Leases
from serving.store.rollouts import Entry
from serving.store.text import JsonValue
from tests.flows.rollout.line import MODEL, Judgement, Line, registry_of
from tests.flows.rollout.witness import Says, Witness

# A server that forks: starting an interpreter takes longer than everything it is started for.
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload([__name__])
_END_SECONDS = 60.0
# Long enough for the samples that a stage needs.
PLAN: dict[str, JsonValue] = {"stages": [50, 100], "stage_seconds": 4.0}


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
    return _die(_promote, (store_url, registry_url, judgement, cost, writes))


def stage_and_die(store_url: str, registry_url: str, says: Says, writes: int) -> int | None:
    """The same by stages, with what traffic `says`."""
    return _die(_stage, (store_url, registry_url, says, writes))


def _die(target: Callable[..., None], arguments: tuple[Any, ...]) -> int | None:
    process = _PROCESSES.Process(target=target, args=arguments, daemon=True)
    process.start()
    process.join(_END_SECONDS)
    assert process.exitcode is not None, "the promotion hangs"
    return process.exitcode


def _promote(store_url: str, registry_url: str, judgement: Judgement, cost: Judgement, writes: int) -> None:
    with _doomed(store_url, registry_url, writes) as (line, parts):
        parts = replace(
            parts, validate=lambda rollout, champion: judgement, benchmark=lambda rollout, champion: cost
        )
        verdict = _worked(line, parts, line.ask("2"))
    assert verdict is (Verdict.PROMOTED if judgement.passed and cost.passed else Verdict.REFUSED)


def _stage(store_url: str, registry_url: str, says: Says, writes: int) -> None:
    with _doomed(store_url, registry_url, writes) as (line, parts):
        asked = replace(line.ask("2"), strategy="staged", policy=PLAN)
        verdict = _worked(line, replace(parts, evidence=Witness(says)), asked)
    assert verdict in (Verdict.PROMOTED, Verdict.ROLLED_BACK)


@contextmanager
def _doomed(store_url: str, registry_url: str, writes: int) -> Iterator[tuple[Line, Parts]]:
    """Parts whose writes burn the fuse, beside a line whose serving worker is not doomed."""
    fuse, clock = Fuse(writes), ManualClock()
    watched, engine = open_engine(store_url), open_engine(store_url)
    with (
        httpx.Client(base_url=registry_url, event_hooks={"request": [fuse.burn_on_request]}) as client,
        httpx.Client(base_url=registry_url) as unwatched,
    ):
        line = Line(engine, registry_of(unwatched), clock)
        line.beat()
        event.listen(watched, "commit", fuse.burn)
        registry, leases = registry_of(client), Leases(watched, clock)
        guard = Guard(registry, watched, leases)
        yield line, replace(line.parts, engine=watched, registry=registry, guard=guard)


def _worked(line: Line, parts: Parts, asked: Asked) -> Verdict:
    entry = record(parts.engine, parts.registry, asked, parts.clock)
    assert isinstance(entry, Entry)
    line.clock.wall += timedelta(seconds=1)
    leases = Leases(parts.engine, parts.clock)
    outcome = work(entry.rollout, parts, leases, holder_of("doomed"), lambda sentence: None, line.pause)
    assert MODEL in str(outcome.rollout)
    return outcome.verdict
