"""What tend does about a model: a table over challenger, open rollout and last verdict."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from flows.rollout.attention import ABANDONED_AFTER, MISSED_AFTER, Action, attention
from serving.store.rollouts import Phase, Rollout, State
from serving.store.sightings import Sighting

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
TICK = timedelta(microseconds=1)


def rollout(state: State = State.OPEN, *, version: str = "2", at: datetime = NOW) -> Rollout:
    return Rollout(
        id="r",
        model="digits",
        version=version,
        strategy="direct",
        state=state,
        phase=Phase.REQUESTED,
        requested_by="anna",
        reason="",
        policy={},
        restore_point=None,
        evidence=None,
        created_at=at,
        updated_at=at,
        finished_at=at if state.is_terminal else None,
    )


def challenger(seen_at: datetime = NOW - MISSED_AFTER) -> Sighting:
    return Sighting("digits", "challenger", "2", seen_at)


@pytest.mark.parametrize(
    ("seen", "opened", "decided", "expected"),
    [
        pytest.param(None, None, None, Action.NONE, id="nothing wanted"),
        pytest.param(challenger(), None, None, Action.START, id="missed"),
        pytest.param(challenger(NOW - MISSED_AFTER + TICK), None, None, Action.NONE, id="just set"),
        pytest.param(challenger(), rollout(), None, Action.NONE, id="under way"),
        pytest.param(challenger(), rollout(at=NOW - ABANDONED_AFTER), None, Action.TAKE_UP, id="abandoned"),
        pytest.param(
            None, rollout(at=NOW - ABANDONED_AFTER), None, Action.TAKE_UP, id="abandoned without alias"
        ),
        pytest.param(
            challenger(), rollout(at=NOW - ABANDONED_AFTER + TICK), None, Action.NONE, id="not abandoned yet"
        ),
        pytest.param(challenger(), None, rollout(State.REFUSED), Action.TIDY, id="refused, alias still set"),
        pytest.param(
            challenger(NOW - MISSED_AFTER),
            None,
            rollout(State.REFUSED, at=NOW - MISSED_AFTER),
            Action.TIDY,
            id="refused at the very moment of the sighting",
        ),
        pytest.param(
            challenger(NOW - MISSED_AFTER),
            None,
            rollout(State.REFUSED, at=NOW - MISSED_AFTER - TICK),
            Action.START,
            id="set again after the refusal",
        ),
        pytest.param(
            challenger(), None, rollout(State.REFUSED, version="3"), Action.START, id="another was refused"
        ),
    ],
)
def test_attention(
    seen: Sighting | None, opened: Rollout | None, decided: Rollout | None, expected: Action
) -> None:
    """Both sides of every boundary."""
    assert attention(seen, opened, decided, NOW).action is expected


def test_attention_never_restarts_a_refused_challenger_however_long_it_stays() -> None:
    """No restart loop: the verdict stands until the alias is set anew."""
    refused = rollout(State.REFUSED)
    for minutes in range(1, 600, 7):
        later = NOW + timedelta(minutes=minutes)
        assert attention(challenger(), None, refused, later).action is Action.TIDY
    assert attention(replace(challenger(), seen_at=NOW + TICK), None, refused, later).action is Action.START
