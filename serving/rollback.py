"""The way back, taken by this server at once: override, swap, and the registry told afterwards.

Order: the override is durable before traffic moves; traffic moves before the registry is asked.
`serving.write_back` then makes the guarded registry write, with retries.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

from serving.candidate import in_thread
from serving.core.clock import Clock
from serving.core.contract import Contract, compatibility
from serving.core.errors import ChangeRefused, NotServed, SignalboxError, StoreUnavailable
from serving.core.model import Alias, VersionRef
from serving.followed import FollowedModel, as_served, find_served
from serving.formats.selftest import Verdict, self_test
from serving.ledger import Ledger
from serving.library import Library
from serving.notices import champion_failing
from serving.overrides import Overrides
from serving.pool import LoadedVersion, VersionKey
from serving.rollback_book import RollbackBook
from serving.rollback_record import Way, recovered, taken
from serving.settings import ServingSettings
from serving.store.overrides import Override
from serving.store.rollbacks import RollbackRecord, Strategy
from serving.telemetry.metrics import Metrics
from serving.visibility import Visibility
from serving.watch import AnswerWindow, Evidence, Slowness

log = logging.getLogger(__name__)

WATCH_ACTOR = "serving:watch"
_CHECK_SECONDS = 10.0


class Rollbacks:
    """Takes a model back to an earlier version. Confined to the event loop's thread."""

    def __init__(
        self,
        settings: ServingSettings,
        models: Mapping[str, FollowedModel],
        library: Library,
        visibility: Visibility,
        overrides: Overrides,
        ledger: Ledger,
        metrics: Metrics,
        clock: Clock,
        wake: Callable[[], None],
        spread: Callable[[], Awaitable[None]],
        book: RollbackBook,
    ) -> None:
        """`spread` returns once the server's other workers have seen what was laid here."""
        self._settings = settings
        self._models = models
        self._library = library
        self._visibility = visibility
        self._overrides = overrides
        self._ledger = ledger
        self._metrics = metrics
        self._clock = clock
        self._wake = wake
        self._spread = spread
        self._tasks: set[asyncio.Task[None]] = set()
        self._book = book

    async def take(self, model: str, way: Way, *, failing: VersionKey | None = None) -> RollbackRecord:
        """Answer with the version that `way` names, by default the last good one, from now on.

        With `failing`, do so only while that version is the champion: a newer one is another story.

        Raises:
            NotServed: the model is not served, or the version is not one this server can answer with.
            ChangeRefused: there is no earlier version, or the target answers already, is not healthy, or
                does not fit the callers of the champion.
            StoreUnavailable: the override could not be made durable on the local disk.
        """
        followed = self._models.get(model)
        if followed is None or followed.champion is None:
            raise NotServed(f"model '{model}' has no champion to roll back", exists=sorted(self._models))
        target = await self._target(followed, way.version)
        with followed.keeping(target):
            await self._check(target)
            # A champion that fails was answered for by this version: its callers are known to fit.
            if failing is None and not way.allow_signature_change:
                _check_contract(target, followed.champion)
            async with followed.lock:
                champion = followed.champion
                if champion is None or champion.ref == target.ref:
                    raise ChangeRefused(f"version {target.ref.version} of '{model}' answers already")
                if failing not in (None, champion.key):
                    raise ChangeRefused(f"version {champion.ref.version} of '{model}' is champion by now")
                rollback = taken(model, way, champion, target, self._clock.now())
                rollback = await self._apply(followed, rollback, target, is_watched=failing is not None)
        await self._book.note(rollback)
        self._library.sweep(followed)
        self._wake()  # the registry is told on the follower's next turn: let that be now
        await self._spread()
        return rollback

    async def recover(self) -> None:
        """Tell of what a server had done when it was killed, before it could say so."""
        known = await self._book.known()
        for override in self._overrides.all_own():
            if override.role != Alias.CHAMPION or override.answer_with is None or override.id in known:
                continue
            rollback = recovered(override, self._clock.now())
            self._tell(rollback)
            await self._book.note(rollback)

    def judge(self, followed: FollowedModel, evidence: Evidence | Slowness) -> None:
        """React to a champion whose answers fail, or are too slow.

        Called from the request path, so it only schedules.
        """
        champion = followed.champion
        if champion is None or followed.is_rolling_back:
            return
        watch = followed.watch
        if followed.previous is None:
            self._alert(followed, champion, evidence, "there is no earlier version to answer in its place")
        elif watch is None or not watch.covers(champion.ref.version, self._clock.now()):
            self._alert(followed, champion, evidence, "it is no longer watched; roll it back by hand")
        elif watch.by_hand and not self._settings.rollback_by_hand:
            self._alert(followed, champion, evidence, "it was set by hand and policy leaves it in place")
        else:
            followed.is_rolling_back = True
            task = asyncio.create_task(self._roll_back_watched(followed, champion, evidence))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _alert(
        self, followed: FollowedModel, champion: LoadedVersion, evidence: Evidence | Slowness, remedy: str
    ) -> None:
        if followed.alerted_for != champion.key:
            followed.alerted_for = champion.key
            self._ledger.notify(champion_failing(champion.ref, str(evidence), remedy))

    async def _roll_back_watched(
        self, followed: FollowedModel, failing: LoadedVersion, evidence: Evidence | Slowness
    ) -> None:
        try:
            way = Way(strategy=Strategy.INSTANT, actor=WATCH_ACTOR, reason=str(evidence))
            await self.take(followed.name, way, failing=failing.key)
        except SignalboxError as error:
            log.exception("watched_rollback_failed model=%s", followed.name)
            if followed.champion is failing:
                self._alert(followed, failing, evidence, f"rollback was not possible: {error}")
        finally:
            followed.is_rolling_back = False

    async def _target(self, followed: FollowedModel, version: str | None) -> LoadedVersion:
        if version is None:
            if followed.previous is not None:
                return followed.previous
            if followed.previous_record is None:
                raise ChangeRefused(
                    f"'{followed.name}' has no earlier healthy version; name one with \"version\""
                )
            return await self._library.reload(followed.name, followed.previous_record)
        routes = followed.routes()
        loaded = routes.by_version(version) or (
            followed.previous if _is(followed.previous, version) else None
        )
        if loaded is not None:
            return loaded
        served = find_served(version, followed.champions)
        if served is not None:
            return await self._library.reload(followed.name, served)
        if followed.registered is None:
            known = sorted(
                {served.version for served in followed.champions} | set(routes.versions()), key=int
            )
            raise NotServed(f"version {version} of '{followed.name}' is not known here", exists=known)
        return await self._library.load(followed.key_of(version))

    async def _check(self, target: LoadedVersion) -> None:
        """The target must still pass its self-test: never go back to a version that is broken itself."""
        try:
            async with asyncio.timeout(_CHECK_SECONDS):
                await target.ready()
                tested = await in_thread(lambda: self_test(target.model, target.artifact), lambda _: None)
        except TimeoutError:
            problem = f"version {target.ref.version} did not answer its self-test within {_CHECK_SECONDS:g} s"
            raise ChangeRefused(problem) from None
        if tested.verdict is Verdict.FAILED:
            raise ChangeRefused(f"version {target.ref.version} fails its own self-test: {tested.reason}")

    async def _apply(
        self, followed: FollowedModel, rollback: RollbackRecord, target: LoadedVersion, *, is_watched: bool
    ) -> RollbackRecord:
        held = await self._override(followed, rollback, is_watched=is_watched)
        is_first = held is None or held.id == rollback.id
        if held is not None:
            rollback = replace(rollback, id=held.id)
        failed = followed.champion
        followed.served[Alias.CHAMPION] = target
        if failed is not None:
            followed.dethrone(failed.ref)
        followed.crown(as_served(target, self._settings.cache_folder))
        followed.window, followed.watch, followed.previous = AnswerWindow(), None, None
        followed.swapped_at = rollback.created_at
        try:
            await self._visibility.publish(followed)
        except StoreUnavailable as error:  # the override is durable: a restart comes to the same answer
            log.error("rollback_not_recorded model=%s reason=%s", followed.name, error)
            self._visibility.show(followed)
        if is_first:
            self._metrics.rollbacks.labels(rollback.model, rollback.strategy).inc()
            self._tell(rollback)
        return rollback

    async def _override(
        self, followed: FollowedModel, rollback: RollbackRecord, *, is_watched: bool
    ) -> Override | None:
        """Make the way back durable. Going to what the registry names needs no override, and ends one.

        The override that holds now, which another worker may have laid for the same reason just before.
        """
        in_force = self._overrides.laid_for(rollback.model, Alias.CHAMPION)
        named = in_force.not_version if in_force is not None else rollback.from_version
        if followed.registered is not None:
            named = followed.registered.aliases.get(Alias.CHAMPION, rollback.from_version)
        if rollback.to_version == named:
            if in_force is not None:
                await self._overrides.end(in_force, f"{rollback.actor} went back to {named}")
            return None
        override = Override(
            id=rollback.id,
            model=rollback.model,
            role=Alias.CHAMPION,
            # What a watch saw fail says nothing of a newer version that the registry names by now.
            not_version=rollback.from_version if is_watched else named,
            answer_with=rollback.to_version,
            actor=rollback.actor,
            reason=rollback.reason,
            laid_at=rollback.created_at,
        )
        return await self._overrides.lay(override)

    def _tell(self, rollback: RollbackRecord) -> None:
        ref = VersionRef(rollback.model, rollback.from_version)
        log.warning("rolled_back from=%s to=%s reason=%s", ref, rollback.to_version, rollback.reason)
        self._ledger.audit(
            "roll_back",
            actor=rollback.actor,
            model=rollback.model,
            version=rollback.to_version,
            rollback_id=rollback.id,
            from_version=rollback.from_version,
            strategy=str(rollback.strategy),
            reason=rollback.reason,
            restore_point=rollback.restore_point,
        )


def _check_contract(target: LoadedVersion, champion: LoadedVersion) -> None:
    """Never go back to a version that cannot answer what callers send by now."""
    found = compatibility(*(Contract(v.model.inputs, v.model.outputs) for v in (target, champion)))
    if found.breaks:
        raise ChangeRefused(
            f"version {target.ref.version} does not fit the callers of version {champion.ref.version}: "
            f"{'; '.join(found.breaks)}; choose another version, or set allow_signature_change"
        )


def _is(loaded: LoadedVersion | None, version: str) -> bool:
    return loaded is not None and loaded.ref.version == version
