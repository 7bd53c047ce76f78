"""The use case of an inference request: route, run, check, stand in, account. Every transport calls this.

A version is chosen once. What it raises, answers too late or outside its output spec, is its failure:
the fallback answers the same input within the same deadline, and the failure counts against the version.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace

import numpy as np

from serving.accounts import Accounts, Answer, Times
from serving.batcher import Timing
from serving.core.clock import Clock
from serving.core.errors import DeadlineExceeded, InvalidRequest, ModelFailed, Overloaded
from serving.core.model import Variant
from serving.core.window import OVERLOADED
from serving.failures import report_failure
from serving.finiteness import Finite, culprit, is_fault
from serving.formats.loader import LoadedModel
from serving.formats.selftest import output_problem
from serving.pool import LoadedVersion
from serving.routes import Route, Routes
from serving.scores import Scores
from serving.shadow import Given, Shadow, share_seconds
from serving.telemetry.inference_log import first_axis_is_batch
from serving.telemetry.recorder import Recorder

log = logging.getLogger(__name__)

Arrays = Mapping[str, np.ndarray]
Read = Callable[[LoadedModel], Arrays]  # the request as a model takes it; raises `InvalidRequest`

# A version with a stand-in gets half of a request's time, so that the other can still answer.
_FIRST_SHARE = 0.5
_FAIR_SECONDS = 0.5


class Inference:
    """Confined to the event loop's thread; models run on threads of their own."""

    def __init__(
        self,
        routes: Routes,
        scores: Scores,
        shadow: Shadow,
        recorder: Recorder,
        accounts: Accounts,
        clock: Clock,
    ) -> None:
        self._accounts = accounts
        self._routes = routes
        self._scores = scores
        self._shadow = shadow
        self._recorder = recorder
        self._clock = clock

    def route(self, model: str, address: str | None, key: str | None = None) -> Route:
        """Who answers; `key` decides where the request names nobody and traffic is split."""
        return self._routes.find(model, address, key)

    async def infer(
        self,
        route: Route,
        read: Read,
        *,
        deadline: float,
        request_id: str,
        finite: Finite,
    ) -> Answer:
        """Answer one request.

        `deadline` is a moment of the monotonic clock. A non-finite output is the version's failure where the
        fallback's is finite; else it is given as it is, or refused if it must be `finite`.
        """
        arrived_ns = time.perf_counter_ns()
        taken, inputs = route.taken(read)
        read_ns = time.perf_counter_ns() - arrived_ns
        is_batched = first_axis_is_batch(taken.version.model.inputs)
        status = "failed"
        answered = Answer({}, taken.version, taken.variant, taken.alias)
        try:
            with taken.fallback.held() if taken.fallback is not None else nullcontext():
                answered = await self._answer(taken, inputs, read, deadline, request_id, finite)
            if is_batched and answered.timing is not None:
                answered.timing.rows = len(next(iter(inputs.values())))
            status = "ok"
            if taken is not route:  # refused by the challenger, and the champion could answer it
                self._scores.count(route, failed=True)
            return self._with_copies(taken, answered, inputs, read, request_id)
        except InvalidRequest:
            status = "invalid"
            raise
        except DeadlineExceeded:
            status = "timeout"
            raise
        except Overloaded:  # the server's lack of room, which says nothing of the version
            status = OVERLOADED
            raise
        except asyncio.CancelledError:  # the caller hung up, which is nobody's failure
            status = "cancelled"
            raise
        finally:
            times = Times(arrived_ns, read_ns)
            self._accounts.settle(answered, status, inputs, request_id, times, is_batched=is_batched)

    def at_once(self, route: Route, read: Read, *, request_id: str, finite: Finite) -> Answer | None:
        """The answer of a version so quick that nothing need be waited for, where all goes well.

        None, with nothing accounted, where anything is out of the ordinary: `infer` then sees to it, from
        the beginning. Raises `InvalidRequest` for inputs that no version of the route takes.
        """
        version = route.version
        if not version.is_prompt:
            return None
        arrived_ns = time.perf_counter_ns()
        try:
            inputs = read(version.model)
            timing = Timing(asked_ns=time.perf_counter_ns())
            outputs = version.at_once(inputs, timing)
        except InvalidRequest:
            if route.is_divided:
                return None
            raise
        except ModelFailed:
            return None
        specs = version.model
        if outputs is None or output_problem(specs.outputs, outputs):
            return None
        if culprit(outputs, finite if route.fallback is None else True) is not None:
            return None
        if is_batched := first_axis_is_batch(specs.inputs):
            timing.rows = timing.executed_rows = len(next(iter(inputs.values())))
        self._scores.count(route, failed=False)
        answer = Answer(outputs, version, route.variant, route.alias, timing)
        times = Times(arrived_ns, timing.asked_ns - arrived_ns)
        self._accounts.settle(answer, "ok", inputs, request_id, times, is_batched=is_batched)
        return self._with_copies(route, answer, inputs, read, request_id)

    def answered_at_once(
        self,
        route: Route,
        inputs: Arrays,
        outputs: Arrays,
        timing: Timing,
        arrived_ns: int,
        rendered_ns: int,
        request_id: str,
        *,
        is_batched: bool,
    ) -> None:
        """Account an answer that a version gave at once, that is right in every way and written already.

        For a route without copies. `rendered_ns` is what writing it took.
        """
        if is_batched:
            timing.rows = timing.executed_rows = len(next(iter(inputs.values())))
        self._scores.count(route, failed=False)
        ref, variant = route.version.ref, route.variant
        self._accounts.settle_whole(
            ref, variant, inputs, outputs, timing, arrived_ns, rendered_ns, request_id, is_batched=is_batched
        )

    def rendered(self, answer: Answer, began_ns: int) -> None:
        """Account the time since `began_ns` of the performance counter, spent on encoding the answer.

        Copies of the request begin now, when nobody waits for it any more.
        """
        self._accounts.rendered(answer, began_ns)
        if answer.copies:
            self._shadow.start(answer.copies)

    def _with_copies(
        self, route: Route, answer: Answer, inputs: Arrays, read: Read, request_id: str
    ) -> Answer:
        """The answer with the copies to make of it: of a version's own answer, not a stand-in's."""
        timing = answer.timing
        if not route.copies or answer.version is not route.version or timing is None:
            return answer
        by_share = any(target.by_share for target in route.copies)
        seconds = share_seconds(timing) if by_share else (timing.done_ns - timing.begun_ns) * 1e-9
        given = Given(answer.version, inputs, answer.outputs, seconds, read, request_id)
        return replace(answer, copies=self._shadow.sample(route.copies, given))

    async def _answer(
        self, route: Route, inputs: Arrays, read: Read, deadline: float, request_id: str, finite: Finite
    ) -> Answer:
        began = self._clock.monotonic()
        share = deadline if route.fallback is None else began + (deadline - began) * _FIRST_SHARE
        timing = Timing()
        try:
            outputs = await self._run(route.version, inputs, share, timing)
        except ModelFailed as failure:
            cause = report_failure(failure, route.version, inputs, request_id, self._clock.now())
            if cause is not None:
                self._recorder.failed(cause, route.variant)
            return await self._stand_in(route, failure, read, deadline, request_id, finite, is_fair=True)
        except DeadlineExceeded as late:
            log.warning("inference_late request_id=%s version=%s", request_id, route.version.ref)
            is_fair = share - began >= _FAIR_SECONDS
            return await self._stand_in(route, late, read, deadline, request_id, finite, is_fair=is_fair)
        except Overloaded as busy:
            if not route.is_divided:
                raise
            answer = await self._stand_in(route, busy, read, deadline, request_id, finite, is_fair=False)
            if route.version.is_awake:  # no reason to eject it, but its rollout must see what it cannot bear
                self._recorder.judged(route.version.ref, route.variant, failed=True)
            return answer
        own = Answer(outputs, route.version, route.variant, route.alias, timing)
        if culprit(outputs, finite if route.fallback is None else True) is not None:
            return await self._second_opinion(route, own, read, deadline, request_id, finite)
        self._scores.count(route, failed=False)
        return own

    async def _stand_in(
        self,
        route: Route,
        failure: ModelFailed | DeadlineExceeded | Overloaded,
        read: Read,
        deadline: float,
        request_id: str,
        finite: Finite,
        *,
        is_fair: bool,
    ) -> Answer:
        """The fallback's answer, if it can be sent. An input on which both fail counts against neither.

        Nor does the haste of a caller who gave the version no fair time.
        """
        if route.fallback is None:
            if is_fair:
                self._scores.count(route, failed=True)
            raise failure
        answer = await self._fallback_answer(route, route.fallback, read, deadline, request_id)
        if answer is None or culprit(answer.outputs, finite) is not None:
            raise failure
        if is_fair:
            self._scores.count(route, failed=True)
        return answer

    async def _second_opinion(
        self, route: Route, own: Answer, read: Read, deadline: float, request_id: str, finite: Finite
    ) -> Answer:
        """Whose fault a non-finite output is: the version's only if that of the fallback is finite."""
        answer = own
        if route.fallback is not None:
            other = await self._fallback_answer(route, route.fallback, read, deadline, request_id)
            if other is not None and is_fault(own.outputs, other.outputs):
                answer = other
        self._scores.count(route, failed=answer is not own)
        if (name := culprit(answer.outputs, finite)) is not None:
            raise InvalidRequest(f"output '{name}' is not finite for this input, which JSON cannot carry")
        return answer

    async def _fallback_answer(
        self, route: Route, fallback: LoadedVersion, read: Read, deadline: float, request_id: str
    ) -> Answer | None:
        inputs: Arrays = {}
        timing = Timing()
        try:
            inputs = read(fallback.model)
            outputs = await self._run(fallback, inputs, deadline, timing)
        except (InvalidRequest, DeadlineExceeded):
            return None
        except ModelFailed as failure:
            cause = report_failure(failure, fallback, inputs, request_id, self._clock.now())
            if cause is not None:
                self._recorder.failed(cause, Variant.FALLBACK)
            return None
        return Answer(outputs, fallback, Variant.FALLBACK, route.alias, timing)

    async def _run(
        self, version: LoadedVersion, inputs: Arrays, deadline: float, timing: Timing
    ) -> dict[str, np.ndarray]:
        remaining_seconds = deadline - self._clock.monotonic()
        if remaining_seconds <= 0:
            raise DeadlineExceeded(f"the deadline passed before version {version.ref} was asked")
        timing.asked_ns = time.perf_counter_ns()
        outputs = version.at_once(inputs, timing)
        if outputs is None:
            try:
                async with asyncio.timeout(remaining_seconds):
                    outputs = await version.run(inputs, deadline, timing)
            except TimeoutError:
                raise DeadlineExceeded(f"version {version.ref} did not answer before the deadline") from None
        if (problem := output_problem(version.model.outputs, outputs)) is not None:
            raise ModelFailed(problem, model=version.ref.model, version=version.ref.version)
        return outputs
