"""Every check on both sides of its border, from facts alone; and what all of them say together."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from flows.catalog.checks import (
    answers,
    batch_invariance,
    completes,
    contract,
    determinism,
    finite,
    golden,
    judge,
    loads,
    self_test,
)
from flows.catalog.facts import (
    Answer,
    Comparison,
    Estimate,
    Facts,
    Latency,
    Loaded,
    Metric,
    Quantiles,
    Score,
    Side,
    Source,
    Step,
    Trial,
)
from flows.catalog.figures import latency, memory
from flows.catalog.policy import ValidationPolicy
from flows.catalog.verdict import Check, CheckName, Verdict, overall
from serving.core.model import TensorSpec
from serving.formats import selftest
from serving.formats.selftest import Basis, SelfTest

PASSED, WARNING, FAILED, NOT_MEASURED = Verdict.PASSED, Verdict.WARNING, Verdict.FAILED, Verdict.NOT_MEASURED
DEFAULT = ValidationPolicy()

SPEC = (TensorSpec("x", "FP32", (-1, 3)),)
CANDIDATE = Loaded("2", format="onnx", digest="d", inputs=SPEC, outputs=SPEC, grown_bytes=10 << 20)
CHAMPION = replace(CANDIDATE, version="1")
TESTED = SelfTest(selftest.Verdict.PASSED, Basis.EXAMPLE, "answered")
GOOD, RAISED = Answer(), Answer(error="raised RuntimeError: no")
NAN, BROKEN = Answer(non_finite=("y",)), Answer(out_of_spec="output 'y' has shape [1, 9]")
FULL = Facts(
    candidate=CANDIDATE,
    champion=CHAMPION,
    self_test=TESTED,
    trials=(Trial(Source.EXAMPLE, 1, GOOD, GOOD),),
    batch=Comparison(Source.EXAMPLE, 4, None),
    repeat=Comparison(Source.EXAMPLE, 1, None),
    odd=(Trial(Source.HIGHEST, 1, Answer(), Answer()),),
    score=Score(Metric.ACCURACY, 10, 10, (Estimate("accuracy", 0.9, 0.8, 0.95),)),
    latency=Latency(Source.EXAMPLE, 100, Quantiles(1, 2), Quantiles(1, 2)),
    peak_bytes=100 << 20,
)

# What nobody declared or asked for here.
UNDECLARED = {CheckName.GOLDEN, CheckName.PARITY, CheckName.REPLAY, CheckName.SIMILARITY}


def said(check: Callable[[Facts, ValidationPolicy], Check], facts: Facts) -> Check:
    return check(facts, DEFAULT)


def test_version_passes_when_every_fact_is_good() -> None:
    """One verdict per check, in the report's order; nothing else is declared here."""
    found = judge(FULL, DEFAULT)
    assert [check.name for check in found] == list(CheckName)
    assert {check.name for check in found if check.verdict is not PASSED} == UNDECLARED
    assert overall(found) is PASSED


def test_nothing_else_is_judged_when_the_version_does_not_load() -> None:
    """The refusal's own sentence is the reason; what was not reached says so and adds no failure."""
    found = judge(Facts(candidate=Loaded("2", problem="it is a pickle; export it")), DEFAULT)
    assert [check.name for check in found] == list(CheckName)
    assert {check.name for check in found if check.verdict is FAILED} == {CheckName.LOADS}
    assert found[0].message == "it is a pickle; export it"
    assert overall(found) is FAILED


@pytest.mark.parametrize(
    ("verdicts", "whole"),
    [
        ([], NOT_MEASURED),
        ([NOT_MEASURED], NOT_MEASURED),
        ([NOT_MEASURED, PASSED], PASSED),
        ([PASSED, WARNING, NOT_MEASURED], WARNING),
        ([FAILED, WARNING, PASSED], FAILED),
    ],
)
def test_overall_is_the_worst_that_was_measured_when_combined(
    verdicts: list[Verdict], whole: Verdict
) -> None:
    """What was not measured weighs nothing, and alone is no approval."""
    assert overall(Check(CheckName.LOADS, verdict, "") for verdict in verdicts) is whole


