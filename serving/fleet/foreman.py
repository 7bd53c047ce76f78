"""The parent of several workers: starts them, sees that they answer, replaces those that do not.

Answers no request itself. It holds the listening sockets of all workers, so a queue of connections
outlives the worker that was to take them; decisions are in `serving.fleet.crew`.
"""

import asyncio
import logging
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic

from serving.fleet.channel import Channel, Told, ask
from serving.fleet.crew import (
    SETTLED_SECONDS,
    Care,
    Standing,
    care,
    listeners,
    may_replace,
    outdated,
    pause_seconds,
    vacant,
)
from serving.fleet.siblings import PARENT, socket_name
from serving.settings import ServingSettings, worker_environment
from serving.telemetry.exposition import Family, counts, together

log = logging.getLogger(__name__)

_TURN_SECONDS = 0.5
_ASK_SECONDS = 2.0
_ASK_EVERY_SECONDS = 1.0
_ASK_STARTING_EVERY_SECONDS = 0.05
_STEADY_SECONDS = 60.0
# Beyond the time to drain: what a worker needs to close its store and models.
_STOP_MARGIN_SECONDS = 10.0


@dataclass(slots=True, eq=False)
class _Worker:
    process: "subprocess.Popen[bytes]"
    asked_at: Path
    standing: Standing
    accepts_on: frozenset[int] = field(default_factory=frozenset)
    counted: list[Family] = field(default_factory=list)
    attention: "asyncio.Task[None] | None" = None


