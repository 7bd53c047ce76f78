"""A promotion killed with `kill -9` after each of its durable writes: the next run carries it to its end."""

import signal

import pytest

from flows.rollout.outcome import Verdict
from serving.core.model import Alias, Tag
from serving.store import changes
from serving.store.rollouts import State
from tests.flows.rollout.doomed import promote_and_die
from tests.flows.rollout.line import MODEL, SLOWER, WORSE, Judgement, Line
from tests.flows.rollout.registrar import Registrar

# Commits and registry writes of an undisturbed run; `test_writes_are_counted_right` keeps them right.
PROMOTED_WRITES = 21
REFUSED_WRITES = 14
TOO_SLOW_WRITES = 15
KILLED = -signal.SIGKILL


def carried_on(line: Line) -> Verdict | None:
    """The second run, an hour later; None where the first had come to its end."""
    line.clock.advance(3600)
    before = line.clock.elapsed_seconds
    if not (line.rollouts() and line.rollouts()[0].state.is_terminal):
        outcome = line.promote("2")
        assert line.clock.elapsed_seconds - before <= 60, "taken over within seconds of the 30"
        return outcome.verdict
    return None


def assert_told_once(line: Line, state: State) -> None:
    [rollout] = line.rollouts()
    assert rollout.state is state
    assert line.notices() == [(state.value, "2")]
    ends = [step for step in line.steps() if step in set(State)]
    assert ends == [state.value]
    line.assert_intact()


@pytest.mark.fault("F7")
@pytest.mark.parametrize("writes", range(PROMOTED_WRITES))
def test_version_is_promoted_when_the_first_run_was_killed(
    line: Line, registrar: Registrar, store_url: str, writes: int
) -> None:
    """The alias is the old or the new one at every moment, and there is one rollout with one end."""
    registrar.point(MODEL, "2", "challenger")
    assert promote_and_die(store_url, registrar.url, Judgement(), Judgement(), writes) == KILLED
    assert registrar.named(MODEL) in ("1", "2")
    assert carried_on(line) in (Verdict.PROMOTED, None)
    assert registrar.named(MODEL) == "2"
    assert_told_once(line, State.PROMOTED)
    assert line.made() == [("1", "2", changes.Outcome.APPLIED)]
    assert changes.open_intents(line.engine, MODEL, Alias.CHAMPION) == []


@pytest.mark.fault("F7")
@pytest.mark.parametrize("writes", range(REFUSED_WRITES))
def test_version_is_refused_when_the_first_run_was_killed(
    line: Line, registrar: Registrar, store_url: str, writes: int
) -> None:
    """A refusal that was on its way does not turn into a promotion."""
    registrar.point(MODEL, "2", "challenger")
    line.judgement = WORSE
    assert promote_and_die(store_url, registrar.url, WORSE, Judgement(), writes) == KILLED
    assert carried_on(line) in (Verdict.REFUSED, None)
    assert_refused(line, registrar)


@pytest.mark.fault("F7")
@pytest.mark.parametrize("writes", range(TOO_SLOW_WRITES))
def test_version_is_refused_for_its_cost_when_the_first_run_was_killed(
    line: Line, registrar: Registrar, store_url: str, writes: int
) -> None:
    """A failed benchmark refuses as a failed validation does, whoever of the two runs measured it."""
    registrar.point(MODEL, "2", "challenger")
    line.cost = SLOWER
    assert promote_and_die(store_url, registrar.url, Judgement(), SLOWER, writes) == KILLED
    assert carried_on(line) in (Verdict.REFUSED, None)
    assert_refused(line, registrar)


def assert_refused(line: Line, registrar: Registrar) -> None:
    assert registrar.named(MODEL) == "1"
    assert registrar.tags("2").get(Tag.VALIDATION) in ("failed", None)
    assert_told_once(line, State.REFUSED)


@pytest.mark.parametrize(
    ("judgement", "cost", "writes"),
    [
        pytest.param(Judgement(), Judgement(), PROMOTED_WRITES, id="good"),
        pytest.param(WORSE, Judgement(), REFUSED_WRITES, id="worse"),
        pytest.param(Judgement(), SLOWER, TOO_SLOW_WRITES, id="slower"),
    ],
)
def test_writes_are_counted_right(
    line: Line, registrar: Registrar, store_url: str, judgement: Judgement, cost: Judgement, writes: int
) -> None:
    """One write less than a whole run makes is killed, the whole run is not."""
    registrar.point(MODEL, "2", "challenger")
    assert promote_and_die(store_url, registrar.url, judgement, cost, writes) == 0
    assert line.rollouts()[0].state.is_terminal
