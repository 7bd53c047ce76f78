"""What serving tells the registry and the store about aliases it did not move there itself.

Of several workers the leading one writes to the registry; the others only keep their own books.

After a rollback: `champion`, by a guarded write. After an ejection: no traffic tag, no `challenger`. After
every change: `previous`. A move made by hand: one out-of-band record, by whichever worker is first.
Level-triggered: looked at after each turn, repeated until done.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from enum import StrEnum

from serving.core.clock import Clock
from serving.core.errors import SignalboxError, StoreUnavailable
from serving.core.model import Alias
from serving.followed import FollowedModel
from serving.hands import Found, explained, unrecorded
from serving.library import Library
from serving.overrides import Overrides
from serving.store.follow_up import follow_up
from serving.store.guard import Guard, Move, TrafficWish, Wish
from serving.visibility import Visibility

log = logging.getLogger(__name__)

_FIRST_RETRY_SECONDS = 1.0
_LONGEST_RETRY_SECONDS = 30.0


class _Step(StrEnum):
    """Kinds of work that back off apart: an override's write must not wait for the books."""

    OVERRIDES = "overrides"
    HANDS = "hands"
    BOOKS = "books"
    INTENTS = "intents"


class WriteBack:
    """One task per model at most; failures back off. Confined to the event loop's thread."""

    def __init__(
        self,
        guard: Guard,
        overrides: Overrides,
        library: Library,
        visibility: Visibility,
        holder: str,
        clock: Clock,
        leads: Callable[[], bool],
    ) -> None:
        self._guard = guard
        self._overrides = overrides
        self._library = library
        self._visibility = visibility
        self._holder = holder
        self._clock = clock
        self._leads = leads
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._not_before: dict[tuple[str, _Step], float] = {}
        self._failures: dict[tuple[str, _Step], int] = {}
        # Models for which nothing is left open by a process that was killed before this one began.
        self._settled: set[str] = set()

    def consider(self, model: FollowedModel) -> None:
        """Start what is due for a model whose registry state was just read."""
        task = self._tasks.get(model.name)
        if task is not None and not task.done():
            return
        now = self._clock.monotonic()
        due = [
            step
            for step in _Step
            if now >= self._not_before.get((model.name, step), 0.0) and self._is_due(model, step)
        ]
        if due:
            self._tasks[model.name] = asyncio.create_task(self._tend(model, due))

    async def close(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _is_due(self, model: FollowedModel, step: _Step) -> bool:
        if step is _Step.OVERRIDES:
            return bool(self._override_wishes(model))
        if step is _Step.INTENTS:
            return self._must_settle(model)
        if step is _Step.HANDS:
            return model.registered is not None and bool(unrecorded(model.registered, model.recorded))
        return self._previous_wish(model) is not None or self._must_warm_previous(model)

    async def _tend(self, model: FollowedModel, due: list[_Step]) -> None:
        for step in due:
            try:
                await self._take(model, step)
                self._failures.pop((model.name, step), None)
            except SignalboxError as error:
                self._back_off(model.name, step, error)
            except Exception as error:  # a task edge: the next turn tries again
                log.exception("write_back_failed model=%s", model.name)
                self._back_off(model.name, step, error)

    async def _take(self, model: FollowedModel, step: _Step) -> None:
        match step:
            case _Step.OVERRIDES:
                await self._tell_overrides(model)
            case _Step.HANDS:
                await self._record_hands(model)
            case _Step.BOOKS:
                await self._keep_books(model)
            case _Step.INTENTS:
                await asyncio.to_thread(self._settle, model.name)

    async def _tell_overrides(self, model: FollowedModel) -> None:
        for wish in self._override_wishes(model):
            await self._write(wish, preempt=True)

    async def _keep_books(self, model: FollowedModel) -> None:
        if self._must_warm_previous(model):
            await self._warm_previous(model)
        if self._previous_wish(model) is not None:
            await self._learn_of_rollback(model)
        if (wish := self._previous_wish(model)) is not None:
            await self._write(wish, preempt=False)

    async def _learn_of_rollback(self, model: FollowedModel) -> None:
        """A stand-in that another replica rolled back is none, however late the store tells.

        The registry may have moved before the store had heard why: until then it looked like a hand's move.
        """
        standing_in, champion = model.previous, model.champion
        if standing_in is None or champion is None:
            return
        since, version = standing_in.loaded_at, champion.ref.version
        if await self._overrides.left_elsewhere(standing_in.ref, version, since=since) is None:
            return
        async with model.lock:
            if (model.previous, model.champion) != (standing_in, champion):
                return
            before = model.standing()
            model.dethrone(standing_in.ref)
            model.previous, model.watch = None, None
            await self._visibility.publish_or_put_back(model, before)
        self._library.sweep(model)

    def _back_off(self, model: str, step: _Step, error: Exception) -> None:
        failures = self._failures.get((model, step), 0) + 1
        self._failures[model, step] = failures
        wait_seconds = min(_FIRST_RETRY_SECONDS * 2 ** (failures - 1), _LONGEST_RETRY_SECONDS)
        self._not_before[model, step] = self._clock.monotonic() + wait_seconds
        log.warning("write_back_waits model=%s step=%s seconds=%.0f %s", model, step, wait_seconds, error)

    def _must_settle(self, model: FollowedModel) -> bool:
        return model.name not in self._settled and model.registered is not None and self._leads()

    def _settle(self, model: str) -> None:
        if self._guard.has_open(model):
            with self._guard.holding(model, self._holder):
                self._guard.settle(model)
        self._settled.add(model)

    async def _record_hands(self, model: FollowedModel) -> None:
        if model.registered is None:
            return
        for alias, named in unrecorded(model.registered, model.recorded):
            writer = self._holder if self._leads() else None
            found = await asyncio.to_thread(explained, self._guard, writer, model.name, alias, named)
            if found is Found.UNSETTLED:
                continue
            model.recorded[alias] = named
            if alias is Alias.CHAMPION and model.watch is not None and model.watch.version == named:
                model.watch = replace(model.watch, by_hand=found is Found.HAND)

    def _override_wishes(self, model: FollowedModel) -> list[Wish | TrafficWish]:
        """What the registry does not know yet of overrides laid here."""
        registered = model.registered
        if registered is None or not self._leads():
            return []
        return [wish for o in self._overrides.own(model.name) for wish in follow_up(o, registered)]

    def _previous_wish(self, model: FollowedModel) -> Wish | None:
        """The registry's copy of `previous` where it differs from our record and the champion is settled."""
        champion = model.champion
        aliases = model.registered.aliases if model.registered else {}
        if not self._leads() or champion is None or aliases.get(Alias.CHAMPION) != champion.ref.version:
            return None
        named = aliases.get(Alias.PREVIOUS)
        record = model.previous_record
        ours = record.version if record is not None else None
        if named == ours or (ours is None and named != champion.ref.version):
            return None
        reason = f"the last good champion before {champion.ref.version}"
        return Wish(model.name, Alias.PREVIOUS, ours, self._holder, reason)

    def _must_warm_previous(self, model: FollowedModel) -> bool:
        return model.previous is None and model.previous_record is not None

    async def _warm_previous(self, model: FollowedModel) -> None:
        record = model.previous_record
        if record is None:
            return
        loaded = await self._library.reload(model.name, record)
        with model.keeping(loaded):
            async with model.lock:
                if model.previous is None and model.previous_record == record:
                    model.previous = loaded
                    self._visibility.show(model)
        self._library.sweep(model)

    async def _write(self, wish: Wish | TrafficWish, *, preempt: bool) -> None:
        def guarded() -> Move:
            with self._guard.holding(wish.model, self._holder, preempt=preempt) as lease:
                return self._guard.move(wish, lease)

        move = await asyncio.to_thread(guarded)
        log.info("registry_written wish=%s verdict=%s", wish, move.verdict)
        if not move.is_settled:
            raise StoreUnavailable(f"{wish} not written: {move.reason}")
