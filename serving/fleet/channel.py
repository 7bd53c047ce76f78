"""How the processes of one server talk: one line of JSON asks, one answers, over a Unix socket each.

The sockets lie in a folder that only their owner may enter, so nothing here asks for a key. Whoever does
not answer in time has simply not answered: the asker goes on without.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

Told = dict[str, Any]
Answerer = Callable[[Told], Awaitable[Told]]
_MAX_LINE_BYTES = 32 << 20


class Channel:
    """The answering end. Questions are added before or after it opens; an unknown one is answered so."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._answerers: dict[str, Answerer] = {}
        self._server: asyncio.Server | None = None

    def answer(self, question: str, answerer: Answerer) -> None:
        """Have `answerer` called with the details of every such question."""
        self._answerers[question] = answerer

    async def open(self) -> None:
        """Raises OSError where the socket cannot be made."""
        self._server = await asyncio.start_unix_server(self._serve, self._path, limit=_MAX_LINE_BYTES)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            told = await self._told(json.loads(await reader.readline()))
            writer.write(json.dumps(told).encode() + b"\n")
            await writer.drain()
        except (OSError, ValueError) as error:  # the asker went away, or was none of ours
            log.debug("question_unanswered reason=%r", error)
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _told(self, asked: Told) -> Told:
        answerer = self._answerers.get(asked.pop("question"))
        if answerer is None:
            return {"problem": "not known here"}
        try:
            return await answerer(asked)
        except Exception as error:  # a task edge: the asker is told, and decides what it means
            log.warning("question_failed reason=%r", error)
            return {"problem": str(error) or repr(error)}


async def ask(path: Path, question: str, *, seconds: float, **details: Any) -> Told | None:
    """What the process at `path` answers; None where it does not within `seconds`.

    An answer with `problem` says what kept the other from doing what was asked.
    """
    try:
        async with asyncio.timeout(seconds):
            return await _asked(path, {"question": question, **details})
    except (OSError, ValueError, TimeoutError) as error:
        log.debug("no_answer at=%s question=%s reason=%r", path.name, question, error)
        return None


async def _asked(path: Path, asked: Mapping[str, Any]) -> Told:
    reader, writer = await asyncio.open_unix_connection(path, limit=_MAX_LINE_BYTES)
    try:
        writer.write(json.dumps(asked).encode() + b"\n")
        told: Told = json.loads(await reader.readline())
        return told
    finally:
        writer.close()
