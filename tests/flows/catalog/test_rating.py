"""What findings mean under a policy: each aspect on both sides of its limits."""

from dataclasses import replace
from typing import Any

import pytest

from flows.catalog.facts import Side, Step
from flows.catalog.limits import BenchmarkPolicy, limits, policy_of
from flows.catalog.performance import Estimate, Findings, MemoryMb, Performance, Statistic
from flows.catalog.rating import Aspect, Rating, overall, rated, times
from flows.catalog.verdict import Verdict
from tests.flows.catalog.figures_of import findings, performance, point

FREE = BenchmarkPolicy()
LATE: dict[str, Any] = {"interrupted": "there was no end within 9 s", "is_late": True}
DEAD: dict[str, Any] = {"interrupted": "the process died of SIGSEGV"}


def rating(name: Aspect, found: Findings, policy: BenchmarkPolicy = FREE) -> Rating:
    return next(each for each in rated(found, policy) if each.name is name)


def test_every_aspect_is_rated_when_all_was_measured() -> None:
    """In the order of a report, and passed."""
    found = rated(findings(champion=performance("1")), FREE)
    assert [each.name for each in found] == list(Aspect)
    assert {each.verdict for each in found} == {Verdict.PASSED}
    assert overall(found) is Verdict.PASSED


@pytest.mark.parametrize(
    ("ours_ms", "theirs_ms", "verdict"),
    [
        pytest.param(2.0, 2.0, Verdict.PASSED, id="equal"),
        pytest.param(6.0, 2.0, Verdict.PASSED, id="three times, but less than 5 ms more"),
        pytest.param(7.0, 2.0, Verdict.PASSED, id="exactly 5 ms more"),
        pytest.param(7.1, 2.0, Verdict.FAILED, id="beyond both"),
        pytest.param(125.0, 100.0, Verdict.PASSED, id="25 ms more, but exactly the ratio"),
        pytest.param(127.0, 100.0, Verdict.FAILED, id="just beyond the ratio with its interval"),
        pytest.param(126.0, 100.0, Verdict.WARNING, id="beyond the ratio, its interval is not"),
    ],
)
def test_comparison_follows_the_one_latency_rule_when_tabulated(
    ours_ms: float, theirs_ms: float, verdict: Verdict
) -> None:
    """Worse only beyond the ratio and the extra milliseconds; failed only where that is certain."""
    found = findings(performance(p95_ms=ours_ms), performance("1", theirs_ms))
    assert rating(Aspect.AGAINST_CHAMPION, found).verdict is verdict


def test_comparison_warns_when_the_calls_only_waited_for_a_cpu() -> None:
    """Three times as long, all of it in line: another process's doing until shown otherwise."""
    ours = performance(p95_ms=60.0, unhindered_p95_ms=18.0)
    found = rating(Aspect.AGAINST_CHAMPION, findings(ours, performance("1", 20.0)))
    assert found.verdict is Verdict.WARNING
    assert "3.00 times that of version 1 (2.97 to 3.03), 40.0 ms more" in found.message
    assert "too busy to be certain" in found.message


@pytest.mark.parametrize(
    ("limit_ms", "low_ms", "unhindered_ms", "verdict"),
    [
        pytest.param(None, 9.0, 9.0, Verdict.PASSED, id="no limit"),
        pytest.param(10.0, 9.9, 9.9, Verdict.PASSED, id="at the limit"),
        pytest.param(9.0, 9.5, 9.5, Verdict.FAILED, id="beyond, for certain"),
        pytest.param(9.0, 8.9, 9.5, Verdict.WARNING, id="beyond, perhaps by chance"),
        pytest.param(9.0, 9.5, 8.0, Verdict.WARNING, id="beyond, perhaps for want of a CPU"),
    ],
)
def test_latency_is_held_to_its_limit_when_tabulated(
    limit_ms: float | None, low_ms: float, unhindered_ms: float, verdict: Verdict
) -> None:
    """The absolute limit on p95, here of 10 ms."""
    ours = performance(p95_ms=10.0, p95=Estimate(10.0, low_ms, 11.0), unhindered_p95_ms=unhindered_ms)
    assert rating(Aspect.LATENCY, findings(ours), BenchmarkPolicy(max_p95_ms=limit_ms)).verdict is verdict


