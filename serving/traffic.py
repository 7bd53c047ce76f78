"""A model's split as a person asks for it: what it is now, and the guarded change of the traffic tag.

The tag is only the wish; the answer says what requests meet. A rollout that is open owns the split.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from uuid import uuid4

from serving.core.clock import Clock
from serving.core.errors import ChangeRefused, NotServed, RegistryUnavailable, StoreUnavailable
from serving.core.model import Alias, Tag
from serving.core.traffic import Split, read_tag, write_tag
from serving.followed import FollowedModel
from serving.ledger import Ledger
from serving.overrides import Overrides
from serving.splits import Splits
from serving.store import rollouts, workers
from serving.store.guard import Guard, Move, TrafficWish, Verdict
from serving.store.registry import RegisteredModel, Registry
from serving.store.workers import WorkerModel

log = logging.getLogger(__name__)

_APPLY_SECONDS = 5.0
_LOOK_SECONDS = 0.1
# A serving process holds the lease for single writes only.
_OURS = "serving:"
_LEASE_WAITS_SECONDS = (0.1, 0.3, 1.0)


@dataclass(frozen=True, slots=True)
class State:
    """The split that requests meet; a percent of 0 where there is none."""

    model: str
    champion: str | None
    challenger: str | None
    percent: int
    rollout: str | None


class Traffic:
    """Confined to the event loop's thread; registry and store are asked on others."""

    def __init__(
        self,
        models: Mapping[str, FollowedModel],
        registry: Registry,
        guard: Guard,
        overrides: Overrides,
        splits: Splits,
        ledger: Ledger,
        holder: str,
        clock: Clock,
        wake: Callable[[], None],
    ) -> None:
        """`wake` has every worker of this server look at the registry."""
        self._models = models
        self._registry = registry
        self._guard = guard
        self._overrides = overrides
        self._splits = splits
        self._ledger = ledger
        self._holder = holder
        self._clock = clock
        self._wake = wake

    def state(self, model: str) -> State:
        """Raises `NotServed` for a model that is not followed."""
        return _state(self._followed(model))

    async def change(
        self, model: str, percent: int, challenger: str | None, actor: str
    ) -> tuple[State, bool]:
        """Ask for a split; the state after it, and whether requests meet it already, at every worker.

        Raises:
            NotServed: the model is not followed, or gone from the registry.
            ChangeRefused: a rollout or another change has the model, or there is no such challenger.
            RegistryUnavailable: the tag could not be written.
            StoreUnavailable: the change could not be put on record.
        """
        followed = self._followed(model)
        await self._refuse_owned(model)
        self._refuse_ejected(followed)
        split = await self._written(model, percent, challenger, actor)
        self._wake()
        until = self._clock.monotonic() + _APPLY_SECONDS
        is_met = await self._splits.changes(lambda: followed.shown_split == split, _APPLY_SECONDS)
        if is_met and await self._is_met_everywhere(model, split, until):
            return _state(followed), True
        return replace(_state(followed), challenger=split.challenger, percent=percent), False

    async def _is_met_everywhere(self, model: str, split: Split, until: float) -> bool:
        """Whether every live worker that has the model reports the split by then."""
        try:
            while True:
                beats = await self._ledger.call(lambda engine: workers.live(engine, self._clock.now()))
                reports = [beat.models[model] for beat in beats if model in beat.models]
                if all(_reports(report, split) for report in reports):
                    return True
                if self._clock.monotonic() >= until:
                    return False
                await asyncio.sleep(_LOOK_SECONDS)
        except StoreUnavailable as error:
            log.warning("split_not_verified model=%s reason=%s", model, error)
            return False

    def _followed(self, model: str) -> FollowedModel:
        followed = self._models.get(model)
        if followed is None or (followed.registered is None and not followed.served):
            names = [name for name, m in self._models.items() if m.registered or m.served]
            raise NotServed(f"model '{model}' is not followed", exists=sorted(names))
        return followed

    async def _refuse_owned(self, model: str) -> None:
        for rollout in await self._ledger.call(rollouts.open_rollouts):
            if rollout.model == model:
                raise ChangeRefused(
                    f"rollout {rollout.id} of version {rollout.version}, asked for by "
                    f"{rollout.requested_by}, owns the traffic of '{model}': abort it, or wait for its end",
                    holder=rollout.id,
                )

    def _refuse_ejected(self, model: FollowedModel) -> None:
        override = self._overrides.laid_for(model.name, Alias.CHALLENGER)
        named = model.registered.aliases.get(Alias.CHALLENGER) if model.registered else None
        if override is not None and named == override.not_version:
            raise ChangeRefused(
                f"challenger {named} of '{model.name}' was ejected ({override.reason}): "
                "set alias challenger to another version"
            )

    async def _written(self, model: str, percent: int, challenger: str | None, actor: str) -> Split:
        """The split as it was written. What serving itself writes between two changes is waited for."""
        for wait_seconds in _LEASE_WAITS_SECONDS:
            try:
                return await asyncio.to_thread(self._write, model, percent, challenger, actor)
            except ChangeRefused as refusal:
                if refusal.holder is None or not refusal.holder.startswith(_OURS):
                    raise
            await asyncio.sleep(wait_seconds)
        return await asyncio.to_thread(self._write, model, percent, challenger, actor)

    def _write(self, model: str, percent: int, challenger: str | None, actor: str) -> Split:
        with self._guard.holding(model, f"{self._holder}:traffic:{uuid4().hex[:8]}") as lease:
            registered = self._registry.registered_model(model)
            text = registered.tags.get(Tag.TRAFFIC)
            before = read_tag(text)
            compare = before.compare_percent if isinstance(before, Split) else None
            split = Split(_challenger(registered, challenger), percent, compare_percent=compare)
            reason = f"{percent} % to version {split.challenger}"
            wish = TrafficWish(model, write_tag(split), actor, reason, frozenset({text}))
            _check(self._guard.move(wish, lease), model)
        return split


def _challenger(registered: RegisteredModel, asked: str | None) -> str:
    """The version that gets the share: only the one that alias challenger names, beside a champion."""
    champion = registered.aliases.get(Alias.CHAMPION)
    challenger = registered.aliases.get(Alias.CHALLENGER)
    if challenger is None or asked not in (None, challenger):
        wanted = f"names version {challenger}, not {asked}" if challenger else "names no version"
        raise ChangeRefused(f"alias challenger of '{registered.name}' {wanted}: set it first")
    if champion in (None, challenger):
        named = "is the champion already" if champion else "has no champion beside it"
        raise ChangeRefused(f"version {challenger} of '{registered.name}' {named}: there is nothing to split")
    return challenger


def _check(move: Move, model: str) -> None:
    if move.verdict in (Verdict.APPLIED, Verdict.ALREADY):
        return
    if move.verdict in (Verdict.SUPERSEDED, Verdict.LEASE_LOST):
        raise ChangeRefused(f"the traffic of '{model}' was changed by somebody else meanwhile: {move.reason}")
    raise RegistryUnavailable(f"the traffic tag of '{model}' was not written: {move.reason}")


def _reports(model: WorkerModel, split: Split) -> bool:
    reported = (model.challenger, model.percent, model.rollout)
    return reported == (split.challenger, split.percent, split.rollout)


def _state(model: FollowedModel) -> State:
    champion, challenger, split = model.champion, model.challenger, model.shown_split
    return State(
        model=model.name,
        champion=champion.ref.version if champion else None,
        challenger=challenger.ref.version if challenger else None,
        percent=split.percent if split else 0,
        rollout=split.rollout if split else None,
    )
