"""The next step of a staged rollout: pure, one step per call, over what is wanted, known and seen.

Nothing here remembers or acts: whoever calls stores the status first, does what the decision says, and
calls again. Time counts as observation only while every worker follows the split and evidence was read.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from flows.rollout import approval, verify
from flows.rollout.facts import Act, Decision, Facts, Subject
from flows.rollout.judge import Judgement
from flows.rollout.measurement import Verdict
from flows.rollout.observation import counted
from flows.rollout.outcome import Verdict as End
from flows.rollout.policy import Spec, shown
from flows.rollout.status import Hold, Status, Step
from serving.core.traffic import Split, read_tag
from serving.store.rollouts import Asked, Command

FOLLOW_SECONDS = 60.0


def advance(subject: Subject, spec: Spec, status: Status, facts: Facts, now: datetime) -> Decision:
    """The next step."""
    if status.step in (Step.ENDING, Step.PASSED):
        return Decision(status, Act.END if status.step is Step.ENDING else Act.PASS)
    status = counted(status, facts, now)
    if (ended := _overtaken(subject, status, facts)) is not None:
        return ended
    if facts.asked is not None and facts.asked.id != status.heeded:
        commanded = _heeded(status, facts.asked, spec, now)
        if commanded is not None:
            return commanded
        status = replace(status, heeded=facts.asked.id)
    return _STEPS[status.step](spec, status, facts, now)


def was_named(status: Status) -> Status:
    """After alias challenger names the version."""
    return replace(status, step=Step.SET, named=True)


def was_set(status: Status, tag: str, now: datetime) -> Status:
    """After the traffic tag was written."""
    return replace(status, step=Step.VERIFY, tag=tag, set_at=now, unobserved_seconds=0.0)


def _overtaken(subject: Subject, status: Status, facts: Facts) -> Decision | None:
    """Whether serving or a person has decided otherwise."""
    if facts.ejected is not None:
        return _end(status, End.ROLLED_BACK, f"serving ejected it: {facts.ejected}")
    named = facts.named
    if named is None:
        return None
    if named.champion == subject.version:
        return _end(status, End.SUPERSEDED, "alias champion was moved to it by hand")
    if named.champion != subject.champion:
        return _end(status, End.SUPERSEDED, f"alias champion was moved to {named.champion or 'nothing'}")
    is_ours = subject.was_challenger or status.entered or status.step is Step.SET
    if named.challenger == subject.version or not is_ours:
        return None
    if named.challenger is None:
        return _end(status, End.ROLLED_BACK, "alias challenger was deleted, which aborts the rollout")
    return _end(status, End.SUPERSEDED, f"alias challenger was moved to {named.challenger}")


def _heeded(status: Status, asked: Asked, spec: Spec, now: datetime) -> Decision | None:
    """What a person's command changes; None where it changes nothing at this step."""
    heeded = replace(status, heeded=asked.id)
    if asked.command is Command.ABORT:
        return _end(heeded, End.ROLLED_BACK, f"aborted by {asked.by}")
    if asked.command is Command.PAUSE and status.step is not Step.PAUSED:
        return _rest(heeded, Step.PAUSED, f"paused by {asked.by}", now)
    if asked.command is Command.APPROVE and approval.is_given(spec, status, asked):
        return _enter(replace(heeded, approved_by=asked.by), spec, now)
    if asked.command is Command.RESUME and status.step in (Step.HELD, Step.PAUSED):
        return _resumed(heeded, now)
    return None


def _resumed(status: Status, now: datetime) -> Decision:
    """Set the split again, which finds out what became of it, and have a whole deadline's patience more."""
    step = Step.SET if status.is_known else Step.NAME
    patience = status.observed_seconds
    status = replace(status, step=step, hold=None, reason="", patience_seconds=patience, rested_at=None)
    return Decision(replace(status, unobserved_seconds=0.0), Act.WAIT)


def _name(spec: Spec, status: Status, facts: Facts, now: datetime) -> Decision:
    if approval.is_wanted(spec, status, 0):
        return _rest(status, Step.APPROVAL, approval.wish(spec, 0, now), now)
    return Decision(status, Act.NAME)


