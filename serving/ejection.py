"""Sends a failing challenger away at once, by itself: override, then traffic, then the registry.

The override is on the disk before traffic moves, so a restart, the next poll and other replicas keep to
it. `serving.write_back` then deletes the alias and the traffic tag, with retries.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from uuid import uuid4

from serving.core.clock import Clock
from serving.core.errors import SignalboxError, StoreUnavailable
from serving.core.model import Alias
from serving.followed import FollowedModel, Trial
from serving.ledger import Ledger
from serving.library import Library
from serving.notices import challenger_ejected
from serving.overrides import Overrides
from serving.pool import LoadedVersion
from serving.store.overrides import Override
from serving.telemetry.metrics import Metrics
from serving.visibility import Visibility
from serving.watch import Evidence

log = logging.getLogger(__name__)

ACTOR = "serving:ejection"


class Ejections:
    """Confined to the event loop's thread."""

    def __init__(
        self,
        library: Library,
        visibility: Visibility,
        overrides: Overrides,
        ledger: Ledger,
        metrics: Metrics,
        clock: Clock,
        wake: Callable[[], None],
        spread: Callable[[], Awaitable[None]],
    ) -> None:
        """`spread` returns once the server's other workers have seen what was laid here."""
        self._library = library
        self._visibility = visibility
        self._overrides = overrides
        self._ledger = ledger
        self._metrics = metrics
        self._clock = clock
        self._wake = wake
        self._spread = spread
        self._tasks: set[asyncio.Task[None]] = set()

    def judge(self, model: FollowedModel, challenger: LoadedVersion, evidence: Evidence) -> None:
        """React to a challenger whose answers fail; called from the request path, so it only schedules."""
        trial = model.trial_of(challenger)
        if trial.is_ending:
            return
        trial.is_ending = True
        task = asyncio.create_task(self._eject(model, challenger, trial, evidence))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Finish what was begun: it is short, and half of it would be worse."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _eject(
        self, model: FollowedModel, challenger: LoadedVersion, trial: Trial, evidence: Evidence
    ) -> None:
        try:
            async with model.lock:
                if model.challenger is challenger and model.champion is not challenger:
                    await self._apply(model, challenger, evidence)
        except SignalboxError as error:  # nothing was changed; the next failure tries again
            log.error("ejection_failed version=%s reason=%s", challenger.ref, error)
        except Exception:  # a task edge
            log.exception("ejection_failed version=%s", challenger.ref)
        finally:
            trial.is_ending = False
        self._library.sweep(model)
        self._wake()  # the registry is told on the follower's next turn: let that be now
        await self._spread()

    async def _apply(self, model: FollowedModel, challenger: LoadedVersion, evidence: Evidence) -> None:
        split, ref = model.split_in_effect(), challenger.ref
        override = Override(
            id=uuid4().hex,
            model=model.name,
            role=Alias.CHALLENGER,
            not_version=ref.version,
            answer_with=None,
            actor=ACTOR,
            reason=str(evidence),
            laid_at=self._clock.now(),
        )
        held = await self._overrides.lay(override)
        model.served.pop(Alias.CHALLENGER, None)
        model.split = None
        try:
            await self._visibility.publish(model)
        except StoreUnavailable as error:  # the override is durable: a restart comes to the same answer
            log.error("ejection_not_recorded model=%s reason=%s", model.name, error)
            self._visibility.show(model)
        if held.id != override.id:  # another worker of this server saw the same, and told of it
            return
        self._metrics.ejections.labels(model.name).inc()
        log.warning("challenger_ejected version=%s reason=%s", ref, evidence)
        self._ledger.audit(
            "eject",
            actor=ACTOR,
            model=model.name,
            version=ref.version,
            reason=str(evidence),
            percent=split.percent if split else 0,
            rollout=split.rollout if split else None,
            override_id=override.id,
        )
        champion = model.champion.ref.version if model.champion else None
        self._ledger.notify(
            challenger_ejected(ref, champion, str(evidence), split.rollout if split else None)
        )
