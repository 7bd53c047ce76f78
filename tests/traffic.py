"""Constant-rate inference traffic: open loop, so that a slow answer does not slow down the asking.

Runs in a thread of its own; keeps one sample per request, and finds the answers that should not be.
"""

import asyncio
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from types import TracebackType

import httpx

from tests.serving_process import read_answer, request_body

_TIMEOUT_SECONDS = 15.0
_CONNECTIONS = 200


@dataclass(frozen=True, slots=True)
class Sample:
    """One request, by the monotonic clock. `status` is 0 where no answer came; then `problem` says why."""

    started: float
    ended: float
    status: int
    version: str | None = None
    variant: str | None = None
    added: float | None = None
    problem: str | None = None

    @property
    def is_answered(self) -> bool:
        return self.status == httpx.codes.OK


@dataclass(frozen=True, slots=True)
class Move:
    """An alias written between two moments of the monotonic clock."""

    began: float
    done: float
    version: str


class Traffic:
    """Asks `model` at `rate_per_second` from entering the context until leaving it."""

    def __init__(self, url: str, model: str, *, rate_per_second: float, x: float = 0.5) -> None:
        self._url = f"{url}/v2/models/{model}/infer"
        self._rate_per_second = rate_per_second
        self._x = x
        self._samples: list[Sample] = []
        self._waiting: set[float] = set()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="traffic", daemon=True)

    def __enter__(self) -> "Traffic":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Ask no more, and wait for the answers that are due."""
        self._stopping.set()
        self._thread.join(_TIMEOUT_SECONDS * 2)
        assert not self._thread.is_alive(), "requests are still unanswered"

    @property
    def samples(self) -> list[Sample]:
        """Finished requests so far, by their start."""
        return sorted(self._samples, key=lambda sample: sample.started)

    @property
    def in_flight_seconds(self) -> float:
        """How long the oldest unanswered request has been waiting; 0 where there is none."""
        return monotonic() - min(self._waiting.copy(), default=monotonic())

    def answers_of(self, version: str) -> int:
        return sum(sample.version == version for sample in list(self._samples))

    async def _run(self) -> None:
        limits = httpx.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=_CONNECTIONS)
        async with (
            httpx.AsyncClient(trust_env=False, timeout=_TIMEOUT_SECONDS, limits=limits) as client,
            asyncio.TaskGroup() as group,
        ):
            began, asked = monotonic(), 0
            pace = asyncio.Event()  # never set: a pause that a deadline ends
            while not self._stopping.is_set():
                group.create_task(self._ask(client))
                asked += 1
                try:
                    async with asyncio.timeout(began + asked / self._rate_per_second - monotonic()):
                        await pace.wait()
                except TimeoutError:
                    continue

    async def _ask(self, client: httpx.AsyncClient) -> None:
        started = monotonic()
        self._waiting.add(started)
        try:
            response = await client.post(self._url, json=request_body(self._x))
        except httpx.TransportError as error:
            self._samples.append(Sample(started, monotonic(), 0, problem=repr(error)))
            return
        finally:
            self._waiting.discard(started)
        ended, answer = monotonic(), read_answer(response, self._x)
        self._samples.append(
            Sample(started, ended, answer.status, answer.version, answer.variant, answer.added, answer.error)
        )


def failed(samples: Sequence[Sample]) -> list[Sample]:
    return [sample for sample in samples if not sample.is_answered]


def wrong(samples: Sequence[Sample], constants: Mapping[str, float]) -> list[Sample]:
    """Answers whose value is not what the version they name computes."""
    return [s for s in samples if s.is_answered and s.added != constants.get(s.version or "")]


def first_answer_seconds(samples: Sequence[Sample], moves: Sequence[Move]) -> list[float]:
    """Per move, from before its write to the end of its version's first answer; infinite without one."""
    return [_first_answer(window, move) - move.began for move, window in _windows(samples, moves)]


def old_after_new(samples: Sequence[Sample], moves: Sequence[Move]) -> list[Sample]:
    """Answers of another version to requests that began after the new version's first answer."""
    return [
        sample
        for move, window in _windows(samples, moves)
        for sample in window
        if sample.is_answered
        and sample.started > _first_answer(window, move)
        and sample.version != move.version
    ]


def _windows(samples: Sequence[Sample], moves: Sequence[Move]) -> list[tuple[Move, list[Sample]]]:
    """Each move with the requests begun from its write until the next one's."""
    ends = [*(move.began for move in moves[1:]), float("inf")]
    return [
        (move, [s for s in samples if move.began <= s.started < end])
        for move, end in zip(moves, ends, strict=True)
    ]


def _first_answer(window: Sequence[Sample], move: Move) -> float:
    return min((s.ended for s in window if s.version == move.version), default=float("inf"))