class Foreman:
    """Confined to the event loop's thread."""

    def __init__(self, settings: ServingSettings, sockets: Sequence[socket.socket]) -> None:
        assert settings.worker_folder is not None
        self._settings = settings
        self._folder = settings.worker_folder
        self._sockets = sockets
        self._counted_by_dead: list[Family] = []
        self._slots = range(1, settings.workers + 1)
        self._workers: dict[int, _Worker] = {}
        self._failures: Counter[int] = Counter()
        self._not_before: dict[int, float] = {}
        self._wake = asyncio.Event()
        self._is_stopping = False
        self._was_ready = False
        self._exit_code = 0

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        loop.add_signal_handler(signal.SIGCHLD, self._wake.set)
        channel = Channel(self._folder / PARENT)
        channel.answer("metrics", self._metrics)
        await channel.open()
        try:
            while not self._is_stopping:
                await self._turn()
                await self._pause(_TURN_SECONDS)
        finally:
            await self._end_all()
            await channel.close()
        return self._exit_code

    def _stop(self) -> None:
        self._is_stopping = True
        self._wake.set()

    async def _turn(self) -> None:
        self._reap()
        if self._is_stopping:
            return
        for slot in vacant(self._standings(), self._slots):
            if monotonic() >= self._not_before.get(slot, 0.0):
                self._start(slot)
        await self._direct()
        for standing in outdated(self._standings()):
            await self._dismiss(self._workers[standing.pid])
        for worker in list(self._workers.values()):
            await self._care_for(worker)

    def _standings(self) -> list[Standing]:
        return [worker.standing for worker in self._workers.values()]

    def _start(self, slot: int) -> None:
        descriptors = [made.fileno() for made in self._sockets]
        process = subprocess.Popen(
            [sys.executable, *(["-P"] if sys.flags.safe_path else []), "-m", "serving"],
            env=worker_environment(self._settings, slot, descriptors),
            pass_fds=descriptors,
            # Closes when we end, however we end: the worker then leaves too.
            stdin=subprocess.PIPE,
        )
        asked_at = self._folder / socket_name(slot, process.pid)
        worker = _Worker(process, asked_at, Standing(slot, process.pid, monotonic()))
        self._workers[process.pid] = worker
        worker.attention = asyncio.create_task(self._attend(worker))
        log.info("worker_started slot=%d pid=%d", slot, process.pid)

    def _reap(self) -> None:
        for pid, worker in list(self._workers.items()):
            code = worker.process.poll()
            if code is not None:
                del self._workers[pid]
                self._bury(worker, code)

    def _bury(self, worker: _Worker, code: int) -> None:
        standing = worker.standing
        log.log(
            logging.INFO if standing.is_leaving else logging.WARNING,
            "worker_ended slot=%d pid=%d code=%d",
            standing.slot,
            standing.pid,
            code,
        )
        if worker.attention is not None:
            worker.attention.cancel()
        if worker.process.stdin is not None:
            worker.process.stdin.close()
        worker.asked_at.unlink(missing_ok=True)
        self._counted_by_dead = together([self._counted_by_dead, counts(worker.counted)])
        if standing.is_leaving:
            return
        if code > 0 and standing.heard_at is None and not self._was_ready:
            log.error("giving_up: a worker could not start, and none ever did; what it said is above")
            self._exit_code = 1
            self._stop()
        self._plan_restart(standing)

    async def _metrics(self, _: Told) -> Told:
        """The whole server's. What was told once is kept, so that no counter falls when a worker dies."""
        await asyncio.gather(*(self._count(worker) for worker in self._workers.values()))
        living = [worker.counted for worker in self._workers.values()]
        return {"families": together([self._counted_by_dead, *living])}

    async def _count(self, worker: _Worker) -> None:
        told = await ask(worker.asked_at, "metrics", seconds=_ASK_SECONDS)
        if told is not None and "problem" not in told:
            worker.counted = told["families"]

    def _plan_restart(self, standing: Standing) -> None:
        now = monotonic()
        lasted = standing.ready_at is not None and now - standing.ready_at > _STEADY_SECONDS
        self._failures[standing.slot] = 1 if lasted else self._failures[standing.slot] + 1
        self._not_before[standing.slot] = now + pause_seconds(self._failures[standing.slot])

    async def _attend(self, worker: _Worker) -> None:
        """Ask a worker how it is, again and again, until it has ended."""
        while True:
            told = await ask(worker.asked_at, "report", seconds=_ASK_SECONDS)
            if told is not None and "problem" not in told:
                self._learn(worker, told)
                await self._count(worker)
            is_settled = worker.standing.ready_at is not None
            await asyncio.sleep(_ASK_EVERY_SECONDS if is_settled else _ASK_STARTING_EVERY_SECONDS)

    def _learn(self, worker: _Worker, told: Told) -> None:
        now, before = monotonic(), worker.standing
        is_ready = before.ready_at is not None or not told["waiting_for"]
        ready_at = before.ready_at if before.ready_at is not None or not is_ready else now
        unaccounted = told["resident_bytes"] - told["held_bytes"]
        has_settled = ready_at is not None and now - ready_at >= SETTLED_SECONDS
        settled = before.settled_bytes
        worker.standing = replace(
            before,
            heard_at=now,
            ready_at=ready_at,
            unaccounted_bytes=unaccounted,
            settled_bytes=unaccounted if settled is None and has_settled else settled,
        )
        if before.heard_at is None or (before.ready_at is None and is_ready):
            self._was_ready = self._was_ready or is_ready
            self._wake.set()

    async def _direct(self) -> None:
        """Tell each worker where to accept; first who is to accept more, so that no socket is left out."""
        wanted = listeners(self._standings(), self._slots)
        changed = [(self._workers[pid], slots) for pid, slots in wanted.items()]
        for worker, slots in sorted(changed, key=lambda change: len(change[0].accepts_on - change[1])):
            if slots != worker.accepts_on:
                told = await ask(worker.asked_at, "listen", seconds=_ASK_SECONDS, slots=sorted(slots))
                if told is not None and "problem" not in told:
                    worker.accepts_on = slots
                    log.info("worker_accepts slot=%d on=%s", worker.standing.slot, sorted(slots))
                else:
                    self._soon()

    async def _dismiss(self, worker: _Worker) -> None:
        """Let a worker finish what it has and go; its replacement accepts already."""
        replacement = [w for w in self._workers.values() if w.standing.slot == worker.standing.slot]
        if not any(worker.standing.slot in w.accepts_on for w in replacement if w is not worker):
            return
        log.info("worker_retired slot=%d pid=%d", worker.standing.slot, worker.standing.pid)
        worker.standing = replace(worker.standing, is_leaving=True)
        if await ask(worker.asked_at, "retire", seconds=_ASK_SECONDS) is None:
            worker.process.terminate()

    async def _care_for(self, worker: _Worker) -> None:
        standing = worker.standing
        need = care(standing, self._settings.memory_allowance_mb << 20, monotonic())
        if need is Care.KILL:
            log.error("worker_hangs slot=%d pid=%d: it is killed", standing.slot, standing.pid)
            worker.process.kill()
        elif need is Care.TRIM:
            told = await ask(worker.asked_at, "trim", seconds=_ASK_SECONDS)
            worker.standing = replace(worker.standing, was_trimmed=told is not None)
        elif need is Care.REPLACE and may_replace(self._standings(), self._slots):
            log.warning(
                "worker_grew slot=%d pid=%d bytes=%d: it is replaced",
                standing.slot,
                standing.pid,
                standing.grown_bytes,
            )
            self._start(standing.slot)

    async def _end_all(self) -> None:
        """Stop accepting, let every worker finish, and wait until all have ended."""
        for made in self._sockets:
            made.close()
        for worker in self._workers.values():
            worker.process.terminate()
        deadline = monotonic() + self._settings.drain_seconds + _STOP_MARGIN_SECONDS
        while self._workers and monotonic() < deadline:
            await self._pause(min(_TURN_SECONDS, max(0.0, deadline - monotonic())))
            self._reap_quietly()
        for worker in self._workers.values():
            log.error("worker_does_not_end pid=%d: it is killed", worker.standing.pid)
            worker.process.kill()
            worker.process.wait()

    def _reap_quietly(self) -> None:
        for worker in self._workers.values():
            worker.standing = replace(worker.standing, is_leaving=True)
        self._reap()

    def _soon(self) -> None:
        asyncio.get_running_loop().call_later(_ASK_STARTING_EVERY_SECONDS, self._wake.set)

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        self._wake.clear()
