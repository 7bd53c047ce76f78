"""One request: whose fault a failure is, who stands in, and what counts against a version."""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from time import monotonic

import numpy as np
import pytest
from prometheus_client import generate_latest

from serving.core.datatypes import Array
from serving.core.errors import DeadlineExceeded, InvalidRequest, ModelFailed
from serving.core.model import TensorSpec, Variant
from serving.promptness import Watchdog
from serving.watch import Evidence
from tests.desk import Desk, Hangs, X, become_prompt, open_desk
from tests.story import story
from tests.versions import adds, gives, loaded, raises

NAN = gives(np.full((1, 3), np.nan, np.float32))
PART_NAN = gives(np.array([[1.0, np.inf, 3.0]], np.float32))
WRONG_SHAPE = gives(np.zeros((1, 2), np.float32))


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return open_desk(tmp_path)


@pytest.fixture
def hangs() -> Iterator[Hangs]:
    hangs = Hangs()
    yield hangs
    hangs.free.set()


@pytest.fixture
def watchdog() -> Iterator[Watchdog]:
    watchdog = Watchdog()
    yield watchdog
    watchdog.close()


@story
async def test_champion_answers(desk: Desk) -> None:
    """And its answer counts as a good one."""
    desk.install(loaded("2"), loaded("1"))
    answer = await desk.ask()
    assert answer.outputs["y"].tolist() == [[3.0, 4.0, 5.0]]
    assert (answer.version.ref.version, answer.variant, answer.alias) == ("2", Variant.CHAMPION, "champion")
    assert desk.counted == (1, 0)


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(raises, id="raises"),
        pytest.param(WRONG_SHAPE, id="wrong-shape"),
        pytest.param(gives(np.zeros((1, 3), np.float64)), id="wrong-datatype"),
        pytest.param(lambda inputs: {"z": inputs["x"]}, id="wrong-name"),
        pytest.param(lambda inputs: {}, id="no-output"),
        pytest.param(NAN, id="non-finite"),
    ],
)
@story
async def test_previous_answers_when_the_champion_fails(
    desk: Desk, broken: Callable[[Mapping[str, Array]], dict[str, Array]]
) -> None:
    """In the same request; the failure counts against the champion."""
    desk.install(loaded("2", broken), loaded("1"))
    answer = await desk.ask()
    assert answer.outputs["y"].tolist() == [[2.0, 3.0, 4.0]]
    assert (answer.version.ref.version, answer.variant, answer.alias) == ("1", Variant.FALLBACK, "champion")
    assert desk.counted == (1, 1)


@pytest.mark.parametrize(
    ("broken", "stand_in"), [(raises, raises), (WRONG_SHAPE, raises), (raises, WRONG_SHAPE)]
)
@story
async def test_request_fails_and_counts_against_nobody_when_both_fail(
    desk: Desk,
    broken: Callable[[Mapping[str, Array]], dict[str, Array]],
    stand_in: Callable[[Mapping[str, Array]], dict[str, Array]],
) -> None:
    """Such an input says nothing about either version."""
    desk.install(loaded("2", broken), loaded("1", stand_in))
    with pytest.raises(ModelFailed) as failure:
        await desk.ask()
    assert failure.value.version == "2"
    assert desk.counted == (0, 0)


@story
async def test_failure_counts_when_there_is_no_stand_in(desk: Desk) -> None:
    """Somebody must be told, though nobody can be asked."""
    desk.install(loaded("2", raises))
    for _ in range(5):
        with pytest.raises(ModelFailed):
            await desk.ask()
    assert desk.failing == [Evidence(5, 5)]


@story
async def test_failing_is_reported_from_the_fifth_answer_on(desk: Desk) -> None:
    """With four good answers, the first failure is a fifth."""
    desk.install(loaded("2"), loaded("1"))
    for _ in range(4):
        await desk.ask()
    desk.install(loaded("2", raises), loaded("1"))
    await desk.ask()
    assert desk.failing == [Evidence(5, 1)]


@pytest.mark.parametrize("stand_in", [None, NAN, raises])
@story
async def test_non_finite_output_is_the_inputs_fault_when_no_stand_in_is_finite(
    desk: Desk, stand_in: Callable[[Mapping[str, Array]], dict[str, Array]] | None
) -> None:
    """JSON cannot carry it, so it is refused by name; the champion is not to blame."""
    desk.install(loaded("2", NAN), loaded("1", stand_in) if stand_in is not None else None)
    with pytest.raises(InvalidRequest, match="output 'y' is not finite"):
        await desk.ask()
    assert desk.counted == (1, 0)


