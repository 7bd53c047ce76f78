"""The traffic as the demonstration sees it: a process of its own, and the records it leaves.

It ends when its standard input is closed, so it never outlives the demonstration.
"""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from flows.cli.demo.records import Record, RecordFile
from flows.cli.demo.reference import References
from flows.cli.demo.settings import MODEL
from flows.cli.errors import CommandFailed
from flows.settings import FlowSettings

RATE_PER_SECOND = 50

_END_SECONDS = 20.0


class LiveTraffic:
    """All requests so far, and the process that sends more. Made by `flowing`."""

    def __init__(self, process: subprocess.Popen[bytes], file: RecordFile, log: Path) -> None:
        self._process = process
        self._file = file
        self._log = log
        self._records: list[Record] = []

    def records(self) -> list[Record]:
        """Every request that has ended by now. Raises `CommandFailed` when the traffic itself has died."""
        if self._process.poll() not in (None, 0):
            raise CommandFailed("the traffic ended by itself", next_step=f"its log is {self._log}")
        self._records += self._file.news()
        return self._records

    def since(self, moment: float) -> list[Record]:
        """Those of them that were started after `moment`."""
        return [record for record in self.records() if record.started > moment]

    def turn_to(self, scans: Literal["plain", "inverted", "mixed"]) -> None:
        """What the callers ask for from now on. Raises `CommandFailed` when there are none any more."""
        try:
            assert self._process.stdin is not None
            self._process.stdin.write(f"{scans}\n".encode())
            self._process.stdin.flush()
        except OSError:
            step = f"its log is {self._log}"
            raise CommandFailed("the traffic ended by itself", next_step=step) from None

    def finish(self) -> list[Record]:
        """Send nothing more, wait for what is under way; every request there was."""
        _close_input(self._process)
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            step = f"its log is {self._log}"
            raise CommandFailed("the traffic did not end when told to", next_step=step) from None
        return self.records()


@contextmanager
def flowing(settings: FlowSettings, references: References, log: Path) -> Iterator[LiveTraffic]:
    """Traffic from now on, its records beside the references; at the end none is left."""
    records = references.plain.with_name("records.jsonl")
    records.touch()
    with log.open("ab") as output:
        process = subprocess.Popen(
            [
                sys.executable, "-P", "-m", "flows.cli.demo.traffic",
                "--address", urlsplit(settings.serving_url).netloc,
                "--model", MODEL, "--rate", str(RATE_PER_SECOND),
                "--reference", str(references.plain), "--inverted", str(references.inverted),
                "--mixed", str(references.mixed), "--records", str(records),
            ],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            # Ctrl-C is for the demonstration, which then ends the traffic in order.
            start_new_session=True,
        )  # fmt: skip
    try:
        yield LiveTraffic(process, RecordFile(records), log)
    finally:
        _close_input(process)
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_END_SECONDS)
        finally:
            process.kill()
            process.wait()


def _close_input(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        process.stdin.close()
