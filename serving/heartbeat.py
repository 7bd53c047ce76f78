"""This worker's heartbeat in the store: what it answers with, proven by a probe, once a second.

Promotions and rollbacks count as applied by what is reported here, so a fresh change is probed at
once instead of at the next regular probe. The flows' health verdicts are fetched on the same beat.
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
from serving.store import levels, workers
from serving.store.workers import Beat, WorkerModel

log = logging.getLogger(__name__)

_INTERVAL_SECONDS = 1.0


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
        ledger: Ledger,
        clock: Clock,
    ) -> None:
        self._identity = identity
        self._models = models
        self._health = health
        self._ledger = ledger
        self._clock = clock
        self._probes: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Beat until cancelled."""
        while True:
            try:
                await self._turn()
            except StoreUnavailable as error:
                log.debug("beat_missed reason=%s", error)
            except Exception:  # a missed beat is visible to others as such
                log.exception("beat_failed")
            await asyncio.sleep(_INTERVAL_SECONDS)

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
            probe = self._probes.get(model.name)
            if (probe is None or probe.done()) and self._is_unproven(model):
                self._probes[model.name] = asyncio.create_task(self._probe(model))

    async def _probe(self, model: FollowedModel) -> None:
        try:
            await self._health.probe(model)
        except Exception:  # a probe that failed proves nothing, and is tried again
            log.exception("probe_failed model=%s", model.name)

    def _is_unproven(self, model: FollowedModel) -> bool:
        proof = self._health.proofs.get(model.name)
        if model.champion is None:
            return False
        if proof is None or proof.version != model.champion.ref.version:
            return True
        return model.swapped_at is not None and proof.started_at < model.swapped_at

    def _report(self) -> Beat:
        return Beat(
            worker=self._identity.worker,
            url=self._identity.url,
            started_at=self._identity.started_at,
            beat_at=self._clock.now(),
            models={name: self._model(model) for name, model in self._models.items()},
        )

    def _model(self, model: FollowedModel) -> WorkerModel:
        champion = model.champion
        refusal = model.refusals.get(Alias.CHAMPION)
        # A version that could not be fetched yet is tried again; only one that is at fault was refused.
        is_at_fault = refusal is not None and model.reported.get(Alias.CHAMPION) == refusal.reason
        proof = self._health.proofs.get(model.name)
        is_proven = proof is not None and champion is not None and proof.version == champion.ref.version
        return WorkerModel(
            champion=champion.ref.version if champion else None,
            proof=proof if is_proven else None,
            refused={refusal.key.ref.version: refusal.reason} if refusal and is_at_fault else {},
        )