@pytest.mark.parametrize("stand_in", [None, NAN, raises, PART_NAN])
@story
async def test_non_finite_output_is_given_when_the_caller_can_take_it_and_no_stand_in_is_finite(
    desk: Desk, stand_in: Callable[[Mapping[str, Array]], dict[str, Array]] | None
) -> None:
    """Binary tensors carry NaN, and nobody showed that it is the champion's fault."""
    desk.install(loaded("2", NAN), loaded("1", stand_in) if stand_in is not None else None)
    answer = await desk.ask(finite=False)
    assert answer.version.ref.version == "2"
    assert np.isnan(answer.outputs["y"]).all()
    assert desk.counted == (1, 0)


@pytest.mark.parametrize("finite", [False, True, frozenset({"y"}), frozenset({"another"})])
@story
async def test_previous_answers_when_only_the_champion_is_not_finite(
    desk: Desk, finite: bool | frozenset[str]
) -> None:
    """However the answer is sent, and whichever outputs were asked for: it is wrong for every caller."""
    desk.install(loaded("2", NAN), loaded("1"))
    for _ in range(5):
        answer = await desk.ask(finite=finite)
        assert answer.outputs["y"].tolist() == [[2.0, 3.0, 4.0]]
        assert (answer.version.ref.version, answer.variant) == ("1", Variant.FALLBACK)
    assert desk.failing == [Evidence(5, 5)]


@story
async def test_quick_champion_is_not_given_when_only_it_is_not_finite(desk: Desk, watchdog: Watchdog) -> None:
    """The short way checks what the long way checks, and leaves the rest to it."""

    def turns(inputs: Mapping[str, Array]) -> dict[str, Array]:
        return {"y": inputs["x"] if inputs["x"].sum() > 0 else np.full((1, 3), np.nan, np.float32)}

    version = loaded("2", turns, watchdog=watchdog)
    desk.install(version, loaded("1"))
    await become_prompt(desk, version)
    route, infer = desk.inference.route("digits", None), desk.inference
    good = infer.at_once(route, lambda _: {"x": X}, request_id="r", finite=False)
    assert good is not None
    assert good.version is version
    before = desk.counted
    assert infer.at_once(route, lambda _: {"x": -X}, request_id="r", finite=False) is None
    assert desk.counted == before
    desk.install(version)
    alone = infer.at_once(
        desk.inference.route("digits", None), lambda _: {"x": -X}, request_id="r", finite=False
    )
    assert alone is not None
    assert np.isnan(alone.outputs["y"]).all()


@story
async def test_request_fails_when_the_champion_raises_and_json_cannot_carry_the_stand_ins_answer(
    desk: Desk,
) -> None:
    """Neither has an answer for this caller; for one who takes NaN, `previous` has."""
    desk.install(loaded("2", raises), loaded("1", NAN))
    with pytest.raises(ModelFailed):
        await desk.ask()
    assert desk.counted == (0, 0)
    assert (await desk.ask(finite=False)).variant is Variant.FALLBACK
    assert desk.counted == (1, 1)


@story
async def test_previous_answers_within_the_deadline_when_the_champion_hangs(desk: Desk, hangs: Hangs) -> None:
    """Half the time is the champion's, the rest is enough for the other; a fair half counts."""
    desk.install(loaded("2", hangs), loaded("1"))
    began = monotonic()
    answer = await desk.ask(seconds=1.1)
    assert answer.variant is Variant.FALLBACK
    assert monotonic() - began < 1.1
    assert desk.counted == (1, 1)


@story
async def test_hang_counts_against_nobody_when_the_caller_was_in_a_hurry(desk: Desk, hangs: Hangs) -> None:
    """A tight deadline must not get a good version rolled back."""
    desk.install(loaded("2", hangs), loaded("1"))
    answer = await desk.ask(seconds=0.2)
    assert answer.variant is Variant.FALLBACK
    assert desk.counted == (0, 0)


@pytest.mark.parametrize("has_stand_in", [True, False])
@story
async def test_deadline_is_exceeded_when_nobody_answers_in_time(
    desk: Desk, hangs: Hangs, has_stand_in: bool
) -> None:
    """The request's own time, no more."""
    desk.install(loaded("2", hangs), loaded("1", hangs) if has_stand_in else None)
    began = monotonic()
    with pytest.raises(DeadlineExceeded):
        await desk.ask(seconds=0.1)
    assert monotonic() - began < 5
    assert desk.counted == (0, 0)


