"""What the demonstration says of a rollout as it goes on."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from flows.cli.demo.progress import evidence_line, failed_metrics, news, present
from serving.store.rollouts import Phase, Rollout, State

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ERRORS = {
    "name": "error_rate",
    "verdict": "success",
    "message": "fine",
    "evidence": {
        "champion_faults": 1,
        "champion_requests": 900,
        "challenger_faults": 0,
        "challenger_requests": 50,
    },
}
SLOW = {
    "name": "latency",
    "verdict": "fail",
    "message": "p95 of champion 3 ms, of challenger 60 ms",
    "evidence": {"champion_ms": 3.0, "challenger_ms": 60.0},
}
UNTIMED = {"name": "latency", "verdict": "not_measured", "message": "nothing was timed", "evidence": {}}
DIFFER = {
    "name": "predictions",
    "verdict": "success",
    "message": "few differ",
    "evidence": {"differing_ratio": 0.08, "pairs": 51},
}
LABELS = {"name": "labels", "verdict": "not_measured", "message": "0 labels", "evidence": {}}
CHECKS = {"passed": True, "reason": "", "checks": [{"verdict": "passed"}, {"verdict": "skipped"}]}


def status(step: str, stage: int = 0, **different: Any) -> dict[str, Any]:
    fields = {"step": step, "stage": stage, "reason": "", "end": None, "metrics": (), "passed": ()}
    fields |= {"observed_seconds": 0.0}
    return fields | different


ROLLOUT = Rollout(
    id="r1",
    model="digits",
    version="5",
    strategy="staged",
    state=State.OPEN,
    phase=Phase.REQUESTED,
    requested_by="somebody",
    reason="",
    policy={},
    restore_point=None,
    evidence=None,
    created_at=NOW,
    updated_at=NOW,
    finished_at=None,
    spec={"stages": [5, 100]},
    status=status("name"),
)


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        pytest.param([ERRORS], "errors 0 of 50 against 1 of 900", id="errors"),
        pytest.param([SLOW], "p95 60.0 ms against 3.0 ms (x20.0, +57.0 ms)", id="times"),
        pytest.param([UNTIMED], "latency: nothing was timed", id="no times"),
        pytest.param([DIFFER], "8% of labels differ in 51 pairs", id="predictions"),
        pytest.param([LABELS], "", id="labels that never come here"),
        pytest.param(
            [UNTIMED, DIFFER],
            "latency: nothing was timed; 8% of labels differ in 51 pairs",
            id="several",
        ),
    ],
)
def test_evidence_is_told_in_numbers_when_there_are_any(metrics: list[Any], said: str) -> None:
    """The challenger's number first, then the champion's."""
    assert evidence_line(metrics) == said


def test_every_step_is_told_once_when_it_is_reached() -> None:
    """From the checks over a passed stage to the end that evidence brought."""
    passed = {"percent": 5, "verdict": "success", "observed_seconds": 12.3, "metrics": [ERRORS]}
    story = [
        ROLLOUT,
        replace(ROLLOUT, evidence=CHECKS, phase=Phase.VALIDATED),
        replace(ROLLOUT, evidence=CHECKS | {"benchmark": CHECKS}, phase=Phase.BENCHMARKED),
        replace(ROLLOUT, evidence=CHECKS | {"benchmark": CHECKS}, status=status("observe")),
        replace(ROLLOUT, evidence=CHECKS | {"benchmark": CHECKS}, status=status("set", 1, passed=[passed])),
        replace(
            ROLLOUT,
            evidence=CHECKS | {"benchmark": CHECKS},
            status=status(
                "ending", 1, passed=[passed], end="rolled_back", reason="at 100 %: slow", metrics=[SLOW]
            ),
        ),
    ]
    said = [news(before, now) for before, now in zip([None, *story], story, strict=False)]
    assert said == [
        [],
        ["validation: 1 checks passed"],
        ["benchmark:  1 checks passed"],
        ["  5 %: every worker sends this share of the traffic to version 5"],
        ["  5 %: success after 12 s; errors 0 of 50 against 1 of 900"],
        ["100 %: rolled back, slow", "       p95 60.0 ms against 3.0 ms (x20.0, +57.0 ms)"],
    ]
    assert [news(each, each) for each in story] == [[]] * len(story)


def test_end_is_told_when_serving_acted_before_the_rollout_did() -> None:
    """Its status is then still that of the stage."""
    going_on = replace(ROLLOUT, status=status("observe"))
    over = replace(going_on, state=State.ROLLED_BACK, reason="serving ejected it: 2 of 8 failed")
    assert news(going_on, over) == ["  5 %: rolled back, serving ejected it: 2 of 8 failed"]
    assert news(over, over) == []


def test_reason_is_told_when_a_rollout_is_held() -> None:
    """And nothing is said anew when it goes on with the stage it was in."""
    held = replace(ROLLOUT, status=status("held", reason="latency of both versions is off"))
    going_on = replace(ROLLOUT, status=status("observe"))
    assert news(going_on, held) == ["  5 %: held, latency of both versions is off"]
    assert news(held, going_on) == []


def test_refusal_is_told_when_a_check_failed() -> None:
    """With its reason; a rollout without stages has no more to tell."""
    refused = replace(ROLLOUT, evidence=CHECKS | {"passed": False, "reason": "worse"}, spec=None, status=None)
    assert news(None, refused) == ["validation: failed: worse"]


def test_present_stage_is_told_when_there_is_one() -> None:
    """Before the first stage, and of a rollout without stages, the step of the promotion."""
    staged = replace(ROLLOUT, phase=Phase.RESTORE_POINT, status=status("observe", 1, observed_seconds=3.7))
    assert present(staged) == "version 5 at 100 %: observe, 4 s observed"
    assert present(replace(ROLLOUT, phase=Phase.VALIDATED)) == "version 5: validated"
    assert present(replace(staged, status=None)) == "version 5: restore point"


def test_failed_metrics_are_those_of_the_last_judgement() -> None:
    judged = replace(ROLLOUT, status=status("ending", metrics=[ERRORS, SLOW]))
    assert failed_metrics(judged) == ["latency"]
    assert failed_metrics(replace(ROLLOUT, status=None)) == []
