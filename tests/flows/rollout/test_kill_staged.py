"""A staged rollout killed with `kill -9` after each of its durable writes: the next run carries it on."""

import signal

import pytest

from flows.rollout.outcome import Verdict
from flows.rollout.promotion import record, tidy
from serving.core.model import Alias, Tag
from serving.core.traffic import Split, read_tag
from serving.store import changes
from serving.store.rollouts import Entry, State
from tests.flows.rollout.doomed import PLAN, stage_and_die
from tests.flows.rollout.line import MODEL, Line
from tests.flows.rollout.registrar import Registrar
from tests.flows.rollout.test_kill import KILLED
from tests.flows.rollout.witness import Says, Witness, erroneous, healthy

# Commits and registry writes of an undisturbed run; `test_writes_are_counted_right` keeps them right.
PROMOTED_WRITES = 52
ROLLED_BACK_WRITES = 37


def carried_on(line: Line, says: Says) -> Verdict | None:
    """The second run, an hour later; where the first had come to its end, what tend does then."""
    line.clock.advance(3600)
    line.evidence = Witness(says)
    present = line.rollouts()
    if present and present[0].state.is_terminal:
        lease = line.leases.preempt(f"model:{MODEL}", "tend")
        assert tidy(present[0], line.registry, line.guard, lambda: lease) == ()
        return None
    entry = record(line.engine, line.registry, line.ask("2", by="tend"), line.clock)
    assert isinstance(entry, Entry)
    return line.carry_on(entry.rollout).verdict


def assert_sound(registrar: Registrar) -> None:
    """At every moment: one of the two answers, and a split only for the rollout's version."""
    assert registrar.named(MODEL) in ("1", "2")
    split = read_tag(registrar.models[MODEL].tags.get(Tag.TRAFFIC))
    assert split is None or (isinstance(split, Split) and split.challenger == "2")


def assert_ended(line: Line, registrar: Registrar, state: State, champion: str) -> None:
    [rollout] = line.rollouts()
    assert rollout.state is state
    assert [kind for kind, _ in line.notices()] == [state.value]
    assert [step for step in line.steps() if step in set(State)] == [state.value]
    assert (registrar.named(MODEL), registrar.named(MODEL, "challenger")) == (champion, None)
    assert Tag.TRAFFIC not in registrar.models[MODEL].tags
    for entry in (Alias.CHAMPION, Tag.TRAFFIC):
        assert changes.open_intents(line.engine, MODEL, entry) == []
    line.assert_intact()


@pytest.mark.fault("F7")
@pytest.mark.parametrize("writes", range(1, PROMOTED_WRITES))
def test_version_is_promoted_when_the_first_run_was_killed(
    line: Line, registrar: Registrar, store_url: str, writes: int
) -> None:
    """Whatever was lost, every stage is observed in full by somebody, and the alias moves once."""
    assert stage_and_die(store_url, registrar.url, healthy, writes) == KILLED
    assert_sound(registrar)
    carried_on(line, healthy)
    assert_ended(line, registrar, State.PROMOTED, "2")
    [rollout] = line.rollouts()
    passed = (rollout.status or {})["passed"]
    assert [each["percent"] for each in passed] == PLAN["stages"]
    assert all(each["observed_seconds"] >= 4 for each in passed)
    assert line.made() == [("1", "2", changes.Outcome.APPLIED)]


@pytest.mark.fault("F7")
@pytest.mark.parametrize("writes", range(1, ROLLED_BACK_WRITES))
def test_version_is_rolled_back_when_the_first_run_was_killed(
    line: Line, registrar: Registrar, store_url: str, writes: int
) -> None:
    """A verdict on its way does not get lost: no traffic, no challenger, the old champion."""
    assert stage_and_die(store_url, registrar.url, erroneous, writes) == KILLED
    assert_sound(registrar)
    carried_on(line, erroneous)
    assert_ended(line, registrar, State.ROLLED_BACK, "1")


@pytest.mark.parametrize(
    ("says", "writes"),
    [
        pytest.param(healthy, PROMOTED_WRITES, id="good"),
        pytest.param(erroneous, ROLLED_BACK_WRITES, id="bad"),
    ],
)
def test_writes_are_counted_right(
    line: Line, registrar: Registrar, store_url: str, says: Says, writes: int
) -> None:
    """One write less than a whole run makes is killed, the whole run is not."""
    assert stage_and_die(store_url, registrar.url, says, writes) == 0
    assert stage_and_die(store_url, registrar.url, says, 0) == -signal.SIGKILL
    assert line.rollouts()[0].state.is_terminal
