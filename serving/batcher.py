"""Adaptive batching for one version: what waits while the model is busy is answered in one execution.

Nothing waits while a thread is idle, so a lone request is answered at once. Requests whose caller left
or whose deadline passed are never computed; results never cross callers. Confined to the event loop's
thread, except for the executions themselves.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from serving.breaker import Breaker, Run
from serving.core.batch import Form, Tensors, form_of, join, part, rows_of
from serving.core.clock import Clock
from serving.core.datatypes import Array
from serving.core.errors import DeadlineExceeded, Overloaded
from serving.runners import Runners

Predict = Callable[[Tensors], dict[str, Array]]
# A second thread helps out when the first has kept somebody waiting for this long.
_IMPATIENCE_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """`max_rows` of 1 never joins requests. The queue is bounded by requests and by bytes of input."""

    max_rows: int = 32
    max_waiting: int = 512
    max_waiting_bytes: int = 256 << 20


DEFAULT_LIMITS = BatchLimits()


@dataclass(slots=True)
class Timing:
    """When one request's execution was asked for, begun and done, in nanoseconds of the performance counter.

    `rows` are the request's own, `executed_rows` all that were answered in that execution; `leads` is true
    of one request of each execution, so that executions can be counted.
    """

    asked_ns: int = 0
    begun_ns: int = 0
    done_ns: int = 0
    rows: int = 1
    executed_rows: int = 1
    leads: bool = True


@dataclass(slots=True, eq=False)
class Ticket:
    """One waiting request. `rows` is 0 where it cannot be joined; `done` is called once, at its very end."""

    inputs: Tensors
    rows: int
    form: Form
    size_bytes: int
    deadline: float
    came_at: float
    answer: "asyncio.Future[dict[str, Array]]"
    done: Callable[[], None]
    timing: Timing


@dataclass(frozen=True, slots=True)
class Execution:
    """What one execution took, for statistics. `error` is what it raised, if anything."""

    requests: int
    rows: int
    size_bytes: int
    queue_seconds: float
    seconds: float
    error: BaseException | None


Watcher = Callable[[Execution], None]


class Batcher:
    """`predict` may be called from several threads at once. `is_joinable` says that rows are independent."""

    def __init__(
        self,
        predict: Predict,
        runners: Runners,
        clock: Clock,
        limits: BatchLimits,
        breaker: Breaker,
        *,
        is_joinable: bool,
        watch: Watcher = lambda _: None,
    ) -> None:
        self._predict = predict
        self._runners = runners
        self._clock = clock
        self._limits = limits
        self._is_joinable = is_joinable and limits.max_rows > 1
        self._watch = watch
        self._breaker = breaker
        breaker.on_open = self._let_go
        self._waiting: deque[Ticket] = deque()
        self._waiting_bytes = 0
        self._busy = 0
        self._alarm: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def submit(
        self, inputs: Tensors, deadline: float, done: Callable[[], None], timing: Timing | None = None
    ) -> "asyncio.Future[dict[str, Array]]":
        """The outputs to come. `deadline` is a moment of the monotonic clock.

        `done` is called once nothing of this request is computed any more, which may be long after the
        caller gave up. Raises `Overloaded` where too much waits already and `VersionUnresponsive` where
        nothing returns any more; then `done` is never called.
        """
        now = self._clock.monotonic()
        self._breaker.admit(now)
        size_bytes = sum(array.nbytes for array in inputs.values())
        self._check_room(size_bytes)
        rows = (rows_of(inputs) or 0) if self._is_joinable else 0
        form = form_of(inputs) if rows else ()
        answer = asyncio.get_running_loop().create_future()
        timing = timing or Timing()
        self._waiting.append(Ticket(inputs, rows, form, size_bytes, deadline, now, answer, done, timing))
        self._waiting_bytes += size_bytes
        self._dispatch(now)
        return answer

    def forget(self, answer: "asyncio.Future[dict[str, Array]]") -> None:
        """Let go at once of a request whose caller left, unless it is being computed already."""
        ticket = next((ticket for ticket in self._waiting if ticket.answer is answer), None)
        if ticket is not None:
            self._waiting.remove(ticket)
            self._forget(ticket)
        self._breaker.look(self._clock.monotonic())

    def _let_go(self, refusal: Exception) -> None:
        """Nothing returns any more: nobody need wait for it."""
        while self._waiting:
            ticket = self._waiting.popleft()
            if not ticket.answer.done():
                ticket.answer.set_exception(refusal)
            self._forget(ticket)

    def _check_room(self, size_bytes: int) -> None:
        if len(self._waiting) >= self._limits.max_waiting:
            problem = f"{self.waiting} requests wait for this model already"
            raise Overloaded(problem, retry_after_seconds=1.0)
        if self._waiting and self._waiting_bytes + size_bytes > self._limits.max_waiting_bytes:
            problem = f"{self._waiting_bytes >> 20} MB of inputs wait for this model already"
            raise Overloaded(problem, retry_after_seconds=1.0)

    def _dispatch(self, now: float) -> None:
        """Give waiting requests to threads that may take them."""
        loop = asyncio.get_running_loop()
        while self._waiting and self._may_start(now):
            batch = self._next_batch(now)
            if not batch:
                return
            self._busy += 1
            run = self._breaker.begin(now, partial(_is_awaited, batch))
            self._runners.start(partial(self._execute, loop, batch, run))
        if self._waiting and self._alarm is None and self._busy < self._runners.count:
            delay = max(0.0, self._waiting[0].came_at + _IMPATIENCE_SECONDS - now)
            self._alarm = loop.call_later(delay, self._on_alarm)

    def _may_start(self, now: float) -> bool:
        if self._busy == 0 or not self._is_joinable:
            return self._busy < self._runners.count
        is_late = now - self._waiting[0].came_at >= _IMPATIENCE_SECONDS
        return is_late and self._busy < self._runners.count

    def _on_alarm(self) -> None:
        self._alarm = None
        self._dispatch(self._clock.monotonic())

    def _next_batch(self, now: float) -> list[Ticket]:
        """The oldest request that is still wanted, and what can be joined with it, in order."""
        batch: list[Ticket] = []
        rows, passed = 0, deque[Ticket]()
        while self._waiting:
            ticket = self._waiting.popleft()
            if self._is_over(ticket, now):
                self._forget(ticket)
                continue
            if batch and not (ticket.rows and ticket.form == batch[0].form):
                passed.append(ticket)
                continue
            if batch and rows + ticket.rows > self._limits.max_rows:
                passed.append(ticket)
                break
            batch.append(ticket)
            self._waiting_bytes -= ticket.size_bytes
            rows += ticket.rows
            if not ticket.rows:
                break
        self._waiting.extendleft(reversed(passed))
        return batch

    def _is_over(self, ticket: Ticket, now: float) -> bool:
        if not ticket.answer.done() and now >= ticket.deadline:
            ticket.answer.set_exception(
                DeadlineExceeded("the deadline passed while the request waited for the model")
            )
        return ticket.answer.done()

    def _forget(self, ticket: Ticket) -> None:
        self._waiting_bytes -= ticket.size_bytes
        ticket.done()

    def _execute(self, loop: asyncio.AbstractEventLoop, batch: Sequence[Ticket], run: Run) -> None:
        """On a runner's thread: compute, and hand the outcome back to the loop."""
        started = self._clock.monotonic()
        outcomes, error = self._outcomes(batch)
        finished = self._clock.monotonic()
        told = Execution(
            requests=len(batch),
            rows=sum(ticket.rows or 1 for ticket in batch),
            size_bytes=sum(ticket.size_bytes for ticket in batch),
            queue_seconds=sum(started - ticket.came_at for ticket in batch),
            seconds=finished - started,
            error=error,
        )
        try:
            loop.call_soon_threadsafe(self._deliver, batch, run, outcomes, told)
        except RuntimeError:  # the loop has ended: nobody waits any more
            for ticket in batch:
                ticket.done()

    def _outcomes(
        self, batch: Sequence[Ticket]
    ) -> tuple[Sequence[Mapping[str, Array] | BaseException], BaseException | None]:
        """One outcome per request. A batch that fails is taken apart, so that one input spoils no other."""
        begun_ns = time.perf_counter_ns()
        try:
            outputs = self._predict(join([ticket.inputs for ticket in batch]))
        except BaseException as raised:  # foreign code: whatever it raises is the outcome
            if len(batch) == 1:
                return [raised], raised
        else:
            _stamp(batch, begun_ns)
            if len(batch) == 1:
                return [outputs], None
            if (parted := part(outputs, [ticket.rows for ticket in batch])) is not None:
                return parted, None
        alone = [self._outcomes([ticket]) for ticket in batch]
        first = next((error for _, error in alone if error is not None), None)
        return [outcomes[0] for outcomes, _ in alone], first

    def _deliver(
        self,
        batch: Sequence[Ticket],
        run: Run,
        outcomes: Sequence[Mapping[str, Array] | BaseException],
        told: Execution,
    ) -> None:
        self._busy -= 1
        self._breaker.ended(run, self._clock.monotonic())
        self._watch(told)
        for ticket, outcome in zip(batch, outcomes, strict=True):
            if not ticket.answer.done():
                if isinstance(outcome, BaseException):
                    ticket.answer.set_exception(_carried(outcome))
                else:
                    ticket.answer.set_result(dict(outcome))
            ticket.done()
        if self._waiting:
            self._dispatch(self._clock.monotonic())


def _is_awaited(batch: Sequence[Ticket], now: float) -> bool:
    return any(not ticket.answer.done() and now < ticket.deadline for ticket in batch)


def _stamp(batch: Sequence[Ticket], begun_ns: int) -> None:
    done_ns, rows = time.perf_counter_ns(), sum(ticket.rows or 1 for ticket in batch)
    for number, timing in enumerate(ticket.timing for ticket in batch):
        timing.begun_ns, timing.done_ns = begun_ns, done_ns
        timing.executed_rows, timing.leads = rows, number == 0


def _carried(raised: BaseException) -> Exception:
    """An exception a future can carry: StopIteration and whatever is no Exception must not end the loop."""
    if isinstance(raised, Exception) and not isinstance(raised, StopIteration):
        return raised
    carried = RuntimeError(f"{type(raised).__name__}: {raised}")
    carried.__cause__ = raised
    return carried