def test_loading_and_completion_are_told_apart_when_interrupted() -> None:
    """A process that died names what the version was doing; without any fact nothing is claimed."""
    died = Facts(
        candidate=CANDIDATE, step=Step(Side.CANDIDATE, "answering the zeros"), interrupted="hanging: no end"
    )
    assert said(loads, died).verdict is PASSED
    assert said(completes, died).message == "hanging: no end while the candidate was answering the zeros"
    nothing = Facts(interrupted="crashed: the process died of SIGSEGV")
    assert said(loads, nothing).verdict is NOT_MEASURED
    assert "starting" in said(completes, nothing).message
    assert overall(judge(nothing, DEFAULT)) is overall(judge(died, DEFAULT)) is FAILED


@pytest.mark.parametrize("verdict", list(selftest.Verdict))
def test_self_test_counts_as_serving_will_judge_it_when_run(verdict: selftest.Verdict) -> None:
    """Serving refuses what fails here, so promotion must not start."""
    found = said(self_test, replace(FULL, self_test=SelfTest(verdict, Basis.ZEROS, "reason")))
    assert found.verdict.value == verdict.value
    assert ("serving would refuse" in found.message) == (verdict is selftest.Verdict.FAILED)


@pytest.mark.parametrize(
    ("basis", "verdict", "expected"),
    [
        (Basis.GOLDEN, selftest.Verdict.PASSED, PASSED),
        (Basis.GOLDEN, selftest.Verdict.FAILED, FAILED),
        (Basis.EXAMPLE, selftest.Verdict.PASSED, NOT_MEASURED),
    ],
)
def test_golden_set_is_judged_when_one_was_recorded(
    basis: Basis, verdict: selftest.Verdict, expected: Verdict
) -> None:
    """Required where declared, not measured where not."""
    assert said(golden, replace(FULL, self_test=SelfTest(verdict, basis, "r"))).verdict is expected


@pytest.mark.parametrize(
    ("champion", "expected"),
    [
        pytest.param(CHAMPION, PASSED, id="the same"),
        pytest.param(None, NOT_MEASURED, id="no champion"),
        pytest.param(Loaded("1", problem="gone"), NOT_MEASURED, id="champion cannot be loaded"),
        pytest.param(replace(CHAMPION, inputs=(TensorSpec("x", "FP32", None),)), WARNING, id="unknown"),
        pytest.param(replace(CHAMPION, inputs=(TensorSpec("z", "FP32", (-1, 3)),)), FAILED, id="conflict"),
    ],
)
def test_contract_is_judged_against_the_champion_when_there_is_one(
    champion: Loaded | None, expected: Verdict
) -> None:
    """Conflicts fail, open questions warn, and without a champion there is nothing to keep."""
    assert said(contract, replace(FULL, champion=champion)).verdict is expected


