"""One rollback from its row to its announced end, whoever asked for it. Knows no Prefect.

Takes the model's lease from whoever has it, because a way back waits for no promotion. Safe to run twice:
the later run has the lease, and the earlier one finds that out at its next write.
"""

from collections.abc import Callable
from dataclasses import dataclass

from flows.rollout.keeper import Keeper
from flows.rollout.retreat import Retreat, waits_for_serving
from flows.rollout.retreat_parts import Ended, RetreatParts
from serving.core.errors import ChangeRefused, NotServed
from serving.core.model import Alias
from serving.store import rollbacks
from serving.store.leases import Leases
from serving.store.outbox import Notice, Severity
from serving.store.rollbacks import RollbackRecord, State, Strategy

_REGISTRY_SECONDS = 30.0
_LOOK_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Outcome:
    """`is_ours` tells whether this run brought it to its end; otherwise it was over, or somebody has it."""

    record: RollbackRecord
    reason: str
    is_ours: bool

    @property
    def is_good(self) -> bool:
        return self.record.state in (State.COMPLETED, State.OPEN)


def work(
    record: RollbackRecord,
    parts: RetreatParts,
    leases: Leases,
    holder: str,
    report: Callable[[str], None],
) -> Outcome:
    """Carry an open rollback to its end; it stays open with `RegistryUnavailable` and `StoreUnavailable`."""
    if record.state.is_terminal:
        return Outcome(record, f"it is over: {record.state}, {record.message}", is_ours=False)
    if waits_for_serving(record):
        _await_serving(record, parts)
    keeper = Keeper(leases, leases.preempt(f"model:{record.model}", holder))
    with keeper.working():
        retreat = Retreat(parts, rollbacks.get(parts.engine, record.id), keeper, report)
        try:
            ended = retreat.run()
        except ChangeRefused as refusal:
            return _overtaken(parts, record, refusal)
        except NotServed as error:
            ended = Ended(State.FAILED, str(error))
        now = parts.clock.now()
        finished = rollbacks.finish(
            parts.engine,
            retreat.record,
            ended.state,
            ended.message,
            holder,
            now,
            notice_of(record, ended.state, ended.message),
        )
    return Outcome(finished, ended.message, is_ours=True)


def notice_of(record: RollbackRecord, state: State, message: str) -> Notice | None:
    """What people are told; serving has announced its own rollbacks already."""
    if record.strategy is not Strategy.GRADUAL and state is State.COMPLETED:
        return None
    ended = {
        State.COMPLETED: "was rolled back by stages from version {left} to {target}",
        State.FAILED: "could not be rolled back from version {left} to {target}",
        State.SUPERSEDED: "was on its way back from version {left} to {target} when somebody chose otherwise",
    }[state]
    return Notice(
        kind="rolled_back" if state is State.COMPLETED else f"rollback_{state}",
        severity=Severity.WARNING if state is State.SUPERSEDED else Severity.CRITICAL,
        title=f"{record.model} {ended.format(left=record.from_version, target=record.to_version)}: "
        f"{record.reason if state is State.COMPLETED else message}",
        model=record.model,
        version=record.from_version,
        facts={
            "from": record.from_version,
            "to": record.to_version,
            "strategy": str(record.strategy),
            "actor": record.actor,
            "reason": record.reason,
            "rollback": record.id,
        },
        dedup_key=f"rollback:{record.id}",
    )


def _overtaken(parts: RetreatParts, record: RollbackRecord, refusal: ChangeRefused) -> Outcome:
    return Outcome(rollbacks.get(parts.engine, record.id), str(refusal), is_ours=False)


def _await_serving(record: RollbackRecord, parts: RetreatParts) -> None:
    """Serving moved traffic and is telling the registry; give it the time for that."""
    deadline = parts.clock.monotonic() + _REGISTRY_SECONDS
    while parts.registry.alias(record.model, Alias.CHAMPION) == record.from_version:
        if parts.clock.monotonic() >= deadline:
            return
        parts.pause(_LOOK_SECONDS)
