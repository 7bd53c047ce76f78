"""What flow `promote-model` makes of parameters that cannot be read, without a Prefect."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from flows.promote import unusable
from flows.rollout.outcome import Verdict
from flows.wiring import Wiring, wired
from serving.store import outbox, rollouts
from serving.store.database import upgrade
from serving.store.rollouts import Request, Rollout, State
from serving.store.text import JsonValue
from tests.flows.conftest import SettingsFactory

PROBLEM = "a parameter cannot be used: min_accuracy is a share between 0 and 1, not 5.0"


@pytest.fixture
def wiring(make_settings: SettingsFactory) -> Iterator[Wiring]:
    """Of a registry that nobody can reach."""
    settings = make_settings(mlflow_url="http://127.0.0.1:9")
    upgrade(settings.database_url)
    with wired(settings) as wiring:
        yield wiring


def opened(wiring: Wiring, **policy: JsonValue) -> Rollout:
    now = wiring.clock.now()
    asked = Request(model="m", version="2", strategy="staged", requested_by="anna", policy=policy)
    return rollouts.enter(wiring.engine, asked, now, now).rollout


def state(engine: Engine, rollout: Rollout) -> State:
    return rollouts.get(engine, rollout.id).state


def test_parameters_end_the_open_rollout_whose_own_they_are(wiring: Wiring) -> None:
    """It could never begin; the registry, being away, is told later."""
    rollout = opened(wiring, min_accuracy=5.0)
    outcome = unusable(wiring, "m", "2", PROBLEM)
    assert outcome.verdict is Verdict.REFUSED
    assert rollouts.get(wiring.engine, rollout.id).reason == PROBLEM
    assert state(wiring.engine, rollout) is State.REFUSED
    assert [row.notice.kind for row in outbox.recent(wiring.engine)] == ["refused"]
    assert "the registry was not told" in outcome.warnings[0]


@pytest.mark.parametrize(
    ("model", "version", "policy"),
    [
        pytest.param("m", "2", {"min_accuracy": 0.5}, id="its own can be read"),
        pytest.param("m", "3", {"min_accuracy": 5.0}, id="another version"),
        pytest.param("n", "2", {"min_accuracy": 5.0}, id="another model"),
    ],
)
def test_parameters_end_no_rollout_that_is_not_theirs(
    wiring: Wiring, model: str, version: str, policy: dict[str, JsonValue]
) -> None:
    rollout = opened(wiring, **policy)
    outcome = unusable(wiring, model, version, PROBLEM)
    assert (outcome.verdict, outcome.reason, outcome.rollout) == (Verdict.REFUSED, PROBLEM, None)
    assert state(wiring.engine, rollout) is State.OPEN
