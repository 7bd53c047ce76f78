"""Memory for models: room is made by sleep, never at a user's cost, and never beyond the budget."""

import asyncio
import threading
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from serving.core.budget import Limits, Standing
from serving.core.clock import ManualClock
from serving.core.errors import ArtifactRefused
from serving.memory import Memory
from serving.pool import LoadedVersion, Loading
from tests.story import eventually, story
from tests.versions import ScriptedModel, adds, loaded

X = {"x": np.zeros((1, 3), np.float32)}
MB = 1 << 20


@dataclass
class Shelf:
    """A memory, and versions whose models count as closed or not."""

    limits: Limits
    clock: ManualClock = field(default_factory=ManualClock)
    pinned: set[str] = field(default_factory=set)
    evicted: list[str] = field(default_factory=list)
    wakes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.memory = Memory(self.limits, self.clock, self._standing)
        self.memory.tell(lambda version, unused: self.evicted.append(version.ref.version))

    def _standing(self, version: LoadedVersion) -> Standing:
        return Standing.PINNED if version.ref.version in self.pinned else Standing.PLAIN

    async def load(self, version: str, mb: int, *, may_overflow: bool = False) -> LoadedVersion:
        async with self.memory.room(mb * MB, f"version {version}", may_overflow=may_overflow):
            made = loaded(version, clock=self.clock, loading=Loading(cost_bytes=mb * MB))
            made.woken_by(self._wake)
            self.memory.add(made)
        return made

    async def _wake(self, version: LoadedVersion) -> None:
        async with self.memory.room(version.loading.cost_bytes, "a wake"):
            self.wakes.append(version.ref.version)
            assert version.awaken(ScriptedModel(adds(float(version.ref.version))))


@dataclass(slots=True)
class Reluctant(ScriptedModel):
    """Takes its time to go."""

    leaving: threading.Event = field(default_factory=threading.Event)

    def close(self) -> None:
        self.leaving.wait(10)


def shelf(budget_mb: int, **limits: Any) -> Shelf:
    return Shelf(Limits(budget_bytes=budget_mb * MB, **{"min_residency_seconds": 0.0, **limits}))


@story
async def test_longest_unused_sleeps_when_another_needs_its_room() -> None:
    """And answers again when asked, at the cost of the next one."""
    shelf_ = shelf(2)
    one, two = await shelf_.load("1", 1), await shelf_.load("2", 1)
    shelf_.clock.advance(1)
    await one.run(X)
    await shelf_.load("3", 1)
    assert (shelf_.evicted, two.is_awake) == (["2"], False)
    assert (await two.run(X))["y"][0, 0] == 2.0
    assert shelf_.wakes == ["2"]
    assert sum(version.is_awake for version in shelf_.memory.all()) == 2


@story
async def test_version_in_use_stays_when_room_is_short() -> None:
    """Whoever wants room waits until it is idle."""
    shelf_ = shelf(1)
    one = await shelf_.load("1", 1)
    with one.held():
        loading = asyncio.create_task(shelf_.load("2", 1))
        done, _ = await asyncio.wait([loading], timeout=0.05)
        assert (done, one.is_awake) == (set(), True)
    assert (await loading).is_awake
    assert not one.is_awake


@story
async def test_memory_being_freed_counts_until_it_is_free() -> None:
    """A slow goodbye must not be overtaken."""
    shelf_, leaving = shelf(1), threading.Event()
    one = await shelf_.load("1", 1)
    one.model = Reluctant(adds(1.0), leaving=leaving)
    loading = asyncio.create_task(shelf_.load("2", 1))
    await eventually(lambda: shelf_.evicted, "version 1 was sent to sleep")
    done, _ = await asyncio.wait([loading], timeout=0.05)
    assert done == set()
    assert shelf_.memory.held_bytes() == MB
    leaving.set()
    await loading


@story
async def test_young_version_stays_until_it_was_of_some_use() -> None:
    """Models do not take turns for ever."""
    shelf_ = shelf(1, min_residency_seconds=3.0)
    one = await shelf_.load("1", 1)
    shelf_.clock.advance(2.9)
    loading = asyncio.create_task(shelf_.load("2", 1))
    done, _ = await asyncio.wait([loading], timeout=0.05)
    assert (done, one.is_awake) == (set(), True)
    shelf_.clock.advance(0.2)
    await loading
    assert not one.is_awake


@pytest.mark.fault("F25")
@story
async def test_swap_uses_the_overflow_or_is_refused_naming_the_budget() -> None:
    """The version that answers stays in memory either way."""
    shelf_ = shelf(10, overflow_bytes=5 * MB)
    shelf_.pinned = {"1"}
    one = await shelf_.load("1", 8)
    await shelf_.load("2", 7, may_overflow=True)
    with pytest.raises(ArtifactRefused, match=r"needs about 7 MB.*SIGNALBOX_MEMORY_MB to 15 or more"):
        await shelf_.load("3", 7)
    with pytest.raises(ArtifactRefused, match=r"budget of 10 MB and 5 MB for a swap.*to 11 or more"):
        await shelf_.load("4", 8, may_overflow=True)
    assert one.is_awake
    assert (await one.run(X))["y"][0, 0] == 1.0


@story
async def test_load_is_refused_naming_the_number_when_pinned_ones_fill_it() -> None:
    """Not the budget in bytes, which has room."""
    shelf_ = shelf(10, max_count=1)
    shelf_.pinned = {"1"}
    await shelf_.load("1", 1)
    with pytest.raises(ArtifactRefused, match=r"one too many: 1 versions.*SIGNALBOX_MAX_MODELS to 2"):
        await shelf_.load("2", 1)


