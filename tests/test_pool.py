"""Loaded versions: never closed under somebody who uses them, always closed afterwards."""

import asyncio
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from serving.core.datatypes import Array
from serving.core.errors import ModelFailed
from serving.pool import LoadedVersion, Pool
from tests.story import eventually, story
from tests.versions import ScriptedModel, loaded, raises

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


def test_pool_takes_out_what_a_model_no_longer_refers_to() -> None:
    """Other models' versions stay."""
    pool, kept, gone, other = Pool(), loaded("1"), loaded("2"), loaded("1", model="other")
    for version in (kept, gone, other):
        pool.add(version)
    assert pool.remove_unused("digits", [kept]) == [gone]
    assert pool.all() == [kept, other]
    assert pool.get(gone.key) is None
