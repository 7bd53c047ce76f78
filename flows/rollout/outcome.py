"""How a promotion ended, as a value: verdict, reason, evidence. Every entry point reports from it."""

from dataclasses import dataclass, field
from enum import StrEnum

from serving.store.outbox import Notice, Severity
from serving.store.rollouts import Rollout, State


class Verdict(StrEnum):
    PROMOTED = "promoted"
    REFUSED = "refused"
    ROLLED_BACK = "rolled_back"
    SUPERSEDED = "superseded"
    FAILED = "failed"
    JOINED = "joined"
    BUSY = "busy"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True)
class Outcome:
    """`rollout` is None where nothing was begun, because the request itself could not stand."""

    verdict: Verdict
    reason: str
    rollout: Rollout | None = None
    warnings: tuple[str, ...] = field(default=())

    @property
    def is_good(self) -> bool:
        """Whether whoever asked got what they asked for, or somebody else is getting it for them."""
        return self.verdict in (Verdict.PROMOTED, Verdict.JOINED)


def state_of(verdict: Verdict) -> State:
    """The rollout's terminal state. JOINED and BUSY leave somebody else's alone, UNAVAILABLE ours open."""
    return State(verdict.value)


def notice_of(rollout: Rollout, verdict: Verdict, reason: str) -> Notice:
    """What people are told of a finished rollout."""
    point = rollout.restore_point or {}
    return Notice(
        # Serving announces the rollback itself; this tells what became of the promotion.
        kind=(Verdict.REFUSED if verdict is Verdict.ROLLED_BACK else verdict).value,
        severity=Severity.INFO if verdict is Verdict.PROMOTED else Severity.WARNING,
        title=_TITLES[verdict].format(model=rollout.model, version=rollout.version),
        model=rollout.model,
        version=rollout.version,
        facts={
            "reason": reason,
            "rollout": rollout.id,
            "requested_by": rollout.requested_by,
            "from": point.get("champion"),
            "to": rollout.version,
        },
        dedup_key=f"rollout:{rollout.id}",
    )


_TITLES = {
    Verdict.PROMOTED: "Version {version} of {model} was promoted to champion",
    Verdict.REFUSED: "Version {version} of {model} was refused",
    Verdict.ROLLED_BACK: "Version {version} of {model} was promoted and rolled back",
    Verdict.SUPERSEDED: "The promotion of version {version} of {model} was superseded",
    Verdict.FAILED: "The promotion of version {version} of {model} failed",
}
