"""How the demonstration shows where it is: a numbered line per act, a spinner meanwhile, the outcome below.

Where output is no terminal there is no spinner, only the lines.
"""

import time
from collections.abc import Callable

from rich.console import Console
from rich.status import Status

from flows.cli.console import say


class Playbill:
    """Numbers the acts and shows them. Confined to one thread."""

    def __init__(self, acts: int) -> None:
        self._acts = acts
        self._number = 0
        self._status = Status("", console=Console(highlight=False, markup=False))

    def play(self, title: str, act: Callable[[], str]) -> None:
        """Run one act, which returns what came of it."""
        self._number += 1
        say(f"\n[{self._number}/{self._acts}] {title}")
        began = time.monotonic()
        self.tell("under way")
        with self._status:
            outcome = act()
        for line in outcome.splitlines():
            say(f"      {line}")
        say(f"      ok, {time.monotonic() - began:.1f} s")

    def announce(self, line: str) -> None:
        """A line that stays, while the act goes on."""
        self._status.console.print(f"      {line}", soft_wrap=True)

    def tell(self, progress: str) -> None:
        """Show how far the present act is."""
        self._status.update(f"{progress} ...")
