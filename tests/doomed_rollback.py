"""A server in a process of its own that takes one rollback and kills itself around its durable writes.

Counted are, in the order in which they are made: each file that is about to be replaced, each commit of
the store that is about to be made, and each that was made. Only those of a rollback: what the server writes
anyway, as heartbeats, does not count.
"""

import asyncio
import multiprocessing
import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import Engine, event

from serving.app import running
from serving.settings import ServingSettings
from tests.station import ADMIN
from tests.story import eventually

FILES = frozenset({"overrides.json", "served.json", "rollbacks.json"})
_WRITES = re.compile(r"\s*(INSERT INTO|UPDATE|DELETE FROM) (overrides|outbox|rollbacks|changes)\b", re.I)
_OURS = "rollback_fuse"
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload([__name__])
_END_SECONDS = 90.0


class Fuse:
    """Lets `moments` pass and kills the process at the next; unlit, it lets everything pass."""

    def __init__(self, moments: int) -> None:
        self.left = moments
        self.is_lit = False

    def burn(self) -> None:
        if not self.is_lit:
            return
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1

    def watch(self) -> None:
        """See every file that is replaced and every commit, in this process, from now on."""
        sys.addaudithook(self._on_audit)
        event.listen(Engine, "before_cursor_execute", self._on_statement)
        event.listen(Engine, "commit", self._on_commit)
        event.listen(Engine, "checkin", self._on_checkin)

    def _on_audit(self, name: str, arguments: tuple[Any, ...]) -> None:
        if name == "os.rename" and Path(os.fsdecode(arguments[1])).name in FILES:
            self.burn()

    def _on_statement(self, connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if _WRITES.match(statement):
            connection.connection.info[_OURS] = True

    def _on_commit(self, connection: Any) -> None:
        if connection.connection.info.get(_OURS):
            self.burn()

    def _on_checkin(self, _: Any, record: Any) -> None:
        """The connection is given back: what was to be committed is."""
        if record.info.pop(_OURS, False):
            self.burn()


def roll_back_and_die(home: Path, registry_url: str, moments: int) -> int | None:
    """Roll model `m` back from 2 to 1; the exit code: 0 at its end, else that of `kill -9`."""
    process = _PROCESSES.Process(target=_run, args=(home, registry_url, moments), daemon=True)
    process.start()
    process.join(_END_SECONDS)
    assert process.exitcode is not None, "the rollback hangs"
    return process.exitcode


def _run(home: Path, registry_url: str, moments: int) -> None:
    fuse = Fuse(moments)
    fuse.watch()
    asyncio.run(_roll_back(home, registry_url, fuse))


async def _roll_back(home: Path, registry_url: str, fuse: Fuse) -> None:
    settings = ServingSettings(
        home=home,
        poll_seconds=0.03,
        threads=1,
        mlflow_url=registry_url,
        prefect_api_url="http://127.0.0.1:9/api",
        telemetry=False,
    )
    async with running(settings) as server:
        transport = httpx.ASGITransport(server.application)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:

            async def serves_two() -> bool:
                found = await http.get("/api/v2/model-info", params={"model": "m"})
                if found.status_code != httpx.codes.OK:
                    return False
                [entry] = found.json()["models"]
                return bool(entry["aliases"]["champion"]["served"] == "2" and entry["previous"] == "1")

            await eventually(serves_two, "version 2 answers, and 1 is known as the one before")
            fuse.is_lit = True
            answer = await http.post("/api/v2/rollback", json={"model": "m"}, headers=ADMIN)
            assert answer.status_code == httpx.codes.ACCEPTED, answer.text
            path = answer.json()["status_url"]

            async def settled() -> bool:
                status = await http.get(path, headers=ADMIN)
                return bool(status.json()["registry"] == "settled")

            await eventually(settled, "the registry was told")