def _set(spec: Spec, status: Status, facts: Facts, now: datetime) -> Decision:
    return Decision(status, Act.SET)


def _verify(spec: Spec, status: Status, facts: Facts, now: datetime) -> Decision:
    if (stopped := _untrue(status, facts, now)) is not None:
        return stopped
    if facts.follows.verdict is verify.Verdict.APPLIED:
        # A stage that was interrupted goes on with the evidence it has.
        since = status.since or now
        window = status.window_since or since
        seen = replace(status, step=Step.OBSERVE, since=since, window_since=window, unobserved_seconds=0.0)
        return Decision(replace(seen, began=status.began or since), Act.WAIT)
    if status.unobserved_seconds >= FOLLOW_SECONDS:
        reason = f"not every worker followed within {FOLLOW_SECONDS:.0f} s: {facts.follows}"
        return _end(status, End.FAILED, reason)
    return Decision(status, Act.WAIT)


def _observe(spec: Spec, status: Status, facts: Facts, now: datetime) -> Decision:
    if (stopped := _untrue(status, facts, now)) is not None:
        return stopped
    judgement = facts.judgement
    if judgement is None:
        return Decision(status, Act.WAIT)
    if judgement.verdict is Verdict.FAIL:
        return _failed(spec, status, judgement, now)
    if judgement.shifts:
        return _shifted(status, judgement, now)
    if status.unobserved_seconds >= spec.deadline_seconds:
        reason = f"not observed for {status.unobserved_seconds:.0f} s: {facts.follows}"
        return _rest(status, Step.HELD, reason, now, Hold.EVIDENCE)
    if judgement.verdict is Verdict.SUCCESS and _is_long_enough(spec, status):
        return _next(spec, _recorded(spec, status, judgement, now), now)
    if status.observed_seconds - status.patience_seconds >= spec.deadline_seconds:
        reason = f"no verdict after {status.observed_seconds:.0f} s: {judgement.reason}"
        return _rest(status, Step.HELD, reason, now, Hold.EVIDENCE)
    return Decision(status, Act.WAIT)


def _held(spec: Spec, status: Status, facts: Facts, now: datetime) -> Decision:
    """Still judged: what fails goes back, and evidence that came late is evidence."""
    judgement = facts.judgement
    if judgement is not None and judgement.verdict is Verdict.FAIL and status.since is not None:
        return _end(status, End.ROLLED_BACK, _blame(spec, status, judgement))
    is_waiting = status.step is Step.HELD and status.hold is not Hold.TRAFFIC
    is_cleared = judgement is not None and judgement.verdict is Verdict.SUCCESS and not judgement.shifts
    if is_waiting and is_cleared and _untrue(status, facts, now) is None:
        return Decision(replace(status, step=Step.OBSERVE, hold=None, reason="", rested_at=None), Act.WAIT)
    return Decision(status, Act.REST)


def _approval(spec: Spec, status: Status, facts: Facts, now: datetime) -> Decision:
    judgement = facts.judgement
    if judgement is not None and judgement.verdict is Verdict.FAIL and status.since is not None:
        return _end(status, End.ROLLED_BACK, _blame(spec, status, judgement))
    if approval.is_expired(spec, status):
        return _end(status, End.REFUSED, f"nobody approved it within {spec.deadline_seconds:.0f} s")
    return Decision(status, Act.REST)


def _untrue(status: Status, facts: Facts, now: datetime) -> Decision | None:
    """Whether the split is refused, or no longer the one that was written. A dead rollout's is set anew."""
    if facts.follows.verdict is verify.Verdict.REFUSED:
        return _end(status, End.ROLLED_BACK, str(facts.follows))
    if facts.named is not None and facts.named.tag != status.tag:
        if _is_of_another(facts.named.tag, status.tag):
            return Decision(replace(status, step=Step.SET, reason="", hold=None, rested_at=None), Act.WAIT)
        reason = f"the traffic tag was changed by hand to {facts.named.tag or 'nothing'}"
        return _rest(status, Step.HELD, reason, now, Hold.TRAFFIC)
    return None