@pytest.mark.parametrize(
    ("least", "verdict"),
    [
        pytest.param(None, Verdict.PASSED, id="no limit"),
        pytest.param(2000.0, Verdict.PASSED, id="at the limit"),
        pytest.param(2100.0, Verdict.WARNING, id="below, though the quickest block reached it"),
        pytest.param(2300.0, Verdict.FAILED, id="below even at its quickest"),
    ],
)
def test_throughput_is_held_to_its_limit_when_tabulated(least: float | None, verdict: Verdict) -> None:
    """The best batch makes 2,000 rows per second, 2,200 in its quickest block."""
    policy = BenchmarkPolicy(min_throughput=least)
    assert rating(Aspect.THROUGHPUT, findings(), policy).verdict is verdict


def test_throughput_warns_when_batches_take_longer_than_the_champions() -> None:
    """The one latency rule on the largest batch both took; single rows decide the comparison."""
    theirs = performance("1", batches=(point(1), point(8, 4.0), point(16, 5.0)))
    found = rating(Aspect.THROUGHPUT, findings(performance(batches=(point(1), point(8, 20.0))), theirs))
    assert found.verdict is Verdict.WARNING
    assert "8 rows take 20.0 ms, the other version's 4.0 ms" in found.message


@pytest.mark.parametrize(
    ("memory", "limit_mb", "verdict"),
    [
        pytest.param(MemoryMb(10.0, 30.0, 20.0), None, Verdict.PASSED, id="no limit"),
        pytest.param(MemoryMb(10.0, 30.0, 20.0), 20.0, Verdict.PASSED, id="at the limit once warm"),
        pytest.param(MemoryMb(10.0, 30.0, 20.0), 19.0, Verdict.FAILED, id="beyond once warm"),
        pytest.param(MemoryMb(21.0, 30.0, 1.0), 20.0, Verdict.FAILED, id="beyond by loading"),
        pytest.param(None, None, Verdict.NOT_MEASURED, id="not reached"),
        pytest.param(None, 20.0, Verdict.FAILED, id="not reached, though limited"),
    ],
)
def test_memory_is_held_to_its_limit_when_tabulated(
    memory: MemoryMb | None, limit_mb: float | None, verdict: Verdict
) -> None:
    found = findings(performance(memory_mb=memory))
    assert rating(Aspect.MEMORY, found, BenchmarkPolicy(max_memory_mb=limit_mb)).verdict is verdict


NOTHING: dict[str, Any] = {"calls": 0, "latency_ms": None, "p95": None, "batches": (), "memory_mb": None}


@pytest.mark.parametrize(
    ("found", "verdict", "words"),
    [
        pytest.param(
            Findings(Performance("2", "the file is cut off")),
            Verdict.FAILED,
            "cut off",
            id="not loaded",
        ),
        pytest.param(
            findings(performance(problem="it raised ValueError: no", **NOTHING)),
            Verdict.FAILED,
            "raised ValueError",
            id="raises",
        ),
        pytest.param(
            Findings(Performance("2", "no inputs are recorded", load_seconds=0.1)),
            Verdict.NOT_MEASURED,
            "no inputs",
            id="nothing to ask it with",
        ),
        pytest.param(
            findings(performance(**NOTHING), step=Step(Side.CANDIDATE, "loading"), **LATE),
            Verdict.NOT_MEASURED,
            "no end within 9 s while the candidate was loading",
            id="late before anything was timed",
        ),
        pytest.param(
            findings(step=Step(Side.CANDIDATE, "answering with 2 threads"), **LATE),
            Verdict.WARNING,
            "while the candidate was answering with 2 threads",
            id="late afterwards",
        ),
        pytest.param(
            findings(step=Step(Side.CANDIDATE, "answering"), **DEAD), Verdict.FAILED, "SIGSEGV", id="died"
        ),
        pytest.param(
            findings(step=Step(Side.CHAMPION, "loading"), **DEAD),
            Verdict.WARNING,
            "the champion was loading",
            id="died of the champion",
        ),
        pytest.param(Findings(), Verdict.NOT_MEASURED, "nothing was timed", id="nothing at all"),
    ],
)
def test_whole_follows_how_the_measuring_went_when_tabulated(
    found: Findings, verdict: Verdict, words: str
) -> None:
    """A version that cannot be used has failed; what could not be found out is said, not passed."""
    measured = rating(Aspect.MEASURED, found)
    assert measured.verdict is verdict
    assert words in measured.message


