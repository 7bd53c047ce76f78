"""The report of a promotion, as Prefect shows it."""

from dataclasses import replace

from flows.rollout.outcome import Outcome, Verdict
from flows.rollout.plot import stages_plot
from flows.rollout.policy import Usual, plan_of
from flows.rollout.render import checks_of, judged_stages, outcome_markdown, stages_of
from serving.store.rollouts import Rollout
from serving.store.text import JsonValue
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


# Of a staged rollout


def metric(name: str, verdict: str, **evidence: JsonValue) -> dict[str, JsonValue]:
    return {"name": name, "verdict": verdict, "message": f"{name} was {verdict}", "evidence": dict(evidence)}


def judged(challenger_ms: float) -> list[dict[str, JsonValue]]:
    counts = {
        "champion_requests": 90,
        "champion_faults": 0,
        "challenger_requests": 60,
        "challenger_faults": 3,
    }
    return [
        metric("error_rate", "success", **counts),
        metric("latency", "success", champion_ms=2.0, challenger_ms=challenger_ms),
        metric("labels", "not_measured"),
    ]


def staged(*, stage: int = 1, unfinished: list[dict[str, JsonValue]] | None = None) -> Rollout:
    passed = {
        "percent": 50,
        "since": "2026-01-01T00:00:01.250000+00:00",
        "until": "2026-01-01T00:00:31.500000+00:00",
        "observed_seconds": 30.2,
        "verdict": "success",
        "reason": "no metric is worse",
        "metrics": judged(3.0),
    }
    spec = plan_of({"stages": "50,100"}, Usual(), None).as_json()
    status = {
        "stage": stage,
        "passed": [passed],
        "metrics": unfinished or [],
        "approved_by": "bob",
    }
    return replace(ROLLOUT, spec=spec, status=status)


def test_stages_are_listed_with_the_unfinished_one_last() -> None:
    rollout = staged(unfinished=judged(9.0))
    assert [percent for percent, _ in judged_stages(rollout)] == [50, 100]
    assert [row["stage"] for row in stages_of(rollout)] == ["50 %"] * 3 + ["100 %"] * 3
    assert stages_of(staged())[2] == {
        "stage": "50 %",
        "check": "labels",
        "verdict": "not measured",
        "message": "labels was not_measured",
    }


def test_report_has_picture_evidence_times_limits_and_approver_when_staged() -> None:
    """Everything somebody needs to follow the verdict, in words."""
    text = outcome_markdown(
        Outcome(Verdict.PROMOTED, "in the place of version 1", staged()), "digits", "http://p"
    )
    for line in (
        "Version 2 answers, in the place of version 1.",
        "- approved by: bob",
        "![Requests, errors and latency of both versions by stage](http://p)",
        "| 50 % | error rate | success | error_rate was success |",
        "- 50 %: success after 30.2 s, from 2026-01-01T00:00:01+00:00 to 2026-01-01T00:00:31+00:00",
        "| required | error rate, latency, predictions |",
        "| min samples | 50 |",
    ):
        assert line in text.splitlines()


def test_picture_is_drawn_when_a_stage_was_judged() -> None:
    png = stages_plot(staged(unfinished=judged(9.0)))
    assert png is not None
    assert png.startswith(b"\x89PNG")
    assert len(png) > 10_000


def test_picture_is_none_when_no_stage_was_judged() -> None:
    assert stages_plot(ROLLOUT) is None
