"""Batching: nobody waits without need, nobody gets another's rows, and nobody pays for another's fault."""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.batcher import DEFAULT_LIMITS, Batcher, BatchLimits, Execution
from serving.breaker import Breaker
from serving.core.batch import Tensors
from serving.core.clock import ManualClock, SystemClock
from serving.core.datatypes import Array
from serving.core.errors import DeadlineExceeded, Overloaded
from serving.core.model import VersionRef
from serving.runners import Runners
from tests.story import eventually, story

REF = VersionRef("digits", "1")
LATER = 1e9
Asked: TypeAlias = "asyncio.Future[dict[str, Array]]"


@dataclass
class Model:
    """Adds one, once it is let; notes how many rows came together."""

    seen: list[int] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    entered: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    fault: Callable[[Array], bool] = lambda _: False

    def __call__(self, inputs: Tensors) -> dict[str, Array]:
        self.seen.append(len(inputs["x"]))
        self.entered.release()
        assert self.gate.wait(20)
        if self.fault(inputs["x"]):
            raise ValueError("cannot take this")
        return {"y": inputs["x"] + 1}


class Desk:
    """A batcher over a model, and what it reported."""

    def __init__(
        self,
        model: Model,
        limits: BatchLimits = DEFAULT_LIMITS,
        *,
        threads: int = 1,
        joinable: bool = True,
    ) -> None:
        self.done = 0
        self.told: list[Execution] = []
        self.clock = ManualClock()
        self.runners = Runners(threads, "test")
        self.breaker = Breaker(REF, self.runners, self.clock)
        self.batcher = Batcher(
            model,
            self.runners,
            self.clock,
            limits,
            self.breaker,
            is_joinable=joinable,
            watch=self.told.append,
        )

    def ask(
        self, *values: float, deadline: float = LATER, width: int = 1
    ) -> "asyncio.Future[dict[str, Array]]":
        x = np.array([[value] * width for value in values], np.float32)
        return self.batcher.submit({"x": x}, deadline, self._count)

    def _count(self) -> None:
        self.done += 1


async def entered(model: Model) -> None:
    await eventually(lambda: model.entered.acquire(blocking=False), "the model was entered")


@story
async def test_lone_request_is_answered_at_once_when_nobody_is_before_it() -> None:
    """Nothing waits for company."""
    model = Model()
    model.gate.set()
    desk = Desk(model)
    assert (await desk.ask(1.0))["y"].tolist() == [[2.0]]
    assert (model.seen, desk.done) == ([1], 1)
    [told] = desk.told
    assert (told.requests, told.rows, told.error) == (1, 1, None)


@story
async def test_waiting_requests_are_answered_together_when_the_model_is_free_again() -> None:
    """Each with its own rows, in the order they came."""
    model = Model()
    desk = Desk(model)
    first = desk.ask(1.0)
    await entered(model)
    others = [desk.ask(2.0), desk.ask(3.0, 4.0), desk.ask(5.0)]
    assert desk.batcher.waiting == 3
    model.gate.set()
    answers = [(await asked)["y"].ravel().tolist() for asked in (first, *others)]
    assert answers == [[2.0], [3.0], [4.0, 5.0], [6.0]]
    assert model.seen == [1, 4]
    assert desk.done == 4


@story
async def test_batch_is_no_larger_than_allowed_and_of_one_form() -> None:
    """What does not fit goes with the next, and overtakes nobody of its own form."""
    model = Model()
    desk = Desk(model, BatchLimits(max_rows=3))
    first = desk.ask(0.0)
    await entered(model)
    asked = [desk.ask(1.0), desk.ask(2.0, width=2), desk.ask(3.0, 4.0), desk.ask(5.0, 6.0), desk.ask(7.0)]
    model.gate.set()
    await asyncio.gather(first, *asked)
    assert [(await one)["y"][:, 0].tolist() for one in asked] == [[2.0], [3.0], [4.0, 5.0], [6.0, 7.0], [8.0]]
    assert sorted(model.seen) == [1, 1, 3, 3]


@story
async def test_one_fault_spoils_no_other_when_answered_together() -> None:
    """The batch is taken apart; only the culprit fails."""
    model = Model(fault=lambda x: bool((x == 13).any()))
    desk = Desk(model)
    first = desk.ask(0.0)
    await entered(model)
    good, bad, fine = desk.ask(1.0), desk.ask(13.0), desk.ask(2.0)
    model.gate.set()
    assert (await first)["y"].tolist() == [[1.0]]
    assert (await good)["y"].tolist() == [[2.0]]
    assert (await fine)["y"].tolist() == [[3.0]]
    with pytest.raises(ValueError, match="cannot take this"):
        await bad
    assert desk.done == 4
    assert isinstance(desk.told[-1].error, ValueError)


