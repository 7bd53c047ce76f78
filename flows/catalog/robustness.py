"""The checks beyond recorded inputs: odd inputs of our making, siblings in other formats, the replay.

Pure; called by `flows.catalog.checks`. What the champion does alike is no step back and is only told.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from flows.catalog.facts import Answer, Facts, Kinship, Replay, Side, Source, Trial
from flows.catalog.figures import not_reached
from flows.catalog.policy import ValidationPolicy
from flows.catalog.verdict import Check, CheckName, Evidence, Verdict, worst

_ENOUGH_ROWS = 30


def odd_inputs(facts: Facts, policy: ValidationPolicy) -> Check:
    """Extremes and batches of one, many and none: raising fails only where the champion answers."""
    name = CheckName.ODD_INPUTS
    if facts.odd_interrupted is not None and facts.step is not None:
        return _died(facts, facts.odd_interrupted, facts.step.side)
    if not facts.odd:
        reason = "no input was answered that could be varied, or no time was left"
        return Check(name, Verdict.NOT_MEASURED, reason) if facts.interrupted is None else not_reached(name)
    # At the edges of a datatype sums overflow; on which side of it tells two versions apart in nothing.
    overflows = any(_is_edge(trial) and trial.champion and trial.champion.non_finite for trial in facts.odd)
    findings = [_odd(trial, excuses_overflow=overflows and _is_edge(trial)) for trial in facts.odd]
    verdict = worst(finding.verdict for finding in findings)
    evidence: Evidence = {str(finding.trial.source): finding.told for finding in findings}
    if verdict is not Verdict.PASSED:
        deciding = [finding for finding in findings if finding.verdict is verdict]
        return Check(name, verdict, _gathered(deciding), evidence)
    notes = [finding for finding in findings if finding.is_note]
    asked = ", ".join(_named(trial) for trial in facts.odd)
    said = f"no worse than the champion: {_gathered(notes)}" if notes else f"answered: {asked}"
    return Check(name, verdict, said, evidence)


def parity(facts: Facts, policy: ValidationPolicy) -> Check:
    """Whether versions that claim to be the same network answer alike."""
    name = CheckName.PARITY
    if not facts.kin:
        reason = "no other version claims to be the same network (tag signalbox.sibling)"
        return Check(name, Verdict.NOT_MEASURED, reason) if facts.interrupted is None else not_reached(name)
    evidence: Evidence = {kin.name: _outcome(kin) for kin in facts.kin} | {
        "largest_difference": max(kin.largest for kin in facts.kin)
    }
    differing = [f"{kin.differs}, beside {_title(kin)}" for kin in facts.kin if kin.differs is not None]
    if differing:
        return Check(name, Verdict.FAILED, "; ".join(differing), evidence)
    lacking = [f"not compared with {kin.name}: {kin.problem}" for kin in facts.kin if kin.problem is not None]
    alike = [_alike(kin) for kin in facts.kin if kin.problem is None]
    return Check(
        name, Verdict.PASSED if alike else Verdict.NOT_MEASURED, "; ".join([*alike, *lacking]), evidence
    )


def replay(facts: Facts, policy: ValidationPolicy) -> Check:
    """Recent inputs of the inference log: they must be answered, finitely, and not quite differently."""
    name, found = CheckName.REPLAY, facts.replay
    if found is None:
        reason = "no replay of recent inputs was asked for"
        return Check(name, Verdict.NOT_MEASURED, reason) if facts.interrupted is None else not_reached(name)
    if found.problem is not None or found.trial is None or found.rows == 0:
        return Check(name, Verdict.NOT_MEASURED, found.problem or "there was no time left to ask any")
    evidence: Evidence = {
        "rows": found.rows,
        "raised": found.raised,
        "champion_raised_too": found.champion_raised,
        "non_finite": found.non_finite,
        "agreement": found.agreement,
        "shift": found.shift,
    }
    failures, doubts = _replay_failures(found, found.trial, policy), _replay_doubts(found, policy)
    said = f"{found.rows} recent rows asked again{_likeness(found)}"
    verdict = Verdict.FAILED if failures else Verdict.WARNING if doubts else Verdict.PASSED
    return Check(name, verdict, "; ".join([said, *failures, *doubts]), evidence)


@dataclass(frozen=True, slots=True)
class _Finding:
    """What one odd trial says; `is_note` where it is worth telling though it counts for nothing."""

    trial: Trial
    verdict: Verdict
    told: str
    is_note: bool = False


def _is_edge(trial: Trial) -> bool:
    return trial.source in (Source.HIGHEST, Source.LOWEST)


def _gathered(findings: Sequence[_Finding]) -> str:
    """The first in full, the others by where they were found."""
    first, *others = findings
    also = f"; likewise on: {', '.join(_named(each.trial) for each in others)}" if others else ""
    return f"{first.told}{also}"


def _odd(trial: Trial, *, excuses_overflow: bool) -> _Finding:
    ours, theirs = trial.candidate, trial.champion
    if ours.error is not None:
        told = f"{ours.error}, on the {_named(trial)}"
        return _unlike(trial, told, theirs, is_alike=theirs is not None and theirs.error is not None)
    if ours.out_of_spec is not None:
        told = f"{ours.out_of_spec}, on the {_named(trial)}"
        same = theirs is not None and (theirs.error or theirs.out_of_spec) is not None
        return _Finding(trial, Verdict.PASSED if same else Verdict.FAILED, told, is_note=same)
    if ours.non_finite:
        names = ", ".join(f"'{name}'" for name in ours.non_finite)
        told = f"output {names} is not finite on the {_named(trial)}"
        same = theirs is not None and (
            theirs.error is not None or bool(theirs.non_finite) or excuses_overflow
        )
        return _Finding(trial, Verdict.PASSED if same else Verdict.WARNING, told, is_note=same)
    return _Finding(trial, Verdict.PASSED, "answered")


def _unlike(trial: Trial, told: str, theirs: Answer | None, *, is_alike: bool) -> _Finding:
    if is_alike:
        return _Finding(trial, Verdict.PASSED, told, is_note=True)
    if theirs is None:
        said = f"{told}; there is no champion that answers it, so it does not count"
        return _Finding(trial, Verdict.WARNING, said)
    return _Finding(trial, Verdict.FAILED, f"{told}, which the champion answers")


def _died(facts: Facts, how: str, side: Side) -> Check:
    """Inputs that end a process could be sent by anybody; the champion was asked first."""
    doing = facts.step.doing if facts.step else ""
    if side is Side.CANDIDATE:
        return Check(CheckName.ODD_INPUTS, Verdict.FAILED, f"{how} while the candidate was {doing}")
    said = f"the champion itself ended the look at odd inputs: {how} while it was {doing}"
    return Check(CheckName.ODD_INPUTS, Verdict.NOT_MEASURED, said)


def _named(trial: Trial) -> str:
    return f"{trial.source} ({trial.rows} rows)" if trial.rows > 1 else str(trial.source)


def _outcome(kin: Kinship) -> str:
    return kin.differs or kin.problem or "alike"


def _title(kin: Kinship) -> str:
    return f"{kin.name} ({kin.format})"


def _alike(kin: Kinship) -> str:
    how = f"largest difference {kin.largest:.2g}, {kin.tolerance:g} relative allowed"
    return f"answers as {_title(kin)} does on {kin.rows} rows, {how}"


def _replay_failures(found: Replay, trial: Trial, policy: ValidationPolicy) -> list[str]:
    failures, answer = [], trial.candidate
    if found.raised:
        answers = ", which the champion answers" if trial.champion is not None else ""
        failures.append(f"{answer.error}, on {found.raised} rows{answers}")
    if answer.out_of_spec is not None:
        failures.append(answer.out_of_spec)
    if answer.off_contract is not None and not policy.allow_signature_change:
        failures.append(f"against what the champion declares: {answer.off_contract}")
    if found.non_finite:
        names = ", ".join(f"'{name}'" for name in answer.non_finite)
        failures.append(f"output {names} is not finite on {found.non_finite} rows")
    if found.shift is not None and found.compared >= _ENOUGH_ROWS and found.shift > policy.max_replay_shift:
        failures.append(f"a shift of at most {policy.max_replay_shift:g} is allowed")
    return failures


def _replay_doubts(found: Replay, policy: ValidationPolicy) -> list[str]:
    doubts = []
    if found.champion_raised:
        doubts.append(f"both sides raised on {found.champion_raised} rows")
    few = found.agreement is not None and found.agreement < policy.min_replay_agreement
    if few and found.compared >= _ENOUGH_ROWS:
        doubts.append(f"less than {policy.min_replay_agreement:g} of the rows are classified alike")
    return doubts


def _likeness(found: Replay) -> str:
    if found.agreement is not None:
        return f", {found.agreement:.1%} classified as the champion does"
    if found.shift is not None:
        return f", predictions shifted by {found.shift:.2g} of the champion's median size"
    return ""
