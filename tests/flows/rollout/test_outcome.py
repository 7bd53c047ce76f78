"""A promotion's end as a value: terminal state, notice, whether whoever asked got it."""

from datetime import UTC, datetime

import pytest

from flows.rollout.outcome import Outcome, Verdict, notice_of, state_of
from serving.store.outbox import Severity
from serving.store.rollouts import Phase, Rollout, State

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ENDS = [verdict for verdict in Verdict if verdict.value in {state.value for state in State}]
ROLLOUT = Rollout(
    id="r1",
    model="digits",
    version="2",
    strategy="direct",
    state=State.OPEN,
    phase=Phase.APPLIED,
    requested_by="anna",
    reason="",
    policy={},
    restore_point={"champion": "1"},
    evidence=None,
    created_at=NOW,
    updated_at=NOW,
    finished_at=None,
)


def test_every_terminal_state_is_a_verdict() -> None:
    """A state nobody can reach, or a verdict nobody can keep, would be a hole in the record."""
    assert {state_of(verdict) for verdict in ENDS} == set(State) - {State.OPEN}


@pytest.mark.parametrize("verdict", sorted(set(Verdict) - set(ENDS)))
def test_verdict_that_ends_no_rollout_has_no_state(verdict: Verdict) -> None:
    with pytest.raises(ValueError, match=verdict):
        state_of(verdict)


@pytest.mark.parametrize("verdict", list(Verdict))
def test_outcome_is_good_when_the_version_is_or_is_being_promoted(verdict: Verdict) -> None:
    assert Outcome(verdict, "").is_good is (verdict in (Verdict.PROMOTED, Verdict.JOINED))


@pytest.mark.parametrize("verdict", ENDS)
def test_notice_tells_the_whole_story(verdict: Verdict) -> None:
    notice = notice_of(ROLLOUT, verdict, "because")
    assert notice.severity is (Severity.INFO if verdict is Verdict.PROMOTED else Severity.WARNING)
    assert "2 of digits" in notice.title
    assert (notice.model, notice.version, notice.dedup_key) == ("digits", "2", "rollout:r1")
    facts = {"reason": "because", "rollout": "r1", "requested_by": "anna", "from": "1", "to": "2"}
    assert notice.facts == facts


def test_notice_is_a_refusal_when_serving_rolled_the_version_back() -> None:
    """Serving tells of the rollback; this tells what became of the promotion."""
    assert notice_of(ROLLOUT, Verdict.ROLLED_BACK, "").kind == "refused"
