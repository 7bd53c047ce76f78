"""Loaded versions: never closed under somebody who uses them, always closed afterwards."""

import asyncio
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from serving.core.datatypes import Array
from serving.core.errors import ArtifactRefused, ModelFailed
from serving.pool import LoadedVersion
from tests.story import eventually, story
from tests.versions import ScriptedModel, adds, loaded, raises

X = {"x": np.zeros((1, 3), np.float32)}


class Gate:
    """A model that answers when told to."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.entered = threading.Event()

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        self.entered.set()
        assert self.open.wait(10)
        return {"y": inputs["x"]}


def is_closed(version: LoadedVersion) -> bool:
    assert isinstance(version.model, ScriptedModel)
    return version.model.is_closed


@story
async def test_version_answers_with_what_the_model_gives() -> None:
    """And nobody uses it afterwards."""
    version = loaded("2")
    outputs = await version.run(X)
    assert outputs["y"].tolist() == [[2.0, 2.0, 2.0]]
    assert version.uses == 0
    assert version.retire(1.0)


@story
async def test_version_failed_when_the_model_raises() -> None:
    """Whatever it raises, with the cause kept for the log."""
    version = loaded("2", raises)
    with pytest.raises(ModelFailed) as failure:
        await version.run(X)
    assert isinstance(failure.value.__cause__, RuntimeError)
    assert (failure.value.model, failure.value.version) == ("digits", "2")
    assert version.uses == 0
    assert version.retire(1.0)


@story
async def test_version_is_not_closed_while_an_abandoned_execution_runs() -> None:
    """The caller gave up; the model has not returned."""
    gate = Gate()
    version = loaded("2", gate)
    running = asyncio.create_task(version.run(X))
    await eventually(gate.entered.is_set, "the model was entered")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert version.uses == 1
    assert not version.retire(0.0)
    assert not is_closed(version)
    gate.open.set()
    await eventually(lambda: version.uses == 0, "the model returned")
    assert version.retire(1.0)
    assert is_closed(version)


def test_version_is_closed_only_after_the_last_hold_is_gone() -> None:
    """A request that may still turn to its stand-in keeps that open."""
    version = loaded("2")
    with ThreadPoolExecutor(1) as threads, version.held():
        retiring = threads.submit(version.retire, 10.0)
        assert version.uses == 1
        assert not is_closed(version)
        assert asyncio.run(version.run(X))["y"].tolist() == [[2.0, 2.0, 2.0]]
    assert retiring.result(10)
    assert is_closed(version)


@story
async def test_version_fails_cleanly_when_it_was_released() -> None:
    """Not with the executor's own error."""
    version = loaded("2")
    assert version.retire(1.0)
    with pytest.raises(ModelFailed, match="was released"):
        await version.run(X)
    assert version.uses == 0


@story
async def test_version_wakes_when_asked_while_asleep() -> None:
    """Everybody who asks meanwhile waits for the one load."""
    version, loads = loaded("2"), []
    fresh = asyncio.Event()

    async def wake(sleeping: LoadedVersion) -> None:
        loads.append(sleeping)
        await fresh.wait()
        assert sleeping.awaken(ScriptedModel(adds(5.0)))

    version.woken_by(wake)
    model = version.sleep()
    assert model is version.model
    assert version.sleep() is None
    asked = [asyncio.create_task(version.run(X)) for _ in range(3)]
    await eventually(lambda: loads, "somebody woke it")
    asked[0].cancel()
    fresh.set()
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert isinstance(answers[0], asyncio.CancelledError)
    assert [answer["y"][0, 0] for answer in answers[1:]] == [5.0, 5.0]  # type: ignore[index]
    assert (loads, version.uses) == ([version], 0)


@story
async def test_version_fails_when_it_cannot_be_woken() -> None:
    """And is asked again the next time."""
    version, tries = loaded("2"), []

    async def wake(sleeping: LoadedVersion) -> None:
        tries.append(sleeping)
        raise ArtifactRefused("its files are gone", next_step="fetch them")

    version.woken_by(wake)
    assert version.sleep() is not None
    for _ in range(2):
        with pytest.raises(ModelFailed, match="could not be loaded again: its files are gone"):
            await version.run(X)
    assert (len(tries), version.uses) == (2, 0)


async def nobody(_: LoadedVersion) -> None:
    raise AssertionError("nobody asked for it")


@story
async def test_version_does_not_sleep_when_used_or_when_nobody_could_wake_it() -> None:
    """Nor once it is released, and then nothing wakes it."""
    version = loaded("2")
    assert version.sleep() is None
    version.woken_by(nobody)
    with version.held():
        assert version.sleep() is None
    assert version.retire(1.0)
    assert version.sleep() is None
    assert not version.awaken(ScriptedModel(adds(1.0)))


@story
async def test_version_lets_requests_wait_when_its_gate_is_closed() -> None:
    """Until it is opened again."""
    version = loaded("2")
    version.close_gate()
    asked = asyncio.create_task(version.run(X))
    done, _ = await asyncio.wait([asked], timeout=0.05)
    assert (version.uses, done) == (0, set())
    version.open_gate()
    assert (await asked)["y"][0, 0] == 2.0
