"""A rollback as somebody asks for it: where it goes, who carries it out, and how far it is.

Instant and emergency are this server's own, at once; an emergency with a version needs nothing else to be
up. A gradual one, and what a restore point holds beside its champion, is on record before Prefect is asked.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from serving.core.clock import Clock
from serving.core.errors import ChangeRefused, FlowsUnavailable, NotServed, StoreUnavailable
from serving.core.model import Alias
from serving.followed import FollowedModel
from serving.ledger import Ledger
from serving.orders import Orders
from serving.overrides import Overrides
from serving.rollback import Rollbacks
from serving.rollback_book import RollbackBook
from serving.rollback_record import Way
from serving.store import destination, rollbacks, workers
from serving.store.destination import Wanted
from serving.store.rollbacks import RollbackRecord, State, Step, Strategy
from serving.store.text import JsonValue
from serving.store.workers import Beat

log = logging.getLogger(__name__)

DEPLOYMENT = "roll-back-model/roll-back-model"
_STORE_WAIT_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A rollback as it was asked for. `options` are those of a gradual one: `stages` and `stage_seconds`."""

    model: str
    strategy: Strategy
    wanted: Wanted
    actor: str
    reason: str
    allow_signature_change: bool = False
    options: Mapping[str, JsonValue] = field(default_factory=dict)


class Retreat:
    """Confined to the event loop's thread."""

    def __init__(
        self,
        models: Mapping[str, FollowedModel],
        rollbacks: Rollbacks,
        book: RollbackBook,
        overrides: Overrides,
        ledger: Ledger,
        orders: Orders,
        clock: Clock,
    ) -> None:
        self._models = models
        self._rollbacks = rollbacks
        self._book = book
        self._overrides = overrides
        self._ledger = ledger
        self._orders = orders
        self._clock = clock
        self._tasks: set[asyncio.Task[None]] = set()

    async def begin(self, asked: Asked) -> RollbackRecord:
        """Carry it out, or have it carried out.

        Raises:
            NotServed: no such model, version or restore point, or nothing is on record of that time.
            ChangeRefused: the target is not one to go back to, or another rollback is under way.
            StoreUnavailable: what was asked for is in the store alone, or could not be made durable.
            FlowsUnavailable: a gradual rollback is on record and waits for Prefect.
        """
        goal = await self._goal(asked)
        if asked.strategy is Strategy.GRADUAL:
            return await self._order_gradual(asked, goal)
        way = Way(
            strategy=asked.strategy,
            actor=asked.actor,
            reason=asked.reason,
            version=goal.version if goal is not None else None,
            restore_point=goal.point.id if goal is not None and goal.point is not None else None,
            allow_signature_change=asked.allow_signature_change,
        )
        taken = await self._rollbacks.take(asked.model, way)
        if taken.state is State.OPEN:
            task = asyncio.create_task(self._order_rest(taken))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return taken

    async def status(self, rollback_id: str) -> dict[str, Any]:
        """How far it is. Raises `NotServed`, or `StoreUnavailable` where only the store could know."""
        record = await self._book.find(rollback_id)
        model = self._models.get(record.model)
        champion = model.served.get(Alias.CHAMPION) if model is not None else None
        laid = self._overrides.laid_for(record.model, Alias.CHAMPION)
        replicas = await self._replicas(record)
        return {
            "rollback_id": record.id,
            "model": record.model,
            "from": record.from_version,
            "to": record.to_version,
            "strategy": str(record.strategy),
            "restore_point": record.restore_point,
            "actor": record.actor,
            "reason": record.reason,
            "at": record.created_at.isoformat(),
            "state": str(record.state),
            "step": record.step,
            "success": record.state is State.COMPLETED if record.state.is_terminal else None,
            "message": record.message,
            "serving": champion.ref.version if champion else None,
            # Traffic moves before the registry is told; an override in force is one it does not know of yet.
            "registry": "pending" if laid is not None and laid.id == record.id else "settled",
            "replicas": replicas,
            "verified": None if not replicas else all(replica["follows"] for replica in replicas),
            "evidence": dict(record.evidence),
            "completed_at": record.finished_at.isoformat() if record.finished_at else None,
        }

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _goal(self, asked: Asked) -> destination.Destination | None:
        wanted = asked.wanted
        if wanted.version is not None:  # known without asking anybody
            return destination.Destination(wanted.version, None)
        if wanted == Wanted():
            return None
        try:
            async with asyncio.timeout(_STORE_WAIT_SECONDS):
                return await self._ledger.look(
                    lambda engine: destination.resolve(engine, asked.model, wanted)
                )
        except TimeoutError:
            problem = f"it did not answer within {_STORE_WAIT_SECONDS:g} s"
            raise StoreUnavailable(
                f"restore points are in the state store, and {problem}: name a version"
            ) from None

    async def _order_gradual(self, asked: Asked, goal: destination.Destination | None) -> RollbackRecord:
        followed = self._models.get(asked.model)
        if followed is None or followed.champion is None:
            raise NotServed(
                f"model '{asked.model}' has no champion to roll back", exists=sorted(self._models)
            )
        left, target = _ends(followed, goal.version if goal is not None else None)
        now = self._clock.now()
        record = RollbackRecord(
            id=uuid4().hex,
            model=asked.model,
            strategy=Strategy.GRADUAL,
            from_version=left,
            to_version=target,
            restore_point=goal.point.id if goal is not None and goal.point is not None else None,
            state=State.OPEN,
            step=Step.REQUESTED,
            actor=asked.actor,
            reason=asked.reason,
            options={**asked.options, "allow_signature_change": asked.allow_signature_change},
            created_at=now,
            updated_at=now,
        )
        entered = await self._ledger.call(lambda engine: rollbacks.enter(engine, record))
        try:
            await self._orders.start(DEPLOYMENT, {"rollback_id": entered.id})
        except FlowsUnavailable as error:
            raise FlowsUnavailable(error.problem, recorded=f"rollback {entered.id}") from None
        return entered

    async def _order_rest(self, taken: RollbackRecord) -> None:
        """Have the rest of a restore point put back; whoever misses this order finds the open row."""
        try:
            await self._ledger.call(lambda engine: rollbacks.note_taken(engine, taken))
            await self._orders.start(DEPLOYMENT, {"rollback_id": taken.id})
        except (FlowsUnavailable, StoreUnavailable) as error:
            log.warning("rest_of_rollback_waits id=%s reason=%s", taken.id, error)

    async def _replicas(self, record: RollbackRecord) -> list[dict[str, Any]]:
        """What each live replica answers with; empty while the store is away."""
        now = self._clock.now()
        try:
            async with asyncio.timeout(_STORE_WAIT_SECONDS):
                beats = await self._ledger.look(lambda engine: workers.live(engine, now))
        except (StoreUnavailable, TimeoutError):
            return []
        return replicas_of(beats, record)