@story
async def test_busy_models_are_made_to_pause_when_somebody_waits_too_long() -> None:
    """A model that is always asked must not keep another out for ever."""
    shelf_ = shelf(1)
    one = await shelf_.load("1", 1)
    stop = asyncio.Event()
    turns = 0

    async def ask() -> None:
        nonlocal turns
        while not stop.is_set():
            await one.run(X)
            turns += 1

    callers = [asyncio.create_task(ask()) for _ in range(3)]
    loading = asyncio.create_task(shelf_.load("2", 1))
    while not loading.done():
        shelf_.clock.advance(0.05)
        await asyncio.wait([loading], timeout=0.02)
    assert (await loading).ref.version == "2"
    assert shelf_.evicted[0] == "1"
    before = turns
    await eventually(lambda: turns > before, "the others are answered again")
    stop.set()
    await asyncio.gather(*callers)


class MemoryMachine(RuleBasedStateMachine):
    """Load, lend, use, evict by need, swap, fail and cancel, against a model that only adds up."""

    steps: ClassVar[int] = 0
    versions = Bundle("versions")
    leases = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.shelf = self.do(self._make())
        self.number = 0
        self.sizes: dict[str, int] = {}
        self.held: dict[str, int] = {}

    async def _make(self) -> Shelf:
        return shelf(10, overflow_bytes=4 * MB)

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(asyncio.wait_for(work, 20))

    def teardown(self) -> None:
        self.do(self.shelf.memory.close())
        self.loop.close()

    def busy_bytes(self) -> int:
        return sum(self.sizes[version] for version, count in self.held.items() if count) * MB

    def fits(self, mb: int, spare_mb: int = 0) -> bool:
        return self.busy_bytes() + mb * MB <= (10 + spare_mb) * MB

    @rule(target=versions, mb=st.integers(1, 6), swap=st.booleans())
    def load(self, mb: int, swap: bool) -> Any:
        """A load succeeds whenever what is in use leaves room for it."""
        self.number += 1
        name = str(self.number)
        if not self.fits(mb, 4 if swap else 0):
            self.do(self._give_up(name, mb, swap))
            return None
        self.sizes[name] = mb
        return self.do(self.shelf.load(name, mb, may_overflow=swap))

    async def _give_up(self, name: str, mb: int, swap: bool) -> None:
        """A caller that waits for room and is cancelled leaves no trace."""
        waiting = asyncio.create_task(self.shelf.load(name, mb, may_overflow=swap))
        done, _ = await asyncio.wait([waiting], timeout=0.01)
        assert not done
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)

    @rule(mb=st.integers(1, 6))
    def fail(self, mb: int) -> None:
        """A load that fails gives its room back."""
        if self.fits(mb):
            self.do(self._fail(mb))

    async def _fail(self, mb: int) -> None:
        with pytest.raises(RuntimeError):
            async with self.shelf.memory.room(mb * MB, "a failure"):
                raise RuntimeError("damaged")

    @rule(version=versions)
    def use(self, version: LoadedVersion | None) -> None:
        """Whatever was evicted answers, and with its own answer."""
        if version is None or version not in self.shelf.memory.all():
            return
        name = version.ref.version
        if not version.is_awake and not self.fits(self.sizes[name]):
            return
        self.shelf.clock.advance(1)
        assert self.do(version.run(X))["y"][0, 0] == float(name)

    @rule(target=leases, version=versions)
    def lend(self, version: LoadedVersion | None) -> Any:
        """A use of a version that is awake keeps it so."""
        if version is None or not version.is_awake or version not in self.shelf.memory.all():
            return None
        use = version.held()
        use.__enter__()
        self.held[version.ref.version] = self.held.get(version.ref.version, 0) + 1
        return version, use

    @rule(lease=consumes(leases))
    def give_back(self, lease: tuple[LoadedVersion, Any] | None) -> None:
        if lease is None:
            return
        version, use = lease
        use.__exit__(None, None, None)
        self.held[version.ref.version] -= 1

    @precondition(lambda self: self.shelf.memory.all())
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        """What nothing refers to any more goes for good, unless somebody still uses it."""
        version = data.draw(st.sampled_from(self.shelf.memory.all()))
        if self.held.get(version.ref.version):
            return
        keep = [other for other in self.shelf.memory.all() if other is not version]
        assert self.shelf.memory.remove_unused("digits", keep) == [version]
        self.do(self._retire(version))

    async def _retire(self, version: LoadedVersion) -> None:
        await self.shelf.memory.free_in_background(version, lambda: version.retire(10))

    @invariant()
    def nothing_is_beyond_the_budget(self) -> None:
        MemoryMachine.steps += 1
        assert self.shelf.memory.held_bytes() <= 14 * MB

    @invariant()
    def nothing_in_use_sleeps(self) -> None:
        for version in self.shelf.memory.all():
            if self.held.get(version.ref.version):
                assert version.is_awake

    @invariant()
    def books_are_right(self) -> None:
        awake = [version for version in self.shelf.memory.all() if version.is_awake]
        awake_bytes = sum(self.sizes[version.ref.version] for version in awake) * MB
        assert self.shelf.memory.held_bytes() >= awake_bytes
        for version in self.shelf.memory.all():
            assert isinstance(version.model, ScriptedModel)
            if version.is_awake:
                assert not version.model.is_closed


TestMemoryMachine = MemoryMachine.TestCase
TestMemoryMachine.settings = settings(max_examples=300, stateful_step_count=50, deadline=None)


def test_machine_took_many_steps_when_it_ran(capsys: pytest.CaptureFixture[str]) -> None:
    """An exploration that explores nothing proves nothing."""
    with capsys.disabled():
        print(f" [memory's state machine: {MemoryMachine.steps} steps] ", end="")
    assert MemoryMachine.steps == 0 or MemoryMachine.steps > 1000