@pytest.mark.parametrize(
    ("source", "candidate", "champion", "expected"),
    [
        pytest.param(Source.EXAMPLE, GOOD, None, PASSED, id="answers"),
        pytest.param(Source.EXAMPLE, RAISED, None, FAILED, id="raises on its example"),
        pytest.param(Source.EVALUATION, RAISED, RAISED, FAILED, id="raises on the set, as the champion"),
        pytest.param(Source.GOLDEN, BROKEN, GOOD, FAILED, id="breaks its spec"),
        pytest.param(Source.ZEROS, BROKEN, GOOD, FAILED, id="breaks its spec on zeros"),
        pytest.param(Source.EXAMPLE, Answer(off_contract="'y' is missing"), GOOD, FAILED, id="off contract"),
        pytest.param(Source.ZEROS, RAISED, GOOD, FAILED, id="raises on zeros the champion answers"),
        pytest.param(Source.ZEROS, RAISED, RAISED, WARNING, id="both raise on zeros"),
        pytest.param(Source.ZEROS, RAISED, None, WARNING, id="raises on zeros, no champion"),
        pytest.param(Source.CHAMPION, RAISED, GOOD, FAILED, id="raises on the champion's example"),
        pytest.param(Source.CHAMPION, RAISED, RAISED, WARNING, id="both raise on it"),
        pytest.param(Source.EVALUATION, NAN, GOOD, PASSED, id="NaN is another check's matter"),
    ],
)
def test_answers_are_judged_by_source_when_asked(
    source: Source, candidate: Answer, champion: Answer | None, expected: Verdict
) -> None:
    """Recorded inputs must be answered; inputs of our making only where the champion answers them."""
    found = said(answers, replace(FULL, trials=(Trial(source, 1, candidate, champion),)))
    assert found.verdict is expected
    assert str(source) in found.message


@pytest.mark.parametrize(
    ("source", "candidate", "champion", "expected"),
    [
        pytest.param(Source.EXAMPLE, GOOD, None, PASSED, id="finite"),
        pytest.param(Source.GOLDEN, NAN, NAN, FAILED, id="on the golden set"),
        pytest.param(Source.EXAMPLE, NAN, GOOD, FAILED, id="on the example"),
        pytest.param(Source.EVALUATION, NAN, None, FAILED, id="on the evaluation set"),
        pytest.param(Source.ZEROS, NAN, GOOD, WARNING, id="on zeros"),
        pytest.param(Source.CHAMPION, NAN, GOOD, FAILED, id="where the champion is finite"),
        pytest.param(Source.CHAMPION, NAN, NAN, WARNING, id="where the champion is not either"),
        pytest.param(Source.EXAMPLE, RAISED, GOOD, NOT_MEASURED, id="nothing answered"),
    ],
)
def test_finiteness_is_judged_by_source_when_answered(
    source: Source, candidate: Answer, champion: Answer | None, expected: Verdict
) -> None:
    """Recorded inputs must give finite outputs; zeros of our making may not."""
    assert said(finite, replace(FULL, trials=(Trial(source, 1, candidate, champion),))).verdict is expected


def test_worst_trial_decides_when_several_differ() -> None:
    """The sentence is that of the first failure, and names where else it failed."""
    trials = (
        Trial(Source.EVALUATION, 9, RAISED, GOOD),
        Trial(Source.ZEROS, 1, GOOD, GOOD),
        Trial(Source.EXAMPLE, 1, RAISED, GOOD),
    )
    found = said(answers, replace(FULL, trials=trials))
    assert found.verdict is FAILED
    assert found.message.endswith("which the champion answers; likewise on: input example")
    assert found.evidence == {"evaluation set": 9, "zeros": 1, "input example": 1}
    assert said(answers, replace(FULL, trials=())).verdict is NOT_MEASURED


@pytest.mark.parametrize(
    ("candidate", "champion", "expected"),
    [(None, None, PASSED), ("differs", None, FAILED), ("differs", "differs", WARNING)],
)
def test_comparison_fails_when_only_the_candidate_differs(
    candidate: str | None, champion: str | None, expected: Verdict
) -> None:
    """What the champion does too is no step back, but worth a warning."""
    found = Comparison(Source.EXAMPLE, 4, candidate, champion)
    assert said(batch_invariance, replace(FULL, batch=found)).verdict is expected
    assert said(determinism, replace(FULL, repeat=found)).verdict is expected


def test_comparison_is_not_measured_when_there_was_none() -> None:
    """No batch axis, or no answered input."""
    assert said(batch_invariance, replace(FULL, batch=None)).verdict is NOT_MEASURED
    assert said(determinism, replace(FULL, repeat=None)).verdict is NOT_MEASURED