def _is_of_another(found: str | None, ours: str | None) -> bool:
    """Whether the tag was written for another rollout: that one is over, so its write was late."""
    late, own = read_tag(found), read_tag(ours)
    if not isinstance(late, Split) or not isinstance(own, Split):
        return False
    return late.rollout not in (None, own.rollout)


def _failed(spec: Spec, status: Status, judgement: Judgement, now: datetime) -> Decision:
    """At once, but at 100 %, where there is no champion beside it, only after several windows in a row."""
    if status.stage < spec.last:
        return _end(status, End.ROLLED_BACK, _blame(spec, status, judgement))
    if status.window_seconds < spec.stage_seconds:
        return Decision(status, Act.WAIT)
    failed = replace(status, failed_windows=status.failed_windows + 1, window_since=now, window_seconds=0.0)
    if failed.failed_windows >= spec.policy.final_windows:
        return _end(failed, End.ROLLED_BACK, _blame(spec, status, judgement))
    return Decision(failed, Act.WAIT)


def _shifted(status: Status, judgement: Judgement, now: datetime) -> Decision:
    what = " and ".join(judgement.shifts)
    reason = f"{what} of both versions are off the champion's past alike: look at the data, not the version"
    return _rest(status, Step.HELD, reason, now, Hold.SHIFT)


def _is_long_enough(spec: Spec, status: Status) -> bool:
    seconds = status.window_seconds if status.stage == spec.last else status.observed_seconds
    return seconds >= spec.stage_seconds


def _next(spec: Spec, status: Status, now: datetime) -> Decision:
    if status.stage == spec.last:
        return Decision(replace(status, step=Step.PASSED, reason="every stage passed"), Act.PASS)
    if approval.is_wanted(spec, status, status.stage + 1):
        return _rest(status, Step.APPROVAL, approval.wish(spec, status.stage + 1, now), now)
    return _enter(status, spec, now)


def _enter(status: Status, spec: Spec, now: datetime) -> Decision:
    """The next stage, with nothing counted yet; the first one where none was entered."""
    if not status.is_known:
        return Decision(replace(status, step=Step.NAME, reason="", rested_at=None), Act.WAIT)
    entered = replace(
        status,
        step=Step.SET,
        stage=status.stage + 1,
        reason="",
        since=None,
        rested_at=None,
        observed_seconds=0.0,
        unobserved_seconds=0.0,
        window_since=None,
        window_seconds=0.0,
        failed_windows=0,
        patience_seconds=0.0,
        metrics=(),
    )
    return Decision(entered, Act.WAIT)


def _recorded(spec: Spec, status: Status, judgement: Judgement, now: datetime) -> Status:
    record = {
        "percent": spec.percents[status.stage],
        "since": status.since.isoformat() if status.since else None,
        "until": now.isoformat(),
        "observed_seconds": round(status.observed_seconds, 1),
        "verdict": str(judgement.verdict),
        "reason": judgement.reason,
        "metrics": [each.as_json() for each in judgement.measurements],
    }
    return replace(status, passed=(*status.passed, record))


def _blame(spec: Spec, status: Status, judgement: Judgement) -> str:
    return f"at {shown(spec.percents[status.stage])}: {judgement.reason}"


def _rest(status: Status, step: Step, reason: str, now: datetime, hold: Hold | None = None) -> Decision:
    return Decision(replace(status, step=step, reason=reason, rested_at=now, hold=hold), Act.REST)


def _end(status: Status, end: End, reason: str) -> Decision:
    return Decision(replace(status, step=Step.ENDING, end=str(end), reason=reason), Act.END)


_STEPS: dict[Step, Callable[[Spec, Status, Facts, datetime], Decision]] = {
    Step.NAME: _name,
    Step.SET: _set,
    Step.VERIFY: _verify,
    Step.OBSERVE: _observe,
    Step.HELD: _held,
    Step.PAUSED: _held,
    Step.APPROVAL: _approval,
}
