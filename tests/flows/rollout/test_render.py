"""The report of a promotion, as Prefect shows it."""

from dataclasses import replace

from flows.rollout.outcome import Outcome, Verdict
from flows.rollout.render import checks_of, outcome_markdown
from tests.flows.rollout.test_outcome import NOW, ROLLOUT

CHECK = {"name": "finite_outputs", "verdict": "not_measured", "message": "a | b\nc"}
EVIDENCE = {"verdict": "passed", "checks": [CHECK], "applied": "a: answered a probe with version 2"}


def test_markdown_tells_verdict_facts_and_checks() -> None:
    """A table cell holds any message, whatever characters it is made of."""
    rollout = replace(ROLLOUT, evidence=EVIDENCE, finished_at=NOW)
    text = outcome_markdown(Outcome(Verdict.ROLLED_BACK, "because", rollout, ("not told",)), "digits")
    assert text.splitlines()[:5] == ["# digits: rolled back", "", "because", "", "- warning: not told"]
    for line in (
        "- version: 2",
        "- champion before: 1",
        "- asked for by: anna",
        "- workers: a: answered a probe with version 2",
        "| finite outputs | not measured | a \\| b c |",
    ):
        assert line in text.splitlines()


def test_markdown_says_so_when_a_rollout_is_still_open() -> None:
    text = outcome_markdown(Outcome(Verdict.UNAVAILABLE, "MLflow is away", ROLLOUT), "digits")
    assert "- ended: still open" in text
    assert "- champion before: 1" in text


def test_markdown_is_the_reason_alone_when_nothing_was_begun() -> None:
    text = outcome_markdown(Outcome(Verdict.REFUSED, "no such model"), "digits")
    assert text.split() == ["#", "digits:", "refused", "no", "such", "model"]


def test_checks_of_the_benchmark_follow_when_there_was_one() -> None:
    """Named as such: both judge latency and memory."""
    cost = {"name": "against_champion", "verdict": "passed", "message": "p95 is 1.00 times"}
    both = replace(ROLLOUT, evidence=EVIDENCE | {"benchmark": {"verdict": "passed", "checks": [cost]}})
    assert [row["check"] for row in checks_of(Outcome(Verdict.PROMOTED, "", both))] == [
        "finite outputs",
        "benchmark: against champion",
    ]


def test_checks_are_none_when_there_was_no_validation() -> None:
    assert checks_of(Outcome(Verdict.REFUSED, "")) == []
    assert checks_of(Outcome(Verdict.REFUSED, "", ROLLOUT)) == []
    odd = replace(ROLLOUT, evidence={"checks": "odd"})
    assert checks_of(Outcome(Verdict.REFUSED, "", odd)) == []