def _latency(candidate_ms: float, champion_ms: float | None) -> Latency:
    rival = None if champion_ms is None else Quantiles(champion_ms, champion_ms)
    return Latency(Source.EXAMPLE, 100, Quantiles(candidate_ms, candidate_ms), rival)


@pytest.mark.parametrize(
    ("found", "policy", "expected"),
    [
        pytest.param(_latency(10, 10), DEFAULT, PASSED, id="equal"),
        pytest.param(_latency(5, 0.1), DEFAULT, PASSED, id="50 times, but within 5 ms"),
        pytest.param(_latency(106, 100), DEFAULT, PASSED, id="6 ms more, but within the ratio"),
        pytest.param(_latency(125, 100), DEFAULT, PASSED, id="at the ratio"),
        pytest.param(_latency(126, 100), DEFAULT, FAILED, id="beyond both"),
        pytest.param(_latency(900, None), DEFAULT, PASSED, id="no champion"),
        pytest.param(_latency(20, None), ValidationPolicy(max_p95_ms=20), PASSED, id="at the limit"),
        pytest.param(_latency(21, 30), ValidationPolicy(max_p95_ms=20), FAILED, id="beyond the limit"),
        pytest.param(None, DEFAULT, NOT_MEASURED, id="nothing timed"),
    ],
)
def test_latency_is_worse_only_beyond_ratio_and_allowance_when_timed(
    found: Latency | None, policy: ValidationPolicy, expected: Verdict
) -> None:
    """Both borders must be crossed; an absolute limit holds by itself."""
    assert latency(replace(FULL, latency=found), policy).verdict is expected


@pytest.mark.parametrize(
    ("limit_mb", "peak_mb", "expected"),
    [(None, 10, PASSED), (10, 10, PASSED), (9, 10, FAILED), (30, 30, PASSED), (29, 30, FAILED)],
)
def test_memory_is_limited_when_a_limit_is_given(
    limit_mb: float | None, peak_mb: int, expected: Verdict
) -> None:
    """What loading took, or the first answer if that is more, against the limit; reported in any case."""
    asked = replace(FULL, candidate=replace(CANDIDATE, peak_bytes=peak_mb << 20))
    assert memory(asked, ValidationPolicy(max_memory_mb=limit_mb)).verdict is expected


@pytest.mark.parametrize(("interrupted", "expected"), [(None, FAILED), ("hanging: no end", NOT_MEASURED)])
def test_golden_set_refuses_when_it_was_recorded_and_not_asked(
    interrupted: str | None, expected: Verdict
) -> None:
    """A required check that was not measured approves nothing; a broken run has its own reason."""
    declared = replace(FULL, candidate=replace(CANDIDATE, has_golden=True), interrupted=interrupted)
    checks = judge(declared, DEFAULT)
    found = next(check for check in checks if check.name is CheckName.GOLDEN)
    assert found.verdict is expected
    assert ("required, but not measured" in found.message) == (expected is FAILED)
    assert overall(checks) is FAILED


def test_signature_may_change_when_the_policy_allows_it() -> None:
    """What callers would miss is still named, as a warning, in what is declared and in what is answered."""
    changed = replace(CHAMPION, outputs=(TensorSpec("z", "FP32", (-1, 3)),))
    off = Answer(off_contract="output 'z' is missing")
    facts = replace(FULL, champion=changed, trials=(Trial(Source.EXAMPLE, 1, off, GOOD),))
    allowed = ValidationPolicy(allow_signature_change=True)
    for check in (contract, answers):
        assert check(facts, DEFAULT).verdict is FAILED
        assert check(facts, allowed).verdict is WARNING
        assert "'z'" in check(facts, allowed).message


def test_limit_refuses_when_nothing_could_be_timed() -> None:
    """A limit that was given must have been looked at."""
    found = latency(replace(FULL, latency=None), ValidationPolicy(max_p95_ms=10))
    assert found.verdict is FAILED
    assert "though a limit of 10 ms was given" in found.message
