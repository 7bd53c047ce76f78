"""What the plan of a staged rollout goes by, and what it decides: plain values."""

from dataclasses import dataclass
from enum import StrEnum

from flows.rollout.judge import Judgement
from flows.rollout.status import Status
from flows.rollout.verify import Applied
from serving.store.rollouts import Asked


class Act(StrEnum):
    """What to do once the decision's status is stored."""

    WAIT = "wait"
    NAME = "name"
    SET = "set"
    REST = "rest"
    PASS = "pass"
    END = "end"


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose rollout it is; `champion` is the version it began beside.

    `was_challenger` tells whether alias `challenger` named it when it was asked for.
    """

    rollout: str
    model: str
    version: str
    champion: str
    was_challenger: bool = False


@dataclass(frozen=True, slots=True)
class Named:
    """What the registry shows."""

    champion: str | None
    challenger: str | None
    tag: str | None


@dataclass(frozen=True, slots=True)
class Facts:
    """What was seen in one look; None where it could not be told. `ejected` is serving's reason."""

    named: Named | None
    follows: Applied
    judgement: Judgement | None = None
    ejected: str | None = None
    asked: Asked | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    status: Status
    act: Act
