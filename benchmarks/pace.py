"""Open-loop load from a process of its own: a request is due at its time, whatever became of those before.

    python -m benchmarks.pace HOST PORT PATH RATE LANES BODY OUT

Asks until its standard input is closed, then waits for the answers that are due and writes OUT (`Heard`).
A request that finds every connection busy waits for one, and its latency counts from when it was due, so
that a server which stalls is not asked less (coordinated omission). A loop of its own, because those of
asyncio and uvloop wait in whole milliseconds: requests would come in bursts, which wait for each other.
"""

import select
import socket
import sys
from array import array
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, process_time

import httptools
import numpy as np

from serving.core.datatypes import Array

_STOP_FILE = 0  # standard input
_MOST_READ_BYTES = 1 << 16
_LAST_ANSWERS_SECONDS = 15.0
_LOST = 0  # the status of a request whose connection broke


@dataclass(frozen=True, slots=True)
class Heard:
    """Requests by when they were due. Times by the monotonic clock, which all processes share.

    `status` and `said` per request, `said` as a place in `bodies`; `busy_ratio` is the load's own share of
    a core.
    """

    due: Array
    ended: Array
    status: Array
    said: Array
    bodies: tuple[bytes, ...]
    busy_ratio: float

    @property
    def ms(self) -> Array:
        waited: Array = (self.ended - self.due) * 1000
        return waited


def read(path: Path) -> Heard:
    with np.load(path) as told:
        order = np.argsort(told["due"], kind="stable")
        columns = {name: told[name][order] for name in ("due", "ended", "status", "said")}
        ends = np.cumsum(told["lengths"]).tolist()
        text = told["text"].tobytes()
        bodies = tuple(text[begin:end] for begin, end in zip([0, *ends], ends, strict=False))
        return Heard(**columns, bodies=bodies, busy_ratio=float(told["busy_ratio"]))


class Tally:
    """What came of the requests so far, in columns."""

    def __init__(self) -> None:
        self._times = {name: array("d") for name in ("due", "ended")}
        self._places = {name: array("l") for name in ("status", "said")}
        self._bodies: dict[bytes, int] = {}

    def add(self, due: float, status: int, body: bytes) -> None:
        self._times["due"].append(due)
        self._times["ended"].append(monotonic())
        self._places["status"].append(status)
        self._places["said"].append(self._bodies.setdefault(body, len(self._bodies)))

    def write(self, path: Path, busy_ratio: float) -> None:
        columns = {name: np.asarray(column) for name, column in (self._times | self._places).items()}
        with path.open("wb") as file:
            np.savez(
                file,
                allow_pickle=False,
                **columns,
                text=np.frombuffer(b"".join(self._bodies), np.uint8),
                lengths=np.array([len(body) for body in self._bodies], np.int64),
                busy_ratio=np.array(busy_ratio),
            )


class Lane:
    """One connection, for one request at a time."""

    def __init__(self, address: tuple[str, int], tally: Tally) -> None:
        self._tally = tally
        self._due: float | None = None
        self._body = b""
        self._parser = httptools.HttpResponseParser(self)
        self._socket = socket.create_connection(address)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self._socket.fileno()

    @property
    def is_free(self) -> bool:
        return self._due is None

    def ask(self, request: bytes, due: float) -> None:
        self._due, self._body = due, b""
        self._socket.sendall(request)

    def hear(self) -> bool:
        """Take what has come; False once the connection is broken."""
        try:
            data = self._socket.recv(_MOST_READ_BYTES)
        except OSError:
            data = b""
        if data:
            self._parser.feed_data(data)
        return bool(data)

    def close(self) -> None:
        self._socket.close()
        if self._due is not None:
            self._tally.add(self._due, _LOST, b"")

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        if self._due is not None:
            self._tally.add(self._due, self._parser.get_status_code(), self._body)
        self._due = None


class Pace:
    """What is due, and who is free to ask it."""

    def __init__(self, address: tuple[str, int], request: bytes, rate_per_second: float, lanes: int) -> None:
        self._address = address
        self._request = request
        self._every_seconds = 1 / rate_per_second
        self.tally = Tally()
        self._waiting = select.epoll()
        self._waiting.register(_STOP_FILE, select.EPOLLIN)
        self._lanes: dict[int, Lane] = {}
        self._free: list[Lane] = []
        for _ in range(lanes):
            self._open()

    def run(self) -> None:
        """Ask until standard input is closed, and hear the answers that are due then."""
        due: deque[float] = deque()
        upcoming, until = monotonic(), float("inf")
        while (now := monotonic()) < until and (until == float("inf") or due or self._is_waiting):
            while upcoming <= now and until == float("inf"):
                due.append(upcoming)
                upcoming += self._every_seconds
            while due and self._free:
                self._free.pop().ask(self._request, due.popleft())
            # `select` waits in microseconds, `epoll` in milliseconds.
            select.select([self._waiting], [], [], max(0.0, upcoming - monotonic()))
            if self._hear() and until == float("inf"):
                until = monotonic() + _LAST_ANSWERS_SECONDS

    @property
    def _is_waiting(self) -> bool:
        return len(self._free) < len(self._lanes)

    def _hear(self) -> bool:
        """Take what has come; True once there is to be an end."""
        is_over = False
        for file, _ in self._waiting.poll(0):
            if file == _STOP_FILE:
                self._waiting.unregister(_STOP_FILE)
                is_over = True
            elif not (lane := self._lanes[file]).hear():
                self._reopen(lane)
            elif lane.is_free:
                self._free.append(lane)
        return is_over

    def _open(self) -> None:
        lane = Lane(self._address, self.tally)
        self._lanes[lane.file] = lane
        self._waiting.register(lane.file, select.EPOLLIN)
        self._free.append(lane)

    def _reopen(self, lane: Lane) -> None:
        self._waiting.unregister(lane.file)
        del self._lanes[lane.file]
        if lane in self._free:
            self._free.remove(lane)
        lane.close()
        self._open()


def main() -> None:
    host, port, path, rate, lanes, body, out = sys.argv[1:]
    content = Path(body).read_bytes()
    lines = (f"POST {path} HTTP/1.1", f"Host: {host}:{port}", "Content-Type: application/json")
    head = "\r\n".join([*lines, f"Content-Length: {len(content)}", "", ""]).encode()
    pace = Pace((host, int(port)), head + content, float(rate), int(lanes))
    print("asking", flush=True)
    began, spent = monotonic(), process_time()
    pace.run()
    pace.tally.write(Path(out), (process_time() - spent) / (monotonic() - began))


if __name__ == "__main__":
    main()
