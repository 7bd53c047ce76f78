"""`python -m flows.cli.demo.traffic`: callers at a constant rate, until standard input is closed.

Open loop: request k is sent k / rate seconds after the first, whatever became of those before it.
The callers are a stock `tritonclient`; every request leaves one line in the records file.
"""

import argparse
import asyncio
import itertools
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.http.aio as triton
from tritonclient.utils import InferenceServerException

from flows.cli.demo.records import Record
from flows.cli.demo.reference import INPUT, OUTPUT, Reference, read_reference

_REQUEST_SECONDS = 10.0
_ERROR_CHARACTERS = 300


class Callers:
    """Asks for one scan after the other and notes what came back. Confined to one event loop."""

    def __init__(self, client: Any, model: str, reference: Reference, note: Callable[[Record], None]) -> None:
        self._client = client
        self._model = model
        self._reference = reference
        self._note = note
        self._inputs = [_tensor(scan) for scan in reference.scans]
        self._outputs = [triton.InferRequestedOutput(OUTPUT, binary_data=False)]

    async def call(self, rate: float, stop: asyncio.Event) -> None:
        """Send at `rate` per second until told to stop, then wait for what is under way."""
        began = time.monotonic()
        async with asyncio.TaskGroup() as requests:
            for number in itertools.count():
                if await _is_set_within(stop, began + number / rate - time.monotonic()):
                    return
                requests.create_task(self._ask(number % len(self._inputs)))

    async def _ask(self, scan: int) -> None:
        started = time.monotonic()
        try:
            answer = await self._client.infer(self._model, [self._inputs[scan]], outputs=self._outputs)
            record = self._answered(scan, answer, started)
        except Exception as error:  # whatever a caller gets instead of an answer is a failed request
            record = _failed(error, started)
        self._note(record)

    def _answered(self, scan: int, answer: Any, started: float) -> Record:
        ended = time.monotonic()
        body = answer.get_response()
        version = str(body["model_version"])
        return Record(
            started=started,
            ended=ended,
            version=version,
            variant=str(body["parameters"]["variant"]),
            matches=self._reference.matches(version, scan, answer.as_numpy(OUTPUT)),
            status=200,
        )


def _failed(error: Exception, started: float) -> Record:
    status = error.status() if isinstance(error, InferenceServerException) else None
    return Record(
        started=started,
        ended=time.monotonic(),
        version=None,
        variant=None,
        matches=False,
        status=int(status) if status and status.isdecimal() else None,
        error=f"{type(error).__name__}: {error}"[:_ERROR_CHARACTERS],
    )


def _tensor(scan: np.ndarray) -> Any:
    tensor = triton.InferInput(INPUT, [1, *scan.shape], "FP32")
    tensor.set_data_from_numpy(scan[np.newaxis], binary_data=False)
    return tensor


async def _is_set_within(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(max(0.0, seconds)):
            await event.wait()
    except TimeoutError:
        return event.is_set()
    return True


def _set_at_end_of_input(stop: asyncio.Event) -> None:
    """The pipe's other end is closed on purpose, or because whoever held it died."""
    loop = asyncio.get_running_loop()
    descriptor = sys.stdin.fileno()

    def readable() -> None:
        if not os.read(descriptor, 4096):
            loop.remove_reader(descriptor)
            stop.set()

    loop.add_reader(descriptor, readable)


async def _run(address: str, model: str, rate: float, reference: Reference, records: Any) -> None:
    stop = asyncio.Event()
    _set_at_end_of_input(stop)
    # No limit on connections: a request that waited for one would not be an open loop's.
    async with triton.InferenceServerClient(address, conn_limit=0, conn_timeout=_REQUEST_SECONDS) as client:
        callers = Callers(client, model, reference, lambda record: records.write(record.line()))
        await callers.call(rate, stop)


def main() -> None:
    parser = argparse.ArgumentParser(description="Call a model at a constant rate until input ends.")
    parser.add_argument("--address", required=True, help="host:port of the server")
    parser.add_argument("--model", required=True)
    parser.add_argument("--rate", type=float, required=True, help="requests per second")
    parser.add_argument("--reference", type=Path, required=True, help="scans and expected outputs, .npz")
    parser.add_argument("--records", type=Path, required=True, help="file to append to")
    arguments = parser.parse_args()
    reference = read_reference(arguments.reference)
    with arguments.records.open("a", buffering=1) as records:
        asyncio.run(_run(arguments.address, arguments.model, arguments.rate, reference, records))


if __name__ == "__main__":
    main()
