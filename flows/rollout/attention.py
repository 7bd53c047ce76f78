"""What nobody is handling: pure, over the registry's challengers and the store's rollouts.

An event that was lost, a run that was killed, a verdict the registry was never told: each is seen
here by comparing states, not by remembering what happened.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from flows.rollout.status import Step
from serving.store.rollouts import Rollout
from serving.store.sightings import Sighting

# Serving's event starts the promotion within about 6 s; before this there is nothing to miss.
MISSED_AFTER = timedelta(seconds=15)
# Longer than any step of a living promotion goes without noting progress.
ABANDONED_AFTER = timedelta(seconds=90)


_RESTING = {str(step) for step in Step if step.is_resting}


class Action(StrEnum):
    NONE = "none"
    START = "start"
    TAKE_UP = "take_up"
    TIDY = "tidy"


@dataclass(frozen=True, slots=True)
class Attention:
    """What to do about one model. `rollout` is the one to take up or to tidy after."""

    action: Action
    reason: str = ""
    rollout: Rollout | None = None


def attention(
    challenger: Sighting | None, open_rollout: Rollout | None, decided: Rollout | None, now: datetime
) -> Attention:
    """What a model needs. `decided` is the last rollout of the challenger's version that has ended."""
    if open_rollout is not None:
        if (command := _unheeded(open_rollout)) is not None:
            return Attention(Action.TAKE_UP, f"somebody asked to {command} it", open_rollout)
        idle = now - open_rollout.updated_at
        if idle >= ABANDONED_AFTER:
            reason = f"rollout {open_rollout.id} made no progress for {idle.total_seconds():.0f} s"
            return Attention(Action.TAKE_UP, reason, open_rollout)
        return Attention(Action.NONE)
    if challenger is None:
        return Attention(Action.NONE)
    if _answers(decided, challenger):
        return Attention(Action.TIDY, "alias challenger outlived its verdict", decided)
    waiting = now - challenger.seen_at
    if waiting >= MISSED_AFTER:
        seconds = waiting.total_seconds()
        return Attention(Action.START, f"challenger {challenger.version} was waiting for {seconds:.0f} s")
    return Attention(Action.NONE)


def _unheeded(rollout: Rollout) -> str | None:
    """A command for a rollout that rests: nobody works on it who would see it."""
    status, asked = rollout.status or {}, rollout.asked
    if asked is None or asked.id == status.get("heeded") or status.get("step") not in _RESTING:
        return None
    return str(asked.command)


def _answers(decided: Rollout | None, challenger: Sighting) -> bool:
    """Whether the verdict came after the alias was set: an older one answered an older wish."""
    return (
        decided is not None
        and decided.version == challenger.version
        and decided.finished_at is not None
        and decided.finished_at >= challenger.seen_at
    )
