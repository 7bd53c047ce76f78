"""The checks of a version: pure functions from measured facts and a policy to one verdict each.

Called by `flows.catalog.validate` after the measuring process ended, in whatever way. A check whose
facts are missing says NOT_MEASURED; one that is required and could not be measured says FAILED.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from flows.catalog.contract import compatibility
from flows.catalog.facts import Answer, Comparison, Facts, Loaded, Source, Trial
from flows.catalog.figures import latency, memory, not_reached
from flows.catalog.merit import accuracy, similarity
from flows.catalog.policy import ValidationPolicy
from flows.catalog.robustness import odd_inputs, parity, replay
from flows.catalog.verdict import Check, CheckName, Evidence, Verdict, worst
from serving.formats import selftest
from serving.formats.selftest import Basis

_FROM_SELF_TEST = {
    selftest.Verdict.PASSED: Verdict.PASSED,
    selftest.Verdict.FAILED: Verdict.FAILED,
    selftest.Verdict.NOT_MEASURED: Verdict.NOT_MEASURED,
}

Judge = Callable[[Facts, ValidationPolicy], Check]


def judge(facts: Facts, policy: ValidationPolicy) -> tuple[Check, ...]:
    """Every check, in the order of a report."""
    first = (loads(facts, policy), completes(facts, policy))
    if facts.candidate is None or facts.candidate.problem is not None:
        names = [name for name in CheckName if name not in (CheckName.LOADS, CheckName.COMPLETES)]
        reason = "the version was not loaded"
        return (*first, *(Check(name, Verdict.NOT_MEASURED, reason) for name in names))
    found = (*first, *(check(facts, policy) for check in _OF_A_LOADED_VERSION))
    return found if facts.interrupted is not None else tuple(_insisted(check, facts) for check in found)


def _insisted(check: Check, facts: Facts) -> Check:
    """A required check that was not measured is a failure: silence approves nothing."""
    if check.verdict is not Verdict.NOT_MEASURED or check.name not in _required(facts):
        return check
    return Check(check.name, Verdict.FAILED, f"required, but not measured: {check.message}", check.evidence)


def _required(facts: Facts) -> set[CheckName]:
    """What must have been measured of a version that was loaded and asked to the end."""
    names = {CheckName.LOADS, CheckName.COMPLETES}
    if facts.candidate is not None and facts.candidate.has_golden:
        names.add(CheckName.GOLDEN)
    if facts.score is not None:
        names.add(CheckName.ACCURACY)
    if not isinstance(_champion(facts), str):
        names.add(CheckName.CONTRACT)
    return names


def loads(facts: Facts, policy: ValidationPolicy) -> Check:
    name, found = CheckName.LOADS, facts.candidate
    if found is None:
        return Check(name, Verdict.NOT_MEASURED, "loading did not end")
    if found.problem is not None:
        return Check(name, Verdict.FAILED, found.problem)
    evidence: Evidence = {"format": found.format, "digest": found.digest, "seconds": round(found.seconds, 3)}
    return Check(name, Verdict.PASSED, f"loaded in {found.seconds:.2f} s ({found.format})", evidence)


def completes(facts: Facts, policy: ValidationPolicy) -> Check:
    """Whether the measuring process lived to the end."""
    name = CheckName.COMPLETES
    if facts.interrupted is None:
        return Check(name, Verdict.PASSED, "every step came to its end")
    doing = f"the {facts.step.side} was {facts.step.doing}" if facts.step else "the process was starting"
    return Check(name, Verdict.FAILED, f"{facts.interrupted} while {doing}")


def self_test(facts: Facts, policy: ValidationPolicy) -> Check:
    """What serving will find: it refuses a version that fails here."""
    name, found = CheckName.SELF_TEST, facts.self_test
    if found is None:
        return not_reached(name)
    verdict = _FROM_SELF_TEST[found.verdict]
    evidence: Evidence = {"basis": str(found.basis), "seconds": round(found.seconds, 4)}
    refused = "; serving would refuse the version" if verdict is Verdict.FAILED else ""
    return Check(name, verdict, f"{found.reason}{refused}", evidence)


def contract(facts: Facts, policy: ValidationPolicy) -> Check:
    name = CheckName.CONTRACT
    champion = _champion(facts)
    if facts.candidate is None or isinstance(champion, str):
        return Check(name, Verdict.NOT_MEASURED, str(champion))
    found = compatibility(facts.candidate, champion)
    evidence: Evidence = {"champion": champion.version}
    if found.breaks and policy.allow_signature_change:
        said = f"the signature changes, which was allowed: {'; '.join(found.breaks)}"
        return Check(name, Verdict.WARNING, said, evidence)
    if found.breaks:
        said = f"{'; '.join(found.breaks)} (a change that is meant is allowed by allow_signature_change)"
        return Check(name, Verdict.FAILED, said, evidence)
    if found.open:
        return Check(name, Verdict.WARNING, f"no conflict is known, but {'; '.join(found.open)}", evidence)
    said = f"takes and gives all that champion {champion.version} does"
    return Check(name, Verdict.PASSED, said, evidence)


def golden(facts: Facts, policy: ValidationPolicy) -> Check:
    name, found = CheckName.GOLDEN, facts.self_test
    if found is None:
        return not_reached(name)
    if found.basis is not Basis.GOLDEN:
        return Check(name, Verdict.NOT_MEASURED, "no golden set was recorded with the version")
    return Check(name, _FROM_SELF_TEST[found.verdict], found.reason)


def answers(facts: Facts, policy: ValidationPolicy) -> Check:
    """Whether it answers, within its own specs and the champion's, all that it was asked."""
    look = partial(_answered, policy=policy)
    return _over_trials(CheckName.ANSWERS, facts, look, "answered within specs: ")


