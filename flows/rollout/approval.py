"""The approval gate of a staged rollout: when a person is asked, until when, which answer counts; pure."""

from datetime import datetime, timedelta

from flows.rollout.policy import Spec, shown
from flows.rollout.status import Status, Step
from serving.store.rollouts import Asked


def is_wanted(spec: Spec, status: Status, stage: int) -> bool:
    """Whether a person must allow this stage first."""
    is_gate = spec.approve_before is not None and spec.percents[stage] >= spec.approve_before
    return is_gate and status.approved_by is None


def wish(spec: Spec, stage: int, now: datetime) -> str:
    """What is asked for, from now on."""
    until = now + timedelta(seconds=spec.deadline_seconds)
    before = shown(spec.percents[stage])
    return f"approval is wanted before {before}, until {until.isoformat(timespec='seconds')}"


def is_expired(spec: Spec, status: Status) -> bool:
    """Whether the deadline has passed, as far as somebody looked on."""
    return status.rested_seconds >= spec.deadline_seconds


def is_given(spec: Spec, status: Status, asked: Asked) -> bool:
    """Whether the approval is of what waits for it now, and was given in time.

    One given of an earlier state does not count: its evidence was another.
    """
    is_of_this = (asked.step, asked.stage) == (str(status.step), status.stage)
    is_waiting = status.step is Step.APPROVAL
    return is_waiting and is_of_this and (asked.until is None or asked.at < asked.until)
