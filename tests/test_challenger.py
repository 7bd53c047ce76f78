"""A challenger's part of the traffic: whose fault a failure is, who stands in, what counts against it."""

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from time import monotonic

import numpy as np
import pytest

from serving.batcher import BatchLimits
from serving.core.datatypes import Array
from serving.core.errors import DeadlineExceeded, InvalidRequest, ModelFailed, Overloaded
from serving.core.model import TensorSpec, Variant
from serving.core.traffic import Split
from serving.pool import LoadedVersion
from serving.watch import Evidence
from tests.desk import Desk, Hangs, X, open_desk
from tests.logged import counted
from tests.story import story
from tests.versions import adds, gives, loaded, raises

NAN = gives(np.full((1, 3), np.nan, np.float32))
WRONG_SHAPE = gives(np.zeros((1, 2), np.float32))

Answer = Callable[[Mapping[str, Array]], dict[str, Array]]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return open_desk(tmp_path)


@pytest.fixture
def hangs() -> Iterator[Hangs]:
    hangs = Hangs()
    yield hangs
    hangs.free.set()


def divide(desk: Desk, challenger: LoadedVersion, champion: LoadedVersion, percent: int = 100) -> None:
    """Give the challenger its part."""
    desk.model.served["challenger"] = challenger
    desk.model.split = Split(challenger.ref.version, percent)
    desk.install(champion, loaded("1"))


def challenged(desk: Desk) -> tuple[int, int]:
    """Answers and failures that count against the challenger."""
    trial = desk.model.trial
    evidence = trial.window.evidence(monotonic()) if trial is not None else Evidence(0, 0)
    return evidence.answers, evidence.failed


@story
async def test_challenger_answers_its_part(desk: Desk) -> None:
    """And its answer counts as its own, not as the champion's."""
    divide(desk, loaded("3"), loaded("2"))
    answer = await desk.ask(key="anybody")
    assert (answer.version.ref.version, answer.variant, answer.alias) == (
        "3",
        Variant.CHALLENGER,
        "challenger",
    )
    assert (challenged(desk), desk.counted) == ((1, 0), (0, 0))


@story
async def test_champion_answers_its_part_of_a_split(desk: Desk) -> None:
    divide(desk, loaded("3"), loaded("2"), percent=0)
    answer = await desk.ask(key="anybody")
    assert (answer.version.ref.version, answer.variant) == ("2", Variant.CHAMPION)
    assert (challenged(desk), desk.counted) == ((0, 0), (1, 0))


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(raises, id="raises"),
        pytest.param(WRONG_SHAPE, id="wrong-shape"),
        pytest.param(gives(np.zeros((1, 3), np.float64)), id="wrong-datatype"),
        pytest.param(lambda inputs: {}, id="no-output"),
        pytest.param(NAN, id="non-finite"),
    ],
)
@story
async def test_champion_answers_in_the_same_request_when_the_challenger_fails(
    desk: Desk, broken: Answer
) -> None:
    """The caller notices nothing; the failure is the challenger's."""
    divide(desk, loaded("3", broken), loaded("2"))
    answer = await desk.ask(key="anybody")
    assert answer.outputs["y"].tolist() == [[3.0, 4.0, 5.0]]
    assert (answer.version.ref.version, answer.variant) == ("2", Variant.FALLBACK)
    assert (challenged(desk), desk.counted) == ((1, 1), (0, 0))


@story
async def test_challenger_is_reported_when_its_answers_are_not_finite_over_binary_tensors(desk: Desk) -> None:
    """A caller who can take NaN is no better off with it; of what neither gives, nobody is to blame."""
    divide(desk, loaded("3", NAN), loaded("2"))
    for _ in range(5):
        answer = await desk.ask(key="anybody", finite=False)
        assert (answer.version.ref.version, answer.variant) == ("2", Variant.FALLBACK)
    assert [version for version, _ in desk.ejected] == ["3"]
    divide(desk, loaded("4", NAN), loaded("2", NAN))
    for _ in range(5):
        answer = await desk.ask(key="anybody", finite=False)
        assert (answer.version.ref.version, answer.variant) == ("4", Variant.CHALLENGER)
    assert challenged(desk) == (5, 0)


@pytest.mark.parametrize("stand_in", [raises, WRONG_SHAPE])
@story
async def test_input_that_fails_on_both_counts_against_neither(desk: Desk, stand_in: Answer) -> None:
    """It says nothing about either version."""
    divide(desk, loaded("3", raises), loaded("2", stand_in))
    for _ in range(10):
        with pytest.raises(ModelFailed):
            await desk.ask(key="anybody")
    assert (challenged(desk), desk.counted, desk.ejected) == ((0, 0), (0, 0), [])


@story
async def test_champion_answers_within_the_deadline_when_the_challenger_hangs(
    desk: Desk, hangs: Hangs
) -> None:
    """Half the time is the challenger's."""
    divide(desk, loaded("3", hangs), loaded("2"))
    began = monotonic()
    answer = await desk.ask(key="anybody", seconds=1.1)
    assert answer.variant is Variant.FALLBACK
    assert monotonic() - began < 1.1
    assert challenged(desk) == (1, 1)


@story
async def test_hang_counts_against_nobody_when_both_hang(desk: Desk, hangs: Hangs) -> None:
    divide(desk, loaded("3", hangs), loaded("2", hangs))
    with pytest.raises(DeadlineExceeded):
        await desk.ask(key="anybody", seconds=0.1)
    assert (challenged(desk), desk.counted) == ((0, 0), (0, 0))