@story
async def test_rows_are_answered_alone_when_the_model_gives_others_than_went_in() -> None:
    """A model that changes its mind about rows still mixes nobody's answers."""
    model = Model()
    desk = Desk(model)
    shrink = Batcher(
        lambda inputs: {"y": model(inputs)["y"].sum(axis=0, keepdims=True)},
        desk.runners,
        desk.clock,
        BatchLimits(),
        Breaker(REF, desk.runners, desk.clock),
        is_joinable=True,
    )
    asked = [shrink.submit({"x": np.array([[v]], np.float32)}, LATER, lambda: None) for v in (1.0, 2.0, 3.0)]
    model.gate.set()
    assert [(await one)["y"].tolist() for one in asked] == [[[2.0]], [[3.0]], [[4.0]]]


@story
async def test_abandoned_and_late_requests_are_never_computed() -> None:
    """And are let go of all the same."""
    model = Model()
    desk = Desk(model)
    first = desk.ask(0.0)
    await entered(model)
    gone, late, wanted = desk.ask(1.0), desk.ask(2.0, deadline=5.0), desk.ask(3.0)
    gone.cancel()
    desk.clock.advance(5.0)
    model.gate.set()
    assert (await wanted)["y"].tolist() == [[4.0]]
    with pytest.raises(DeadlineExceeded, match="while the request waited"):
        await late
    await first
    assert (model.seen, desk.done) == ([1, 1], 4)


@pytest.mark.parametrize("limits", [BatchLimits(max_waiting=2), BatchLimits(max_waiting_bytes=8)])
def test_one_too_many_is_refused_at_once_when_enough_wait(limits: BatchLimits) -> None:
    """By number or by bytes; those who wait keep their place."""

    async def tell() -> None:
        model = Model()
        desk = Desk(model, limits)
        first = desk.ask(0.0)
        await entered(model)
        waiting = [desk.ask(1.0), desk.ask(2.0)]
        with pytest.raises(Overloaded) as refusal:
            desk.ask(3.0)
        assert refusal.value.retry_after_seconds == 1.0
        model.gate.set()
        await asyncio.gather(first, *waiting)
        assert desk.done == 3

    asyncio.run(tell())


@story
async def test_second_thread_helps_out_only_when_somebody_waited_long() -> None:
    """A hanging input holds up nobody for ever, and a quick model is not asked twice for nothing."""
    model = Model()
    desk = Desk(model, threads=2)
    first = desk.ask(0.0)
    await entered(model)
    second = desk.ask(1.0)
    assert (model.seen, desk.batcher.waiting) == ([1], 1)
    desk.clock.advance(1.0)
    await entered(model)
    assert model.seen == [1, 1]
    model.gate.set()
    await asyncio.gather(first, second)


@story
async def test_requests_take_a_thread_each_when_rows_are_not_independent() -> None:
    """Then there is nothing to join."""
    model = Model()
    desk = Desk(model, threads=2, joinable=False)
    asked = [desk.ask(float(value)) for value in range(3)]
    await entered(model)
    await entered(model)
    assert (model.seen, desk.batcher.waiting) == ([1, 1], 1)
    model.gate.set()
    await asyncio.gather(*asked)
    assert model.seen == [1, 1, 1]


@story
async def test_thread_survives_when_the_model_raises_what_is_no_exception() -> None:
    """Nothing a model does ends the loop or its thread."""

    class Leaves(BaseException):
        pass

    def leave(_: Tensors) -> dict[str, Array]:
        raise Leaves("now")

    runners, clock = Runners(1, "test"), SystemClock()
    breaker = Breaker(REF, runners, clock)
    batcher = Batcher(leave, runners, clock, BatchLimits(), breaker, is_joinable=False)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="Leaves: now"):
            await batcher.submit({"x": np.zeros(1)}, LATER, lambda: None)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(1, 2)), min_size=1, max_size=30),
    st.integers(1, 6),
    st.integers(1, 3),
    st.sets(st.integers(0, 29)),
)
def test_every_caller_gets_its_own_rows_whatever_comes_together(
    requests: list[tuple[int, int]], max_rows: int, threads: int, cancelled: set[int]
) -> None:
    """Any mixture of sizes, forms and callers who leave; each answer is its own, each is let go once."""

    async def tell() -> None:
        model = Model()
        desk = Desk(model, BatchLimits(max_rows=max_rows), threads=threads)
        asked = [
            desk.ask(*[100.0 * number + row for row in range(rows)], width=width)
            for number, (rows, width) in enumerate(requests)
        ]
        for number in cancelled & set(range(len(asked))):
            asked[number].cancel()
        model.gate.set()
        answers = await asyncio.gather(*asked, return_exceptions=True)
        for number, (answer, (rows, width)) in enumerate(zip(answers, requests, strict=True)):
            if isinstance(answer, BaseException):
                assert number in cancelled
                continue
            expected = [[100.0 * number + row + 1] * width for row in range(rows)]
            assert answer["y"].tolist() == expected
        await eventually(lambda: desk.done == len(requests), "every request was let go")
        assert max(model.seen, default=0) <= max(max_rows, *(rows for rows, _ in requests))
        desk.runners.stop()

    asyncio.run(tell())
