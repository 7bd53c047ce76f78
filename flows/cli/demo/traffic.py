"""`python -m flows.cli.demo.traffic`: callers at a constant rate, until standard input is closed.

Open loop: request k is sent k / rate seconds after the first, whatever became of those before it. A line
`inverted` on standard input makes them ask for inverted scans, several in each request, `mixed` for scans
of which half are faint; `plain` ends that.
The callers are a stock `tritonclient`; every request leaves one line in the records file.
"""

import argparse
import asyncio
import itertools
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.http.aio as triton
from tritonclient.utils import InferenceServerException

from flows.cli.demo.records import Record
from flows.cli.demo.reference import INPUT, OUTPUT, Reference, read_reference

INVERTED_ROWS = 8

_REQUEST_SECONDS = 10.0
_ERROR_CHARACTERS = 300


@dataclass(frozen=True, slots=True)
class _Question:
    """What one request asks for, and where the right answers are."""

    reference: Reference
    rows: slice
    tensor: Any

    @property
    def count(self) -> int:
        return int(self.rows.stop - self.rows.start)


class Callers:
    """Asks for one scan after the other and notes what came back. Confined to one event loop."""

    def __init__(self, client: Any, model: str, reference: Reference, note: Callable[[Record], None]) -> None:
        self._client = client
        self._model = model
        self._note = note
        self._questions = _questions(reference, 1)
        self._outputs = [triton.InferRequestedOutput(OUTPUT, binary_data=False)]

    def turn_to(self, reference: Reference, rows: int) -> None:
        """Ask for these scans from the next request on, so many in each."""
        self._questions = _questions(reference, rows)

    async def call(self, rate: float, stop: asyncio.Event) -> None:
        """Send at `rate` per second until told to stop, then wait for what is under way."""
        began = time.monotonic()
        async with asyncio.TaskGroup() as requests:
            for number in itertools.count():
                if await _is_set_within(stop, began + number / rate - time.monotonic()):
                    return
                requests.create_task(self._ask(self._questions[number % len(self._questions)]))

    async def _ask(self, question: _Question) -> None:
        started = time.monotonic()
        try:
            answer = await self._client.infer(self._model, [question.tensor], outputs=self._outputs)
            record = _answered(question, answer, started)
        except Exception as error:  # whatever a caller gets instead of an answer is a failed request
            record = _failed(question, error, started)
        self._note(record)


def _questions(reference: Reference, rows: int) -> list[_Question]:
    starts = range(0, len(reference.scans) - rows + 1, rows)
    slices = [slice(start, start + rows) for start in starts]
    return [_Question(reference, each, _tensor(reference.scans[each])) for each in slices]


def _answered(question: _Question, answer: Any, started: float) -> Record:
    ended = time.monotonic()
    body = answer.get_response()
    version = str(body["model_version"])
    return Record(
        started=started,
        ended=ended,
        version=version,
        variant=str(body["parameters"]["variant"]),
        matches=question.reference.matches(version, question.rows, answer.as_numpy(OUTPUT)),
        status=200,
        rows=question.count,
    )


def _failed(question: _Question, error: Exception, started: float) -> Record:
    status = error.status() if isinstance(error, InferenceServerException) else None
    return Record(
        started=started,
        ended=time.monotonic(),
        version=None,
        variant=None,
        matches=False,
        status=int(status) if status and status.isdecimal() else None,
        error=f"{type(error).__name__}: {error}"[:_ERROR_CHARACTERS],
        rows=question.count,
    )


def _tensor(scans: np.ndarray) -> Any:
    tensor = triton.InferInput(INPUT, list(scans.shape), "FP32")
    tensor.set_data_from_numpy(scans, binary_data=False)
    return tensor


async def _is_set_within(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(max(0.0, seconds)):
            await event.wait()
    except TimeoutError:
        return event.is_set()
    return True


def _obey_input(commands: Mapping[str, Callable[[], None]], stop: asyncio.Event) -> None:
    """One command per line; the end of input is the last one.

    The pipe's other end is closed on purpose, or because whoever held it died.
    """
    loop = asyncio.get_running_loop()
    descriptor = sys.stdin.fileno()

    def readable() -> None:
        said = os.read(descriptor, 4096)
        if not said:
            loop.remove_reader(descriptor)
            stop.set()
        # A line is shorter than what a pipe writes in one piece.
        for line in said.decode().split():
            commands[line]()

    loop.add_reader(descriptor, readable)


async def _run(arguments: argparse.Namespace, note: Callable[[Record], None]) -> None:
    plain, inverted, mixed = (
        read_reference(path) for path in (arguments.reference, arguments.inverted, arguments.mixed)
    )
    stop = asyncio.Event()
    # No limit on connections: a request that waited for one would not be an open loop's.
    async with triton.InferenceServerClient(
        arguments.address, conn_limit=0, conn_timeout=_REQUEST_SECONDS
    ) as client:
        callers = Callers(client, arguments.model, plain, note)
        commands = {
            "plain": lambda: callers.turn_to(plain, 1),
            "inverted": lambda: callers.turn_to(inverted, INVERTED_ROWS),
            "mixed": lambda: callers.turn_to(mixed, 1),
        }
        _obey_input(commands, stop)
        await callers.call(arguments.rate, stop)


def main() -> None:
    parser = argparse.ArgumentParser(description="Call a model at a constant rate until input ends.")
    parser.add_argument("--address", required=True, help="host:port of the server")
    parser.add_argument("--model", required=True)
    parser.add_argument("--rate", type=float, required=True, help="requests per second")
    parser.add_argument("--reference", type=Path, required=True, help="scans and expected outputs, .npz")
    parser.add_argument("--inverted", type=Path, required=True, help="the same of the inverted scans")
    parser.add_argument("--mixed", type=Path, required=True, help="the same of scans of which half are faint")
    parser.add_argument("--records", type=Path, required=True, help="file to append to")
    arguments = parser.parse_args()
    with arguments.records.open("a", buffering=1) as records:
        asyncio.run(_run(arguments, lambda record: print(record.line(), end="", file=records)))


if __name__ == "__main__":
    main()
