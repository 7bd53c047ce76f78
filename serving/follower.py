"""Follows the registry: every change of an alias becomes a loaded, tested, swapped version.

Level-triggered: each turn compares the whole registry with what is served; a webhook only shortens
the wait for the next turn. One change at a time per model, a newer wish supersedes an older, and a
candidate that fails changes nothing for traffic. Long because a change is told here from wish to swap.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from serving.core.clock import Clock
from serving.core.errors import NotServed, RegistryUnavailable, SignalboxError, StoreUnavailable
from serving.core.model import Alias
from serving.exchange import StoreExchange
from serving.followed import FollowedModel, as_served, find_served
from serving.ledger import Ledger
from serving.library import ACTOR, Library
from serving.notices import champion_orphaned, version_refused
from serving.overrides import Overrides
from serving.pool import LoadedVersion, VersionKey
from serving.reconcile import (
    Step,
    StepKind,
    orphan_is_over,
    refused,
    registry_lost_everything,
    steps,
    wishes,
)
from serving.settings import ServingSettings
from serving.store.registry import RegisteredModel, Registry
from serving.telemetry.metrics import Metrics
from serving.visibility import Visibility

log = logging.getLogger(__name__)


class Follower:
    """Confined to the event loop's thread."""

    def __init__(
        self,
        settings: ServingSettings,
        models: dict[str, FollowedModel],
        registry: Registry,
        library: Library,
        visibility: Visibility,
        overrides: Overrides,
        ledger: Ledger,
        metrics: Metrics,
        clock: Clock,
        after_turn: Callable[[FollowedModel], None],
    ) -> None:
        self._settings = settings
        self._models = models
        self._registry = registry
        self._library = library
        self._visibility = visibility
        self._overrides = overrides
        self._ledger = ledger
        self._metrics = metrics
        self._clock = clock
        self._after_turn = after_turn
        self._wake = asyncio.Event()
        self._exchange = StoreExchange(overrides, ledger)
        self.registry_problem: str | None = "not read yet"
        self.registry_read_at: datetime | None = None

    def wake(self) -> None:
        """Look at the registry now instead of at the next poll."""
        self._wake.set()

    async def run(self) -> None:
        """Poll until cancelled."""
        while True:
            try:
                await self._turn()
            except Exception as error:  # the loop must outlive any single turn
                log.exception("turn_failed")
                self._note_registry(f"internal error: {error!r}")
            self._metrics.registry_stale.set(self.registry_problem is not None)
            await self._sleep_until_woken()

    async def close(self) -> None:
        """Stop what is being prepared."""
        tasks = [model.task for model in self._models.values() if model.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._exchange.close()

    def wanted(self, model: FollowedModel) -> dict[str, VersionKey]:
        """What every alias should answer with, overrides included."""
        registered = model.registered
        if registered is None and self.registry_read_at is None:
            registered = model.as_restored()
        return wishes(registered, self._overrides.of(model.name))

    async def _sleep_until_woken(self) -> None:
        try:
            async with asyncio.timeout(self._settings.poll_seconds):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()

    async def _turn(self) -> None:
        try:
            registered = await asyncio.to_thread(self._registry.registered_models)
        except RegistryUnavailable as error:
            self._carry_on(str(error))
            return
        if registry_lost_everything(registered, [m.name for m in self._models.values() if m.served]):
            self._carry_on(f"MLflow at {self._registry.url} names none of the models being served")
            return
        self._note_registry(None)
        if self.registry_read_at is None:  # know what was rolled back elsewhere before loading it
            await self._overrides.refresh(registered)
        else:
            await self._overrides.settle(registered)
        for name in registered.keys() | self._models.keys():
            self._follow(self._models.setdefault(name, FollowedModel(name)), registered.get(name))
        self.registry_read_at = self._clock.now()  # now that every wish is known, readiness may ask
        self._exchange.soon()

    def _carry_on(self, problem: str) -> None:
        """Without the registry, what it last named holds, and overrides still arrive through the store."""
        self._note_registry(problem)
        self._exchange.soon()
        for model in self._models.values():
            if self._overrides.of(model.name):
                self.pursue(model)

    def _note_registry(self, problem: str | None) -> None:
        if (problem is None) != (self.registry_problem is None):
            log.warning("registry_%s %s", "stale" if problem else "fresh", problem or "")
        self.registry_problem = problem

    def _follow(self, model: FollowedModel, registered: RegisteredModel | None) -> None:
        model.registered = registered
        self.pursue(model)
        self._after_turn(model)

    def pursue(self, model: FollowedModel) -> None:
        wanted = self.wanted(model)
        if model.preparing is not None and wanted.get(model.preparing.alias) != model.preparing.key:
            self._abandon(model)
        self._forget_settled(model, wanted)
        if (model.task is None or model.task.done()) and self._due(model):
            model.task = asyncio.create_task(self._converge(model))

    def _abandon(self, model: FollowedModel) -> None:
        if model.task is not None:
            model.task.cancel()
        model.task, model.preparing = None, None

    def _forget_settled(self, model: FollowedModel, wanted: Mapping[str, VersionKey]) -> None:
        for alias in [a for a, refusal in model.refusals.items() if wanted.get(a) != refusal.key]:
            del model.refusals[alias]
            model.reported.pop(alias, None)

    def _due(self, model: FollowedModel) -> list[Step]:
        due = steps(self.wanted(model), model.served_keys(), model.refusals, self._clock.monotonic())
        if not any(step.kind is StepKind.ORPHAN for step in due):
            model.orphaned_since = None
        return [step for step in due if not self._must_wait(model, step)]

    def _must_wait(self, model: FollowedModel, step: Step) -> bool:
        """A champion without its alias answers on for a while: a slip must not cut traffic off."""
        if step.kind is not StepKind.ORPHAN:
            return False
        if model.orphaned_since is None:
            model.orphaned_since = self._clock.now()
            self._ledger.notify(champion_orphaned(model.name, self._settings.orphan_minutes))
        return not orphan_is_over(model.orphaned_since, self._clock.now(), self._settings.orphan_minutes)

    async def _converge(self, model: FollowedModel) -> None:
        while due := self._due(model):
            step = due[0]
            try:
                if step.key is not None:
                    await self._serve(model, step.alias, step.key)
                else:
                    await self._drop(model, step.alias)
            except StoreUnavailable as error:  # what cannot be made durable is not shown; the next turn tries
                log.error("change_not_durable model=%s alias=%s reason=%s", model.name, step.alias, error)
                return
            self._library.sweep(model)

    async def _drop(self, model: FollowedModel, alias: str) -> None:
        async with model.lock:
            before = model.standing()
            dropped = model.served.pop(alias)
            if alias == Alias.CHAMPION:
                model.previous, model.champions, model.watch = None, [], None
            await self._visibility.publish_or_put_back(model, before)
        log.warning("dropped model=%s alias=%s version=%s", model.name, alias, dropped.ref.version)
        self._ledger.audit("drop", actor=ACTOR, model=model.name, version=dropped.ref.version, alias=alias)

    async def _serve(self, model: FollowedModel, alias: str, key: VersionKey) -> None:
        loaded = await self._prepare(model, alias, key)
        if loaded is None:
            return
        with model.keeping(loaded):
            if alias == Alias.CHAMPION and model.champion is None and not model.champions:
                await self._adopt_previous(model)
            await self.swap_in(model, alias, loaded)

    async def swap_in(self, model: FollowedModel, alias: str, loaded: LoadedVersion) -> None:
        """Let a version that its caller keeps in memory answer, if it is still the one wanted."""
        async with model.lock:
            if self.wanted(model).get(alias) == loaded.key and model.served.get(alias) is not loaded:
                await self._swap(model, alias, loaded)

    async def _prepare(self, model: FollowedModel, alias: str, key: VersionKey) -> LoadedVersion | None:
        model.prepare(alias, key)
        try:
            before = find_served(key.ref.version, model.champions)
            if before is not None and self._overrides.left_for(model.name, key.ref.version) is not None:
                return await self._library.reload(model.name, before)  # the way back needs no registry
            return await self._library.load(key)
        except SignalboxError as error:
            self._refuse(model, alias, key, error)
        except Exception as error:  # whatever a library raises over a model refuses that model alone
            log.exception("candidate_failed version=%s", key.ref)
            self._refuse(model, alias, key, error)
        finally:
            if model.preparing is not None and model.preparing.key == key:
                model.preparing = None
        return None

    async def _swap(self, model: FollowedModel, alias: str, loaded: LoadedVersion) -> None:
        old = model.served.get(alias)
        left = await self._left_by_rollback(model, loaded) if alias == Alias.CHAMPION else None
        before = model.standing()
        if alias == Alias.CHAMPION:
            served, now = as_served(loaded, self._settings.cache_folder), self._clock.now()
            model.succeed(loaded, served, left, now, timedelta(seconds=self._settings.watch_seconds))
        model.served[alias] = loaded
        await self._visibility.publish_or_put_back(model, before)
        model.refusals.pop(alias, None)
        self._metrics.swaps.labels(model.name, alias).inc()
        log.info("swapped model=%s alias=%s version=%s", model.name, alias, loaded.ref.version)
        self._ledger.audit(
            "swap",
            actor=ACTOR,
            model=model.name,
            version=loaded.ref.version,
            alias=alias,
            from_version=old.ref.version if old else None,
            digest=loaded.provenance.digest,
        )

    async def _left_by_rollback(self, model: FollowedModel, new: LoadedVersion) -> str | None:
        """The version that a rollback, taken here before or by another replica, left for `new`."""
        left = self._overrides.left_for(model.name, new.ref.version)
        old = model.champion
        if left is None and old is not None and find_served(new.ref.version, model.champions) is not None:
            return await self._overrides.left_elsewhere(old.ref, new.ref.version, since=old.loaded_at)
        return left

    async def _adopt_previous(self, model: FollowedModel) -> None:
        """A server that knows no history takes the registry's word for the version to fall back to."""
        wanted = self.wanted(model)
        key = wanted.get(Alias.PREVIOUS)
        if key is None or key == wanted.get(Alias.CHAMPION):
            return
        try:
            previous = await self._library.load(key)
        except Exception as error:  # a broken stand-in must not keep the champion from answering
            log.warning("previous_not_adopted version=%s reason=%r", key.ref, error)
        else:
            model.crown(as_served(previous, self._settings.cache_folder))
            model.previous = previous

    def _refuse(self, model: FollowedModel, alias: str, key: VersionKey, error: Exception) -> None:
        reason, is_away = str(error) or repr(error), isinstance(error, RegistryUnavailable | NotServed)
        earlier = None if is_away else model.refusals.get(alias)
        model.refusals[alias] = refused(earlier, key, reason, self._clock.monotonic())
        log.warning("refused model=%s alias=%s version=%s %s", model.name, alias, key.ref.version, reason)
        if is_away or model.reported.get(alias) == reason:
            return
        model.reported[alias] = reason
        self._metrics.refusals.labels(model.name).inc()
        answering = model.served[alias].ref if alias in model.served else None
        self._ledger.audit(
            "refuse",
            actor=ACTOR,
            model=model.name,
            version=key.ref.version,
            alias=alias,
            reason=reason,
            answering=answering.version if answering else None,
        )
        self._ledger.notify(version_refused(key.ref, alias, reason, answering))