@story
async def test_deadline_is_exceeded_at_once_when_it_has_passed(desk: Desk) -> None:
    """A body that took too long to arrive."""
    desk.install(loaded("2"), loaded("1"))
    with pytest.raises(DeadlineExceeded):
        await desk.ask(seconds=-1.0)


@story
async def test_quick_version_is_not_asked_when_the_deadline_has_passed(
    desk: Desk, watchdog: Watchdog
) -> None:
    """Nor is one whose answer would be there before anybody could look at the clock."""
    version = loaded("2", watchdog=watchdog)
    desk.install(version, loaded("1"))
    await become_prompt(desk, version)
    asked = version.requests
    with pytest.raises(DeadlineExceeded):
        await desk.ask(seconds=0.0)
    assert version.requests == asked
    await desk.ask()
    assert version.requests == asked + 1


@pytest.mark.parametrize("address", ["2", "challenger", "previous"])
@story
async def test_named_version_gives_its_own_failure(desk: Desk, address: str) -> None:
    """No stand-in, and no evidence against the champion."""
    broken = loaded("2", raises)
    desk.model.served["challenger"] = desk.model.served["previous"] = broken
    desk.install(loaded("1"), broken)
    with pytest.raises(ModelFailed):
        await desk.ask(address=address)
    assert desk.counted == (0, 0)


@story
async def test_answer_of_a_version_that_is_champion_no_longer_counts_for_nobody(desk: Desk) -> None:
    """A newer change supersedes the evidence."""
    desk.install(loaded("2", raises), loaded("1"))
    route = desk.inference.route("digits", None)
    desk.install(loaded("3"), loaded("2"))
    answer = await desk.inference.infer(
        route, lambda _: {"x": X}, deadline=monotonic() + 20, request_id="r", finite=True
    )
    assert answer.variant is Variant.FALLBACK
    assert desk.counted == (0, 0)


@story
async def test_stand_in_still_answers_when_it_was_released_meanwhile(desk: Desk) -> None:
    """It is held from the first moment of the request to the last."""
    entered, go_on = threading.Event(), threading.Event()

    def fails_late(inputs: Mapping[str, Array]) -> dict[str, Array]:
        entered.set()
        assert go_on.wait(10)
        raise RuntimeError

    stand_in = loaded("1")
    desk.install(loaded("2", fails_late), stand_in)
    asking = asyncio.create_task(desk.ask())
    await asyncio.to_thread(entered.wait, 10)
    retiring = asyncio.create_task(asyncio.to_thread(stand_in.retire, 10.0))
    await asyncio.to_thread(go_on.set)
    assert (await asking).variant is Variant.FALLBACK
    assert await retiring


@story
async def test_request_is_invalid_and_nobodys_evidence_when_it_does_not_fit(desk: Desk) -> None:
    """What the specs refuse is refused before execution."""
    version = loaded("2")
    version.model.inputs = (TensorSpec("other", "FP32", (-1, 3)),)  # type: ignore[misc]
    desk.install(version, loaded("1"))
    with pytest.raises(InvalidRequest):
        await desk.ask()
    assert desk.counted == (0, 0)


@story
async def test_failure_is_logged_with_what_the_answer_must_not_show(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    """Request, version, fingerprint, error, traceback and shapes; the fingerprint is of the place."""
    desk.install(loaded("2", raises), loaded("1", adds(1)))
    with caplog.at_level(logging.ERROR, "serving.inference"):
        await desk.ask()
        await desk.ask(array=np.concatenate([X, X]))
    first, second = (record.getMessage() for record in caplog.records)
    shown = ("r-1", "model=digits version=2", "RuntimeError: secret", "float32[1, 3]", "Traceback")
    for part in shown:
        assert part in first
    assert first.split("fingerprint=")[1][:12] == second.split("fingerprint=")[1][:12]


@story
async def test_answers_are_counted_by_who_gave_them(desk: Desk) -> None:
    """Version, variant and outcome."""
    desk.install(loaded("2", raises), loaded("1"))
    await desk.ask()
    text = generate_latest(desk.metrics.registry).decode()
    assert 'model="digits",status="ok",variant="fallback",version="1"} 1.0' in text
