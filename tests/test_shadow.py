"""Copies of answered requests: for whom, when, how many at most, and that no caller ever waits for one."""

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest

from serving.accounts import Answer
from serving.batcher import Timing
from serving.core.clock import SystemClock
from serving.core.comparison import Pair, Role
from serving.core.datatypes import Array
from serving.core.model import TensorSpec
from serving.core.traffic import Split
from serving.pool import LoadedVersion
from serving.routes import CopyTarget
from serving.shadow import CopyLimits, Given, Shadow, share_seconds
from serving.telemetry.metrics import Metrics
from tests.desk import Compared, Desk, Hangs, X, open_desk
from tests.logged import counted
from tests.story import eventually, story
from tests.versions import loaded, raises


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """Every answer is copied, two at a time."""
    return open_desk(tmp_path)


def sent(desk: Desk, answer: Answer) -> None:
    """What an endpoint does once its answer left."""
    desk.inference.rendered(answer, time.perf_counter_ns())


def divide(desk: Desk, percent: int, compare_percent: int | None = None) -> None:
    """Champion 2, challenger 3 with that percent of the requests."""
    desk.model.served["challenger"] = loaded("3")
    desk.model.split = Split("3", percent, compare_percent=compare_percent)
    desk.install(loaded("2"), loaded("1"))


def dropped(desk: Desk) -> dict[str, float]:
    reasons = ("full", "busy", "asleep", "gone", "too_large")
    name = "signalbox_shadow_dropped_total"
    found = {reason: counted(desk.metrics, name, model="digits", reason=reason) for reason in reasons}
    return {reason: count for reason, count in found.items() if count}


async def copied(desk: Desk, count: int = 1) -> None:
    await eventually(lambda: len(desk.compared.copies) >= count, f"{count} copies")


@story
async def test_shadow_gets_a_copy_once_the_answer_was_sent(desk: Desk) -> None:
    """Not before: nothing may come between a caller and the answer."""
    desk.model.served["shadow"] = loaded("5")
    desk.install(loaded("2"))
    answer = await desk.ask()
    assert desk.compared.copies == []
    sent(desk, answer)
    await copied(desk)
    [copy] = desk.compared.copies
    assert copy.pair == Pair("digits", "2", "5", Role.SHADOW)
    assert copy.outputs is not None
    assert copy.outputs["y"].tolist() == [[6.0, 7.0, 8.0]]
    assert (copy.given.outputs["y"].tolist(), copy.given.request_id) == ([[3.0, 4.0, 5.0]], "r-1")
    assert copy.seconds > 0 < copy.given.seconds


@pytest.mark.parametrize(
    ("percent", "pair"),
    [
        pytest.param(0, Pair("digits", "2", "3", Role.CHALLENGER), id="champion-answered"),
        pytest.param(100, Pair("digits", "2", "3", Role.CHALLENGER, True), id="challenger-answered"),
    ],
)
@story
async def test_champion_and_challenger_get_copies_of_each_others_answers(
    desk: Desk, percent: int, pair: Pair
) -> None:
    """At 100 % the still warm champion is the control; who answered the caller is on record."""
    divide(desk, percent)
    sent(desk, await desk.ask(key="anybody"))
    await copied(desk)
    assert [copy.pair for copy in desk.compared.copies] == [pair]


@pytest.mark.parametrize(("compare_percent", "copies"), [(0, 0), (100, 1)])
@story
async def test_tag_says_how_many_answers_are_compared_before_the_setting_does(
    tmp_path: Path, compare_percent: int, copies: int
) -> None:
    """A stage that needs pairs asks for them."""
    desk = open_desk(tmp_path)
    divide(desk, 0, compare_percent)
    sent(desk, answer := await desk.ask(key="anybody"))
    assert len(answer.copies) == copies


class Unnoted:
    """Accounts no copy."""

    def copied(self, *_: object) -> None:
        return