def test_nothing_is_passed_when_nothing_was_measured() -> None:
    """Of a version that took too long no aspect is known; with a limit set, that is a refusal."""
    late = findings(performance(**NOTHING), is_stable=None, step=Step(Side.CANDIDATE, "loading"), **LATE)
    assert overall(rated(late, FREE)) is Verdict.NOT_MEASURED
    limit = BenchmarkPolicy(max_p95_ms=5.0)
    assert overall(rated(late, limit)) is Verdict.FAILED
    assert "not measured, though a limit of 5 is set" in rating(Aspect.LATENCY, late, limit).message


@pytest.mark.parametrize(
    ("stable", "verdict"), [(True, Verdict.PASSED), (False, Verdict.WARNING), (None, Verdict.NOT_MEASURED)]
)
def test_unsteady_times_are_marked_when_they_did_not_settle(stable: bool | None, verdict: Verdict) -> None:
    assert rating(Aspect.STEADY, findings(is_stable=stable)).verdict is verdict


def test_comparison_is_not_measured_when_there_is_no_other_version() -> None:
    """Nor where the other one could not be asked, which is said."""
    assert rating(Aspect.AGAINST_CHAMPION, findings()).message == "no version to compare with"
    silent = replace(performance("1"), latency_ms=None, problem="it raised KeyError: x")
    found = rating(Aspect.AGAINST_CHAMPION, findings(champion=silent))
    assert found.verdict is Verdict.NOT_MEASURED
    assert "version 1: it raised KeyError: x" in found.message


@pytest.mark.parametrize(("ratio", "said"), [(1.257, "1.26"), (0.1, "0.10"), (0.0123, "0.012")])
def test_ratio_keeps_its_digits_when_small(ratio: float, said: str) -> None:
    assert times(ratio) == said


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"max_p95_ms": -1.0}, "max_p95_ms must be a number of at least 0"),
        ({"max_memory_mb": float("nan")}, "max_memory_mb must be a number"),
        ({"seconds": 0.0}, "seconds must be more than 0"),
        ({"max_batch": 0}, "max_batch must be more than 0"),
    ],
)
def test_policy_refuses_limits_when_they_make_no_sense(given: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        BenchmarkPolicy(**given)


def test_limits_are_read_when_they_come_as_text() -> None:
    """As events and command lines bring them; those of a validation are let be."""
    given = {"max_p95_ms": "12.5", "min_throughput": 100, "max_memory_mb": " ", "seconds": "None"}
    assert limits(given) == {"max_p95_ms": 12.5, "min_throughput": 100.0}
    policy = policy_of({"max_p95_ms": 12.5, "min_accuracy": 0.9}, BenchmarkPolicy(seconds=1.0))
    assert policy == BenchmarkPolicy(max_p95_ms=12.5, seconds=1.0)
    with pytest.raises(ValueError, match="max_p95_ms must be a number, not 'soon'"):
        limits({"max_p95_ms": "soon"})


def test_ratio_of_medians_is_no_verdict_when_p95_is_equal() -> None:
    """What is judged is the tail that callers feel."""
    found = findings(champion=performance("1"))
    slower = replace(found, ratios={**found.ratios, Statistic.P50: Estimate(9.0, 8.9, 9.1)})
    assert rating(Aspect.AGAINST_CHAMPION, slower).verdict is Verdict.PASSED
