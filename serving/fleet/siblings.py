"""The other workers of this server, as one of them sees them: asked on demand, and kept in view.

A server of one worker has none, and everything here is then empty at no cost.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from serving.fleet.channel import Told, ask
from serving.telemetry.exposition import Family

log = logging.getLogger(__name__)

SOCKETS = "worker-*.sock"
PARENT = "parent.sock"
_METRICS_SECONDS = 3.0
_ASK_SECONDS = 0.5
_LOOK_SECONDS = 1.0
_LOOK_AGAIN_SECONDS = 0.2


def socket_name(slot: int, pid: int) -> str:
    """`slot` is the worker's place in the server, `pid` tells it from the one it replaces."""
    return f"worker-{slot}-{pid}.sock"


class Siblings:
    """Confined to the event loop's thread. `expected` is how many there are when all run."""

    def __init__(self, own: Path | None, expected: int) -> None:
        self._own = own
        self._expected = expected
        self._reports: dict[str, Told] = {}
        self._were_ready = False
        self._on_admitted: Callable[[dict[str, dict[str, int]]], None] = lambda told: None

    def tell(self, on_admitted: Callable[[dict[str, dict[str, int]]], None]) -> None:
        """Have `on_admitted` called with the requests that limited callers were let in for, by worker."""
        self._on_admitted = on_admitted

    @property
    def exist(self) -> bool:
        return self._own is not None

    async def ask(self, question: str, *, seconds: float = _ASK_SECONDS, **details: Any) -> list[Told]:
        """The answers of those who gave one in time."""
        told = await self._ask_all(question, seconds, details)
        return [answer for answer in told.values() if answer is not None]

    async def problems(self, question: str, *, seconds: float, **details: Any) -> list[str]:
        """What kept siblings from doing what was asked, one sentence each; empty when all did it.

        One whose socket is gone has ended, and does nothing wrong any more.
        """
        told = await self._ask_all(question, seconds, details)
        late = [
            f"{name} did not say within {seconds:g} s that it did" for name, t in told.items() if t is None
        ]
        return late + [f"{n}: {t['problem']}" for n, t in told.items() if t is not None and "problem" in t]

    async def metrics(self) -> list[Family] | None:
        """The families of the whole server, which its parent knows; None of a server of one worker."""
        if self._own is None:
            return None
        told = await ask(self._own.with_name(PARENT), "metrics", seconds=_METRICS_SECONDS)
        families: list[Family] | None = told.get("families") if told is not None else None
        return families

    def reports(self) -> list[Told]:
        """What each sibling said of itself last, at most about a second old."""
        return list(self._reports.values())

    def waiting_for(self) -> list[str]:
        """What keeps siblings from being ready, as far as they told.

        Nothing once all of them were, whether or not anybody asked then: who answers on while a sibling is
        replaced is ready.
        """
        return [] if self._were_ready else self._missing()

    def _missing(self) -> list[str]:
        told = [reason for report in self._reports.values() for reason in report.get("waiting_for", ())]
        missing = self._expected - len(self._reports)
        return told if missing <= 0 else [*told, f"{missing} more of the server's workers to start"]

    async def run(self) -> None:
        """Keep the reports fresh until cancelled."""
        while self.exist:
            told = await self._ask_all("report", _LOOK_SECONDS, {})
            self._reports = {name: report for name, report in told.items() if report is not None}
            self._were_ready = self._were_ready or not self._missing()
            self._on_admitted({name: report.get("admitted", {}) for name, report in self._reports.items()})
            await asyncio.sleep(_LOOK_AGAIN_SECONDS if self.waiting_for() else _LOOK_SECONDS)

    async def _ask_all(
        self, question: str, seconds: float, details: Mapping[str, Any]
    ) -> dict[str, Told | None]:
        sockets = self._sockets()
        answers = await asyncio.gather(*(ask(path, question, seconds=seconds, **details) for path in sockets))
        # A socket that is gone by now belonged to a worker that ended meanwhile.
        found = zip(sockets, answers, strict=True)
        return {path.stem: told for path, told in found if told is not None or path.exists()}

    def _sockets(self) -> Sequence[Path]:
        if self._own is None:
            return ()
        return sorted(path for path in self._own.parent.glob(SOCKETS) if path != self._own)