@story
async def test_copy_is_accounted_to_the_version_that_got_it(desk: Desk) -> None:
    """As a variant of its own, so that labels of the request say something of it too."""
    divide(desk, 0)
    sent(desk, await desk.ask(key="anybody"))
    await copied(desk)
    [copy] = desk.compared.copies
    marks = {"model": "digits", "version": copy.pair.other, "variant": "shadow", "status": "ok"}
    assert counted(desk.metrics, "signalbox_inference_requests_total", **marks) == 1


@pytest.mark.parametrize(("ratio", "expected"), [(0.0, (0, 0)), (0.25, (200, 300)), (1.0, (1000, 1000))])
def test_share_of_answers_copied_is_as_set(ratio: float, expected: tuple[int, int]) -> None:
    """None at 0, all at 1."""
    shadow = Shadow(Compared(), Unnoted(), Metrics(), SystemClock(), CopyLimits(ratio, 1), Random(7))
    targets = (CopyTarget(loaded("5"), Role.SHADOW),)
    given = Given(loaded("2"), {"x": X}, {"y": X}, 0.001, lambda model: {"x": X}, "r-1")
    drawn = sum(len(shadow.sample(targets, given)) for _ in range(1000))
    assert expected[0] <= drawn <= expected[1]


@pytest.mark.parametrize(
    "address", [pytest.param("2", id="number"), pytest.param("challenger", id="challenger")]
)
@story
async def test_answer_of_a_named_version_is_not_copied(desk: Desk, address: str) -> None:
    desk.model.served["shadow"] = loaded("5")
    divide(desk, 50)
    assert (await desk.ask(address=address)).copies == ()


@story
async def test_answer_of_a_stand_in_is_not_copied(desk: Desk) -> None:
    """It would be compared with itself, or with an older version."""
    divide(desk, 100)
    desk.model.served["challenger"] = loaded("3", raises)
    desk.install(loaded("2"))
    answer = await desk.ask(key="anybody")
    assert (answer.variant, answer.copies) == ("fallback", ())


@story
async def test_version_that_is_shadow_and_challenger_gets_one_copy(desk: Desk) -> None:
    """As the challenger, whose judge needs it."""
    divide(desk, 0)
    desk.model.served["shadow"] = desk.model.served["challenger"]
    desk.install(loaded("2"))
    answer = await desk.ask(key="anybody")
    assert [copy.target.role for copy in answer.copies] == [Role.CHALLENGER]


@story
async def test_champion_that_is_its_own_shadow_gets_no_copy(desk: Desk) -> None:
    champion = loaded("2")
    desk.model.served["shadow"] = champion
    desk.install(champion)
    assert (await desk.ask()).copies == ()


@story
async def test_answers_are_given_and_copies_dropped_when_the_shadow_hangs(desk: Desk) -> None:
    """Two are under way; the others are counted, and every caller is answered at once."""
    hangs = Hangs()
    desk.model.served["shadow"] = loaded("5", hangs)
    desk.install(loaded("2"))
    for _ in range(10):
        sent(desk, await desk.ask())
    assert dropped(desk) == {"full": 8}
    hangs.free.set()
    await copied(desk, 2)


@story
async def test_copy_is_dropped_when_its_version_has_requests_waiting(desk: Desk) -> None:
    """A challenger's own requests come first."""
    hangs = Hangs()
    busy = loaded("5", hangs)
    desk.model.served["shadow"] = busy
    desk.install(loaded("2"))
    waiting = [asyncio.create_task(busy.run({"x": X})) for _ in range(4)]
    await eventually(lambda: busy.waiting > 0, "requests wait")
    sent(desk, await desk.ask())
    assert dropped(desk) == {"busy": 1}
    hangs.free.set()
    for task in waiting:
        await task


