"""How a promotion ended, as a value: verdict, reason, evidence. Every entry point reports from it."""

from dataclasses import dataclass, field
from enum import StrEnum

from flows.rollout.policy import shown
from flows.rollout.status import Hold, Status
from serving.store.outbox import Notice, Severity
from serving.store.rollouts import Phase, Rollout, State


class Verdict(StrEnum):
    PROMOTED = "promoted"
    REFUSED = "refused"
    ROLLED_BACK = "rolled_back"
    SUPERSEDED = "superseded"
    FAILED = "failed"
    JOINED = "joined"
    BUSY = "busy"
    UNAVAILABLE = "unavailable"
    HELD = "held"


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
    """The rollout's terminal state.

    JOINED and BUSY leave somebody else's alone, UNAVAILABLE and HELD ours open.
    """
    return State(verdict.value)


def notice_of(rollout: Rollout, verdict: Verdict, reason: str) -> Notice:
    """What people are told of a finished rollout."""
    point = rollout.restore_point or {}
    is_staged = rollout.spec is not None and rollout.phase in (Phase.RESTORE_POINT, Phase.STAGES_PASSED)
    is_trial = verdict is Verdict.ROLLED_BACK and is_staged
    return Notice(
        # Serving announces the rollback of a champion itself; this tells what became of the promotion.
        kind=(Verdict.REFUSED if verdict is Verdict.ROLLED_BACK and not is_trial else verdict).value,
        severity=Severity.INFO if verdict is Verdict.PROMOTED else Severity.WARNING,
        title=(_OF_TRIAL if is_trial else _TITLES)[verdict].format(
            model=rollout.model, version=rollout.version
        ),
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


def notice_of_rest(rollout: Rollout, status: Status, percent: int) -> Notice:
    """What people are told of a rollout that waits for one of them; of a shift, that it is the data's."""
    step, reason = str(status.step), status.reason
    is_shift = status.hold is Hold.SHIFT
    return Notice(
        kind="data_shifted" if is_shift else f"rollout_{step}",
        severity=Severity.INFO if step == "paused" else Severity.WARNING,
        title=(_OF_SHIFT if is_shift else _OF_REST).format(
            version=rollout.version, model=rollout.model, rests=_RESTS[step], at=shown(percent)
        ),
        model=rollout.model,
        version=rollout.version,
        facts={
            "reason": reason,
            "rollout": rollout.id,
            "percent": percent,
            "next_step": f"signalbox rollouts {_NEXT[step]} {rollout.id[:12]}",
        },
        dedup_key=f"rollout:{rollout.id}:{step}:{percent}",
    )


_OF_REST = "The rollout of version {version} of {model} is {rests} at {at}"
_OF_SHIFT = "The data of {model} has shifted: the rollout of version {version} is {rests} at {at}"
_RESTS = {"held": "held", "paused": "paused", "approval": "waiting for approval"}
_NEXT = {"held": "resume|abort", "paused": "resume|abort", "approval": "approve|abort"}
_TITLES = {
    Verdict.PROMOTED: "Version {version} of {model} was promoted to champion",
    Verdict.REFUSED: "Version {version} of {model} was refused",
    Verdict.ROLLED_BACK: "Version {version} of {model} was promoted and rolled back",
    Verdict.SUPERSEDED: "The promotion of version {version} of {model} was superseded",
    Verdict.FAILED: "The promotion of version {version} of {model} failed",
}
# While it was only a challenger.
_OF_TRIAL = {Verdict.ROLLED_BACK: "Version {version} of {model} was rolled back during its rollout"}
