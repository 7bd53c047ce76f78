"""A request that its alias took back, or another version took over, before any traffic."""

from collections.abc import Callable

import pytest

from flows.rollout.outcome import Outcome, Verdict
from flows.rollout.succession import PATIENCE_SECONDS, recorded
from serving.core.model import Tag
from serving.store.rollouts import Entry, State
from tests.flows.rollout.line import MODEL, Line
from tests.flows.rollout.registrar import Registrar


def unset(registrar: Registrar) -> None:
    registrar.point(MODEL, None, "challenger")


def moved(registrar: Registrar) -> None:
    registrar.point(MODEL, "3", "challenger")


@pytest.mark.parametrize("step", ["validated", "benchmarked"])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (unset, "alias challenger was deleted since it was asked for"),
        (moved, "alias challenger was moved to 3 since it was asked for"),
    ],
)
def test_promotion_is_superseded_when_its_alias_is_taken_away(
    line: Line, registrar: Registrar, step: str, change: Callable[[Registrar], None], words: str
) -> None:
    """The champion stays, and what the hand chose is left as it is."""
    registrar.point(MODEL, "2", "challenger")
    line.at[step] = lambda: change(registrar)
    outcome = line.promote(None)
    assert (outcome.verdict, outcome.reason) == (Verdict.SUPERSEDED, words)
    assert registrar.named(MODEL) == "1"
    assert registrar.named(MODEL, "challenger") == ("3" if change is moved else None)
    assert registrar.tags("2")[Tag.VERDICT] == f"superseded: {words}"


def test_promotion_that_no_alias_asked_for_needs_none(line: Line, registrar: Registrar) -> None:
    assert line.promote("2").verdict is Verdict.PROMOTED


def test_progress_is_shown_when_a_promotion_has_begun(line: Line, registrar: Registrar) -> None:
    """The rollout's id and that it goes on, before the first check."""
    seen: list[dict[str, str]] = []
    line.at["validated"] = lambda: seen.append(dict(registrar.tags("2")))
    outcome = line.promote("2")
    assert outcome.rollout is not None
    assert seen == [{Tag.ROLLOUT: outcome.rollout.id, Tag.VERDICT: "open: validation and benchmark"}]


# The version that the alias moved to


def test_next_version_is_recorded_once_the_one_before_has_ended(line: Line, registrar: Registrar) -> None:
    """It asks while the older one still works, and gets its turn without the minutely flow."""
    registrar.point(MODEL, "2", "challenger")
    before = line.enter("2")
    moved(registrar)
    ending = iter([lambda: line.carry_on(before)])
    line.meanwhile = lambda: next(ending, lambda: None)()
    entry = recorded(line.engine, line.registry, line.ask("3"), line.clock, line.pause)
    assert isinstance(entry, Entry)
    assert (entry.rollout.version, entry.created) == ("3", True)
    assert [rollout.state for rollout in line.rollouts()] == [State.SUPERSEDED, State.OPEN]


@pytest.mark.parametrize(("named", "waited"), [("2", 0.0), ("3", PATIENCE_SECONDS)])
def test_other_version_is_busy_when_the_alias_is_not_its_own_or_nothing_ends(
    line: Line, registrar: Registrar, named: str, waited: float
) -> None:
    registrar.point(MODEL, "2", "challenger")
    line.enter("2")
    registrar.point(MODEL, named, "challenger")
    line.follows = False
    outcome = recorded(line.engine, line.registry, line.ask("3"), line.clock, line.pause)
    assert isinstance(outcome, Outcome)
    assert outcome.verdict is Verdict.BUSY
    assert line.clock.elapsed_seconds == waited
