"""Versions in memory: who is using one, when it may go to sleep, and when it is released for good.

A version in service may sleep: its files stay, its memory goes, and the next request wakes it. Every
request holds a use of its version until the model code has really returned, also when the caller gave
up; a version sleeps or is closed only between uses, and outside the request path. Long because all of
this turns on one lock and one count of uses.
"""

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import cast

from serving.batcher import DEFAULT_LIMITS, Batcher, BatchLimits, Execution, Timing
from serving.breaker import Breaker
from serving.core.batch import Tensors
from serving.core.clock import Clock, SystemClock
from serving.core.datatypes import Array
from serving.core.errors import DeadlineExceeded, ModelFailed, Overloaded, VersionUnresponsive
from serving.core.model import VersionRef
from serving.formats.artifact import Artifact
from serving.formats.loader import Interruptible, LoadedModel
from serving.formats.selftest import SelfTest
from serving.promptness import Promptness, Watchdog
from serving.runners import Runners
from serving.store.registry import ModelVersion

log = logging.getLogger(__name__)

_FOREVER_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class VersionKey:
    """A version together with the birth of its registered model, so that a namesake is another version."""

    ref: VersionRef
    created_ms: int


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a loaded version came from; enough to load it again without the registry."""

    key: VersionKey
    source: str
    digest: str
    folder: Path
    registered: ModelVersion | None


@dataclass(frozen=True, slots=True)
class Loading:
    """What loading showed: `cost_bytes` the memory it took, `is_joinable` whether rows are independent."""

    cost_bytes: int = 0
    is_joinable: bool = False


NOTHING_KNOWN = Loading()


class LoadedVersion:
    """One version in service. `model` keeps its specs while asleep, and must then not be asked.

    `joined_rows` is how many rows of different requests one execution may hold; 1 joins none.
    Uses are counted under a lock; waking and running belong to the event loop's thread.
    """

    def __init__(
        self,
        provenance: Provenance,
        artifact: Artifact,
        model: LoadedModel,
        self_test: SelfTest,
        loaded_at: datetime,
        workers: int,
        *,
        loading: Loading = Loading(),
        batch_limits: BatchLimits = DEFAULT_LIMITS,
        clock: Clock | None = None,
        watchdog: Watchdog | None = None,
    ) -> None:
        self.provenance = provenance
        self.artifact = artifact
        self.model = model
        self.self_test = self_test
        self.loaded_at = loaded_at
        self.loading = loading
        self.joined_rows = batch_limits.max_rows if loading.is_joinable else 1
        self._clock = clock or SystemClock()
        self._runners = Runners(workers, f"infer-{provenance.key.ref}")
        self.breaker = Breaker(provenance.key.ref, self._runners, self._clock, lambda: self.on_circuit(self))
        self._batcher = Batcher(
            lambda inputs: self.model.predict(inputs),
            self._runners,
            self._clock,
            batch_limits,
            self.breaker,
            is_joinable=loading.is_joinable,
            watch=self._note,
        )
        self._promptness = (
            Promptness(watchdog, self._clock)
            if watchdog is not None and isinstance(model, Interruptible)
            else None
        )
        self._guard = threading.Lock()
        self._uses = 0
        self._is_awake = True
        self._is_retired = False
        self._is_closed = False
        self._idle = threading.Event()
        self._waking: asyncio.Task[None] | None = None
        self._gate: asyncio.Event | None = None
        self._wake: Callable[[LoadedVersion], Awaitable[None]] | None = None
        self.on_execution: Callable[[Execution], None] = lambda _: None
        self.on_idle: Callable[[], None] = lambda: None
        self.on_circuit: Callable[[LoadedVersion], None] = lambda _: None
        self.awake_since = self.last_used = self._clock.monotonic()
        self.requests = 0
        # What a transport keeps with the version, on the event loop's thread.
        self.beside: object = None

    @property
    def key(self) -> VersionKey:
        return self.provenance.key

    @property
    def ref(self) -> VersionRef:
        return self.provenance.key.ref

    @property
    def uses(self) -> int:
        """Executions that have not returned yet, and requests that may still begin one."""
        return self._uses

    @property
    def waiting(self) -> int:
        """Requests that wait for a thread."""
        return self._batcher.waiting

    @property
    def is_awake(self) -> bool:
        return self._is_awake

    @property
    def is_retired(self) -> bool:
        """Whether it is leaving service: only what turned to it already is still answered."""
        return self._is_retired

    def woken_by(self, wake: Callable[["LoadedVersion"], Awaitable[None]]) -> None:
        """Who loads the model again when it is needed; without that, it never sleeps."""
        self._wake = wake

    @contextmanager
    def held(self) -> Iterator[None]:
        """A use without an execution: keeps the version open for a request that may still turn to it."""
        self._enter()
        try:
            yield
        finally:
            self._release()

    async def ready(self) -> None:
        """Return once the model is in memory. Hold the version, or it may go back to sleep at once."""
        while not self._is_awake:
            if self._waking is None:
                self._waking = asyncio.create_task(self._woken())
                self._waking.add_done_callback(self._forget_waking)
            await asyncio.shield(self._waking)

    @property
    def is_prompt(self) -> bool:
        """Whether `at_once` may be worth a try."""
        promptness = self._promptness
        return promptness is not None and promptness.is_proven and self._gate is None and self._is_awake

    def at_once(self, inputs: Tensors, timing: Timing) -> dict[str, Array] | None:
        """The outputs of a model so quick that no thread is worth it; None where it is for `run` to answer.

        Raises `ModelFailed` as `run` does.
        """
        promptness = self._promptness
        if promptness is None or self._gate is not None or not promptness.allows(inputs):
            return None
        self._enter()
        try:
            if not self._is_awake or self._is_closed:
                return None
            outputs = promptness.run(cast(Interruptible, self.model), inputs, timing)
            self.requests += outputs is not None
            return outputs
        except Exception as error:  # the edge to foreign code, as below
            raise self._failed(f"{type(error).__name__}: {error}") from error
        finally:
            self._release()

    async def run(
        self, inputs: Tensors, deadline: float | None = None, timing: Timing | None = None
    ) -> dict[str, Array]:
        """Outputs by name; `deadline` is a moment of the monotonic clock, `timing` is filled in.

        Raises:
            ModelFailed: anything the model raises, or what kept it from being loaded again.
            DeadlineExceeded: the time ran out before an execution began.
            Overloaded: too many requests wait for this model.
            VersionUnresponsive: it was not asked, because nothing it was asked lately returned.
        """
        while self._gate is not None:
            await self._gate.wait()
        self._enter()
        self.requests += 1
        try:
            if self._is_closed:
                raise self._failed("was released")
            await self._ready_for_use()
            until = self._clock.monotonic() + _FOREVER_SECONDS if deadline is None else deadline
            answer = self._batcher.submit(inputs, until, self._release, timing)
        except BaseException:
            self._release()
            raise
        try:
            return await answer
        except (DeadlineExceeded, VersionUnresponsive):
            raise
        except asyncio.CancelledError:
            self._batcher.forget(answer)
            raise
        except Exception as error:  # the edge to foreign code: whatever a model raises is its failure
            raise self._failed(f"{type(error).__name__}: {error}") from error

    def close_gate(self) -> None:
        """Let new requests wait, so that the version falls idle however many ask for it."""
        if self._gate is None:
            self._gate = asyncio.Event()

    def open_gate(self) -> None:
        gate, self._gate = self._gate, None
        if gate is not None:
            gate.set()

    def sleep(self) -> LoadedModel | None:
        """Give up the model, for the caller to close, unless somebody uses it or nobody could wake it."""
        with self._guard:
            if self._uses or not self._is_awake or self._is_retired or self._wake is None:
                return None
            self._is_awake = False
            return self.model

    def awaken(self, model: LoadedModel) -> bool:
        """Take a model loaded again; False where the version was released meanwhile, and it is not taken."""
        with self._guard:
            if self._is_retired:
                return False
            self.model, self._is_awake = model, True
            self.awake_since = self._clock.monotonic()
            return True

    def retire(self, timeout_seconds: float) -> bool:
        """Wait for the last use, then close. Blocks; False when uses remained and the model was left be."""
        with self._guard:
            self._is_retired = True
            if self._uses == 0:
                self._idle.set()
        if not self._fell_idle(timeout_seconds):
            log.warning("version_still_in_use version=%s uses=%d", self.ref, self._uses)
            return False
        self._runners.stop()
        if self._is_awake:
            self.model.close()
        return True

    def _fell_idle(self, timeout_seconds: float) -> bool:
        """Wait until nobody uses the version; from then on nobody may."""
        while self._idle.wait(timeout_seconds):
            with self._guard:
                if self._uses == 0:
                    self._is_closed = True
                    return True
                self._idle.clear()  # somebody turned to it between the last use and this look
        return False

    async def _ready_for_use(self) -> None:
        try:
            await self.ready()
        except Overloaded:
            raise
        except Exception as error:  # files gone, no memory to be had: the version cannot answer
            raise self._failed(f"could not be loaded again: {error}") from error

    async def _woken(self) -> None:
        assert self._wake is not None
        await self._wake(self)

    def _forget_waking(self, waking: "asyncio.Task[None]") -> None:
        self._waking = None
        if not waking.cancelled():
            waking.exception()  # whoever waited has it; nobody may have

    def _note(self, execution: Execution) -> None:
        if self._promptness is not None and execution.error is None:
            self._promptness.note(execution.size_bytes, execution.seconds)
        self.on_execution(execution)

    def _failed(self, problem: str) -> ModelFailed:
        return ModelFailed(problem, model=self.ref.model, version=self.ref.version)

    def _enter(self) -> None:
        with self._guard:
            self._uses += 1
        self.last_used = self._clock.monotonic()

    def _release(self) -> None:
        with self._guard:
            self._uses -= 1
            is_idle = self._uses == 0
            if self._is_retired and is_idle:
                self._idle.set()
        if is_idle:
            self.on_idle()