@story
async def test_champion_answers_what_the_challenger_does_not_take(desk: Desk) -> None:
    """Inputs that fit the champion must fit its successor: a refusal is the challenger's failure."""
    narrow = loaded("3")
    narrow.model.inputs = (TensorSpec("other", "FP32", (-1, 3)),)  # type: ignore[misc]
    divide(desk, narrow, loaded("2"))
    answer = await desk.ask(key="anybody")
    assert (answer.version.ref.version, answer.variant) == ("2", Variant.FALLBACK)
    assert challenged(desk) == (1, 1)


@story
async def test_request_is_invalid_when_neither_takes_it(desk: Desk) -> None:
    """What the champion says of it is what the caller hears."""
    challenger, champion = loaded("3"), loaded("2")
    for version in (challenger, champion):
        version.model.inputs = (TensorSpec("other", "FP32", (-1, 3)),)  # type: ignore[misc]
    divide(desk, challenger, champion)
    with pytest.raises(InvalidRequest):
        await desk.ask(key="anybody")
    assert challenged(desk) == (0, 0)


@story
async def test_champion_answers_when_there_is_no_room_for_the_challenger(desk: Desk) -> None:
    """Asleep, and memory is short: that is nobody's failure, and no caller's either."""

    async def no_room(version: LoadedVersion) -> None:
        raise Overloaded("no memory for it", retry_after_seconds=5.0)

    asleep = loaded("3")
    asleep.woken_by(no_room)
    assert asleep.sleep() is not None
    divide(desk, asleep, loaded("2"))
    answer = await desk.ask(key="anybody")
    assert (answer.version.ref.version, answer.variant) == ("2", Variant.FALLBACK)
    assert (challenged(desk), faults(desk)) == ((0, 0), 0)


def faults(desk: Desk) -> float:
    """What telemetry, and so the judge of a rollout, knows of the challenger's failures."""
    return counted(
        desk.metrics, "signalbox_inference_faults_total", model="digits", version="3", variant="challenger"
    )


@story
async def test_every_failed_attempt_of_the_challenger_is_in_telemetry_under_load(desk: Desk) -> None:
    """Though each caller was answered by the champion."""
    divide(desk, loaded("3", raises), loaded("2"))
    answers = await asyncio.gather(*(desk.ask(key=f"user-{n}") for n in range(40)))
    assert {answer.variant for answer in answers} == {Variant.FALLBACK}
    assert faults(desk) == 40


@story
async def test_challenger_that_cannot_bear_its_part_is_seen_by_its_rollout(desk: Desk, hangs: Hangs) -> None:
    """Two are being computed and one waits; the others, for whom it has no room, are faults too, though
    nothing that would eject it at once.
    """
    divide(desk, loaded("3", hangs, limits=BatchLimits(max_waiting=1)), loaded("2"))
    answers = await asyncio.gather(*(desk.ask(key=f"user-{n}", seconds=1.1) for n in range(10)))
    assert {answer.variant for answer in answers} == {Variant.FALLBACK}
    assert faults(desk) == 10
    assert challenged(desk) == (3, 3)


@story
async def test_sleeping_challenger_wakes_for_its_part(desk: Desk) -> None:
    """As any version does."""
    asleep = loaded("3")

    async def wake(version: LoadedVersion) -> None:
        assert version.awaken(loaded("3").model)

    asleep.woken_by(wake)
    assert asleep.sleep() is not None
    divide(desk, asleep, loaded("2"))
    answer = await desk.ask(key="anybody")
    assert (answer.version.ref.version, answer.variant) == ("3", Variant.CHALLENGER)


@story
async def test_challenger_is_reported_from_the_fifth_answer_on(desk: Desk) -> None:
    """At least five answers, at least a fifth failed."""
    divide(desk, loaded("3", raises), loaded("2"))
    for _ in range(5):
        await desk.ask(key="anybody")
    assert desk.ejected == [("3", Evidence(5, 5))]
    assert desk.failing == []


@story
async def test_another_challenger_begins_anew(desk: Desk) -> None:
    """Four failures of the one before are not its own."""
    divide(desk, loaded("3", raises), loaded("2"))
    for _ in range(4):
        await desk.ask(key="anybody")
    divide(desk, loaded("4", raises), loaded("2"))
    await desk.ask(key="anybody")
    assert (challenged(desk), desk.ejected) == ((1, 1), [])


@pytest.mark.parametrize("address", ["challenger", "3"])
@story
async def test_challenger_asked_for_by_name_gives_its_own_failure(desk: Desk, address: str) -> None:
    """Nobody stands in, and nothing counts: whoever names it wants to know."""
    divide(desk, loaded("3", raises), loaded("2"))
    with pytest.raises(ModelFailed):
        await desk.ask(address=address, key="anybody")
    assert (challenged(desk), desk.counted) == ((0, 0), (0, 0))


@story
async def test_answer_of_a_challenger_that_left_counts_for_nobody(desk: Desk) -> None:
    """Ejected or moved on while the request was under way."""
    entered, go_on = threading.Event(), threading.Event()

    def fails_late(inputs: Mapping[str, Array]) -> dict[str, Array]:
        entered.set()
        assert go_on.wait(10)
        raise RuntimeError

    divide(desk, loaded("3", fails_late), loaded("2"))
    route = desk.inference.route("digits", None, "anybody")
    divide(desk, loaded("4", adds(4)), loaded("2"))
    go_on.set()
    answer = await desk.inference.infer(
        route, lambda _: {"x": X}, deadline=monotonic() + 20, request_id="r", finite=True
    )
    assert (entered.is_set(), answer.variant) == (True, Variant.FALLBACK)
    assert challenged(desk) == (0, 0)