@story
async def test_copy_wakes_nobody_and_finds_nobody_who_left(desk: Desk) -> None:
    """It costs no version its place in memory."""

    async def never(version: LoadedVersion) -> None:
        raise AssertionError("woken for a copy")

    asleep = loaded("5")
    asleep.woken_by(never)
    assert asleep.sleep() is not None
    desk.model.served["shadow"] = asleep
    desk.install(loaded("2"))
    sent(desk, await desk.ask())
    gone = loaded("6")
    desk.model.served["shadow"] = gone
    desk.install(loaded("2"))
    answer = await desk.ask()
    gone.retire(0.0)
    sent(desk, answer)
    assert dropped(desk) == {"asleep": 1, "gone": 1}


@story
async def test_copy_is_dropped_when_the_request_is_large(desk: Desk) -> None:
    """Megabytes that wait for a copy would be memory nobody planned."""
    desk.model.served["shadow"] = loaded("5")
    desk.install(loaded("2"))
    sent(desk, await desk.ask(array=np.zeros((400_000, 3), np.float32)))
    assert dropped(desk) == {"too_large": 1}


def wrong_shape(inputs: Mapping[str, Array]) -> dict[str, Array]:
    return {"y": np.zeros((1, 2), np.float32)}


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        pytest.param(raises, "secret of the", id="raises"),
        pytest.param(wrong_shape, "shape", id="shape"),
    ],
)
@story
async def test_copy_that_fails_is_noted_with_its_problem(
    desk: Desk, answer: Callable[[Mapping[str, Array]], dict[str, Array]], problem: str
) -> None:
    """The shadow's failure, told to nobody who asked."""
    desk.model.served["shadow"] = loaded("5", answer)
    desk.install(loaded("2"))
    sent(desk, await desk.ask())
    await copied(desk)
    [copy] = desk.compared.copies
    assert copy.outputs is None
    assert problem in copy.problem


@story
async def test_copy_is_read_anew_when_the_other_version_takes_other_inputs(desk: Desk) -> None:
    """A shadow that no longer fits the requests is a finding, not an error of ours."""
    other = loaded("5")
    other.model.inputs = (TensorSpec("z", "FP32", (-1, 3)),)  # type: ignore[misc]
    desk.model.served["shadow"] = other
    desk.install(loaded("2"))
    sent(desk, await desk.ask())
    await copied(desk)
    assert "unknown input" in desk.compared.copies[0].problem


@story
async def test_copies_under_way_end_with_the_server(desk: Desk) -> None:
    started = threading.Event()
    hangs = Hangs()

    def starts(inputs: Mapping[str, Array]) -> dict[str, Array]:
        started.set()
        return hangs(inputs)

    desk.model.served["shadow"] = loaded("5", starts)
    desk.install(loaded("2"))
    sent(desk, await desk.ask())
    await eventually(started.is_set, "the copy runs")
    await desk.shadow.close()
    assert desk.compared.copies == []
    hangs.free.set()


@story
async def test_version_before_is_compared_with_the_champions_own_answers_while_it_is_the_control(
    desk: Desk,
) -> None:
    """Each answer and its copy, as of a champion and a challenger that answered in its place."""
    desk.install(loaded("2"), loaded("1"))
    routes = replace(desk.model.routes(), control=desk.model.previous)
    desk.routes.publish("digits", routes)
    answer = await desk.ask()
    sent(desk, answer)
    await copied(desk)
    [copy] = desk.compared.copies
    assert copy.pair == Pair("digits", "1", "2", Role.CHALLENGER, is_control=True)
    assert answer.timing is not None
    assert copy.given.seconds == share_seconds(answer.timing)


@pytest.mark.parametrize(
    ("rows", "executed", "seconds"), [(1, 1, 0.08), (1, 4, 0.02), (4, 4, 0.08), (3, 1, 0.08)]
)
def test_share_of_an_execution_is_by_rows(rows: int, executed: int, seconds: float) -> None:
    """All of it for whoever was alone."""
    timing = Timing(begun_ns=1_000, done_ns=80_001_000, rows=rows, executed_rows=executed)
    assert share_seconds(timing) == pytest.approx(seconds)