def finite(facts: Facts, policy: ValidationPolicy) -> Check:
    answered = [trial for trial in facts.trials if trial.candidate.error is None]
    return _over_trials(CheckName.FINITE, facts, _finite, "every output is finite: ", answered)


def batch_invariance(facts: Facts, policy: ValidationPolicy) -> Check:
    if facts.batch is None:
        reason = "rows cannot be joined: an axis is fixed or no batch axis, or nothing was answered"
        return Check(CheckName.BATCH_INVARIANCE, Verdict.NOT_MEASURED, reason)
    same = "a row gets the same answer alone and among others"
    return _compared(CheckName.BATCH_INVARIANCE, facts.batch, same, "alone and among others")


def determinism(facts: Facts, policy: ValidationPolicy) -> Check:
    if facts.repeat is None:
        return Check(CheckName.DETERMINISM, Verdict.NOT_MEASURED, "no input was answered")
    return _compared(CheckName.DETERMINISM, facts.repeat, "the same input gets the same answer", "twice")


_OF_A_LOADED_VERSION: tuple[Judge, ...] = (
    self_test,
    contract,
    golden,
    answers,
    finite,
    batch_invariance,
    determinism,
    odd_inputs,
    parity,
    replay,
    accuracy,
    similarity,
    latency,
    memory,
)


@dataclass(frozen=True, slots=True)
class _Finding:
    """What one trial says; `sentence` names its source too."""

    verdict: Verdict
    source: Source
    sentence: str


def _over_trials(
    name: CheckName,
    facts: Facts,
    look: Callable[[Trial], _Finding],
    praise: str,
    trials: Sequence[Trial] | None = None,
) -> Check:
    found = [look(trial) for trial in (facts.trials if trials is None else trials)]
    if not found:
        reason = "there was nothing to ask: no set, no example, and the shape of an input is unknown"
        return Check(name, Verdict.NOT_MEASURED, reason if not facts.trials else "nothing was answered")
    verdict = worst(finding.verdict for finding in found)
    deciding = [finding for finding in found if finding.verdict is verdict]
    evidence: Evidence = {str(trial.source): trial.rows for trial in facts.trials}
    if verdict is Verdict.PASSED:
        return Check(name, verdict, praise + ", ".join(finding.sentence for finding in deciding), evidence)
    first, *others = deciding
    also = f"; likewise on: {', '.join(finding.source for finding in others)}" if others else ""
    return Check(name, verdict, f"{first.sentence}{also}", evidence)


def _answered(trial: Trial, policy: ValidationPolicy) -> _Finding:
    source, answer = trial.source, trial.candidate
    if answer.error is not None:
        return _raised(trial, answer.error)
    if answer.out_of_spec is not None:
        return _Finding(Verdict.FAILED, source, f"{answer.out_of_spec}, on the {source}")
    if answer.off_contract is not None:
        said = f"against what the champion declares: {answer.off_contract}, on the {source}"
        return _Finding(Verdict.WARNING if policy.allow_signature_change else Verdict.FAILED, source, said)
    rows = "row" if trial.rows == 1 else "rows"
    return _Finding(Verdict.PASSED, source, f"{source} ({trial.rows} {rows})")


def _raised(trial: Trial, error: str) -> _Finding:
    """Inputs that nobody recorded for this version count only where the champion answers them."""
    source, sentence = trial.source, f"{error}, on the {trial.source}"
    answered = trial.champion is not None and trial.champion.error is None
    if answered:
        sentence += ", which the champion answers"
    if answered or source not in (Source.ZEROS, Source.CHAMPION):
        return _Finding(Verdict.FAILED, source, sentence)
    return _Finding(Verdict.WARNING, source, f"{sentence}; no champion answers that, so it does not count")


def _finite(trial: Trial) -> _Finding:
    source, names = trial.source, ", ".join(f"'{name}'" for name in trial.candidate.non_finite)
    if not names:
        return _Finding(Verdict.PASSED, source, str(source))
    excused = source is Source.CHAMPION and not _is_finite(trial.champion)
    verdict = Verdict.WARNING if source is Source.ZEROS or excused else Verdict.FAILED
    return _Finding(verdict, source, f"output {names} is not finite on the {source}")


def _is_finite(answer: Answer | None) -> bool:
    return answer is not None and answer.error is None and not answer.non_finite


def _compared(name: CheckName, found: Comparison, same: str, how: str) -> Check:
    evidence: Evidence = {"source": str(found.source), "rows": found.rows}
    if found.candidate is None:
        return Check(name, Verdict.PASSED, f"{same} ({found.source})", evidence)
    said = f"{found.candidate}, asked {how} ({found.source})"
    if found.champion is None:
        return Check(name, Verdict.FAILED, said, evidence)
    return Check(name, Verdict.WARNING, f"{said}; so does the champion", evidence)


def _champion(facts: Facts) -> Loaded | str:
    if facts.champion is None:
        reason = "there is no champion to compare with"
        return reason if facts.interrupted is None else "this step was not reached"
    if facts.champion.problem is not None:
        return f"champion {facts.champion.version} could not be measured: {facts.champion.problem}"
    return facts.champion
