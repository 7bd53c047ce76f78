"""What time of a stage counts: only while every worker follows the split and evidence was read.

Neither an outage of the watcher nor a step of the clock is observation, or time in which somebody waited.
"""

from dataclasses import replace
from datetime import datetime

from flows.rollout import verify
from flows.rollout.facts import Facts
from flows.rollout.status import Status, Step
from serving.store.rollouts import LONGEST_REST_SECONDS

# A longer pause between two looks is an outage of the watcher.
LONGEST_LOOK_SECONDS = 10.0


def counted(status: Status, facts: Facts, now: datetime) -> Status:
    """The status with the time since the last look, as observation or not."""
    passed = (now - status.looked_at).total_seconds() if status.looked_at is not None else 0.0
    if passed < 0:
        status = _begun_anew(status, now)
    rested = status.rested_seconds + min(max(passed, 0.0), LONGEST_REST_SECONDS)
    status = replace(status, looked_at=now, rested_seconds=rested if status.step.is_resting else 0.0)
    if facts.judgement is not None:
        status = replace(status, metrics=tuple(each.as_json() for each in facts.judgement.measurements))
    is_watched = (
        status.step is Step.OBSERVE
        and 0 <= passed <= LONGEST_LOOK_SECONDS
        and facts.named is not None
        and facts.judgement is not None
        and facts.follows.verdict is verify.Verdict.APPLIED
    )
    if is_watched:
        observed, window = status.observed_seconds + passed, status.window_seconds + passed
        return replace(status, observed_seconds=observed, window_seconds=window, unobserved_seconds=0.0)
    lost = min(max(passed, 0.0), LONGEST_LOOK_SECONDS)
    return replace(status, unobserved_seconds=status.unobserved_seconds + lost)


def _begun_anew(status: Status, now: datetime) -> Status:
    """The stage from its beginning, after the clock was stepped back: what was counted lies in its future."""
    return replace(
        status,
        set_at=min(status.set_at, now) if status.set_at is not None else None,
        began=min(status.began, now) if status.began is not None else None,
        since=now if status.since is not None else None,
        rested_at=min(status.rested_at, now) if status.rested_at is not None else None,
        window_since=now if status.window_since is not None else None,
        observed_seconds=0.0,
        window_seconds=0.0,
        patience_seconds=0.0,
    )