def replicas_of(beats: Sequence[Beat], record: RollbackRecord) -> list[dict[str, Any]]:
    """Each replica by what it proved since the rollback began: a probe, of the golden set if there is one."""
    told = []
    for beat in beats:
        model = beat.models.get(record.model)
        proof = model.proof if model is not None else None
        is_new = proof is not None and proof.started_at >= record.created_at
        champion = model.champion if model is not None else None
        told.append(
            {
                "worker": beat.worker,
                "url": beat.url,
                "version": champion,
                "probed_at": proof.started_at.isoformat() if proof is not None else None,
                "follows": is_new and proof is not None and champion == proof.version == record.to_version,
            }
        )
    return told


def _ends(followed: FollowedModel, version: str | None) -> tuple[str, str]:
    """From which version to which: a challenger with a share goes before the champion itself does."""
    assert followed.champion is not None
    champion = followed.champion.ref.version
    challenger = followed.served.get(Alias.CHALLENGER)
    if challenger is not None and challenger.ref.version != champion and version in (None, champion):
        return challenger.ref.version, champion
    if version is None:
        record = followed.previous_record
        if record is None:
            raise ChangeRefused(
                f"'{followed.name}' has no earlier healthy version; name one with \"version\""
            )
        version = record.version
    if version == champion:
        raise ChangeRefused(f"version {version} of '{followed.name}' answers already")
    return champion, version
