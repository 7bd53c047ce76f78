"""A way back as it is asked for, and its row in the books: of what was done, or of the override it left."""

from dataclasses import dataclass
from datetime import datetime
from uuid import uuid4

from serving.pool import LoadedVersion
from serving.store.overrides import Override
from serving.store.rollbacks import RollbackRecord, State, Step, Strategy


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """A way back. `version` None means the last good one; with `restore_point`, what else that point holds
    is put back afterwards by the flow.
    """

    strategy: Strategy
    actor: str
    reason: str
    version: str | None = None
    restore_point: str | None = None
    allow_signature_change: bool = False


def taken(
    model: str, way: Way, champion: LoadedVersion, target: LoadedVersion, now: datetime
) -> RollbackRecord:
    """With a restore point it is open until the flow has put the rest back."""
    is_done = way.restore_point is None
    return RollbackRecord(
        id=uuid4().hex,
        model=model,
        strategy=way.strategy,
        from_version=champion.ref.version,
        to_version=target.ref.version,
        restore_point=way.restore_point,
        state=State.COMPLETED if is_done else State.OPEN,
        step=Step.MOVED,
        actor=way.actor,
        reason=way.reason,
        created_at=now,
        updated_at=now,
        finished_at=now if is_done else None,
    )


def recovered(override: Override, now: datetime) -> RollbackRecord:
    """Of a server that was killed right after it had laid `override`; how it was asked for is not known."""
    return RollbackRecord(
        id=override.id,
        model=override.model,
        strategy=Strategy.INSTANT,
        from_version=override.not_version,
        to_version=str(override.answer_with),
        restore_point=None,
        state=State.COMPLETED,
        step=Step.MOVED,
        actor=override.actor,
        reason=override.reason,
        created_at=override.laid_at,
        updated_at=now,
        message="noted after a restart",
        finished_at=now,
    )
