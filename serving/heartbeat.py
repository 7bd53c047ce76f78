"""This worker's heartbeat in the store: what it answers with, proven by a probe, once a second.

Promotions and rollbacks count as applied by what is reported here, so a fresh change is probed at
once instead of at the next regular probe. A worker is ready only once it was reported as it serves: one
that answers but is not on record would be left out of "applied everywhere". The flows' health verdicts
are fetched on the same beat.
"""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from serving.core.clock import Clock
from serving.core.errors import StoreUnavailable
from serving.core.model import Alias
from serving.followed import FollowedModel
from serving.health import Health
from serving.ledger import Ledger
from serving.readiness import Readiness
from serving.store import levels, workers
from serving.store.workers import Beat, Proof, WorkerModel

log = logging.getLogger(__name__)

_INTERVAL_SECONDS = 1.0
_LOOKS = 20  # per interval, until the first report is whole


@dataclass(frozen=True, slots=True)
class Identity:
    """How this worker is known to others."""

    worker: str
    url: str
    started_at: datetime


class Heartbeat:
    """Confined to the event loop's thread."""

    def __init__(
        self,
        identity: Identity,
        models: Mapping[str, FollowedModel],
        health: Health,
        readiness: Readiness,
        ledger: Ledger,
        clock: Clock,
    ) -> None:
        self._identity = identity
        self._models = models
        self._health = health
        self._readiness = readiness
        self._ledger = ledger
        self._clock = clock
        self._probes: dict[tuple[str, Alias], asyncio.Task[None]] = {}

    async def appear(self) -> None:
        """Report a worker that restored all it should serve, before anybody is let in."""
        if not self._readiness.unserved():
            await self._beat()

    async def run(self) -> None:
        """Beat until cancelled."""
        while True:
            await self._beat()
            await self._sleep()

    async def _beat(self) -> None:
        is_whole = not self._readiness.unserved()
        try:
            await self._turn()
        except StoreUnavailable as error:
            log.debug("beat_missed reason=%s", error)
        except Exception:  # a missed beat is visible to others as such
            log.exception("beat_failed")
        self._readiness.is_reported = self._readiness.is_reported or is_whole

    async def _sleep(self) -> None:
        """Until the next beat. The first one of a worker that serves all it should is due at once."""
        if self._readiness.is_reported:
            await asyncio.sleep(_INTERVAL_SECONDS)
            return
        for _ in range(_LOOKS):
            await asyncio.sleep(_INTERVAL_SECONDS / _LOOKS)
            if not self._readiness.unserved():
                return

    async def leave(self) -> None:
        """Say that this worker stops, so that nobody waits for it."""
        for probe in self._probes.values():
            probe.cancel()
        await asyncio.gather(*self._probes.values(), return_exceptions=True)
        try:
            await self._ledger.call(lambda engine: workers.leave(engine, self._identity.worker))
        except StoreUnavailable as error:
            log.info("left_silently reason=%s", error)

    async def _turn(self) -> None:
        self._start_probes()
        if pending := [probe for probe in self._probes.values() if not probe.done()]:
            await asyncio.wait(pending, timeout=_INTERVAL_SECONDS)
        report = self._report()
        await self._ledger.call(lambda engine: workers.beat(engine, report))
        self._health.learn(await self._ledger.call(levels.all_levels))

    def _start_probes(self) -> None:
        """Probe what is fresh. A model that hangs in its probe must not make the whole worker look dead."""
        for model in list(self._models.values()):
            for alias in (Alias.CHAMPION, Alias.CHALLENGER):
                probe = self._probes.get((model.name, alias))
                if (probe is None or probe.done()) and self._is_unproven(model, alias):
                    self._probes[model.name, alias] = asyncio.create_task(self._probe(model, alias))

    async def _probe(self, model: FollowedModel, alias: Alias) -> None:
        try:
            if alias is Alias.CHAMPION:
                await self._health.probe(model)
            else:
                await self._health.probe_challenger(model)
        except Exception:  # a probe that failed proves nothing, and is tried again
            log.exception("probe_failed model=%s alias=%s", model.name, alias)

    def _is_unproven(self, model: FollowedModel, alias: Alias) -> bool:
        version = model.served.get(alias)
        if version is None:
            return False
        is_champion = alias is Alias.CHAMPION
        proof = self._proof(model, alias)
        changed_at = model.swapped_at if is_champion else model.split_since
        return proof is None or (changed_at is not None and proof.started_at < changed_at)

    def _proof(self, model: FollowedModel, alias: Alias) -> Proof | None:
        """The last proof, if it is of the version served now."""
        proofs = self._health.proofs if alias is Alias.CHAMPION else self._health.challenger_proofs
        proof, version = proofs.get(model.name), model.served.get(alias)
        is_of_it = proof is not None and version is not None and proof.version == version.ref.version
        return proof if is_of_it else None

    def _report(self) -> Beat:
        return Beat(
            worker=self._identity.worker,
            url=self._identity.url,
            started_at=self._identity.started_at,
            beat_at=self._clock.now(),
            models={name: self._model(model) for name, model in self._models.items()},
        )

    def _model(self, model: FollowedModel) -> WorkerModel:
        champion, challenger, split = model.champion, model.challenger, model.shown_split
        return WorkerModel(
            champion=champion.ref.version if champion else None,
            proof=self._proof(model, Alias.CHAMPION),
            refused=_at_fault(model, Alias.CHAMPION),
            challenger=challenger.ref.version if challenger else None,
            percent=split.percent if split else 0,
            rollout=split.rollout if split else None,
            challenger_proof=self._proof(model, Alias.CHALLENGER),
            challenger_refused=_at_fault(model, Alias.CHALLENGER),
        )


def _at_fault(model: FollowedModel, alias: Alias) -> dict[str, str]:
    """A refused version with its reason. One that could not be fetched yet is tried again, not refused."""
    refusal = model.refusals.get(alias)
    if refusal is None or model.reported.get(alias) != refusal.reason:
        return {}
    return {refusal.key.ref.version: refusal.reason}
