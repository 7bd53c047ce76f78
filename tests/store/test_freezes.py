"""Freezes: nothing is promoted until they end, whoever asks; and who did it is told."""

from datetime import timedelta

import pytest
from sqlalchemy import Engine

from serving.core.errors import ChangeRefused, NotServed
from serving.store import audit, freezes, rollouts
from serving.store.rollouts import Request, State
from tests.store.points import MODEL, NOW

LATER = NOW + timedelta(hours=2)


def promote(engine: Engine, model: str = MODEL, minutes: float = 0) -> rollouts.Entry:
    at = NOW + timedelta(minutes=minutes)
    request = Request(model=model, version="2", strategy="direct", requested_by="bob")
    return rollouts.enter(engine, request, at, at)


@pytest.mark.parametrize("model", [MODEL, None])
def test_promotion_is_refused_when_the_model_is_frozen(engine: Engine, model: str | None) -> None:
    """The sentence names who, until when and why; no row is left."""
    freezes.freeze(engine, model, LATER, "anna", "big sale", NOW)
    with pytest.raises(ChangeRefused, match=r"frozen by anna until 2026-01-01T02:00:00\+00:00 \(big sale\)"):
        promote(engine)
    assert rollouts.recent(engine) == []


@pytest.mark.parametrize(("minutes", "is_frozen"), [(119.99, True), (120, False)])
def test_promotion_begins_when_the_freeze_is_over(engine: Engine, minutes: float, is_frozen: bool) -> None:
    freezes.freeze(engine, MODEL, LATER, "anna", "", NOW)
    if is_frozen:
        with pytest.raises(ChangeRefused):
            promote(engine, minutes=minutes)
    else:
        assert promote(engine, minutes=minutes).created


def test_other_models_are_promoted_when_one_is_frozen(engine: Engine) -> None:
    freezes.freeze(engine, MODEL, LATER, "anna", "", NOW)
    assert promote(engine, "other").created


def test_rollout_that_is_open_is_joined_when_frozen_since(engine: Engine) -> None:
    """What was begun goes on; a freeze is about what begins."""
    first = promote(engine)
    freezes.freeze(engine, MODEL, LATER, "anna", "", NOW)
    again = promote(engine, minutes=1)
    assert (again.created, again.rollout.id, again.rollout.state) == (False, first.rollout.id, State.OPEN)


def test_freeze_ends_when_lifted(engine: Engine) -> None:
    """Once; each step is audited."""
    freezes.freeze(engine, MODEL, LATER, "anna", "", NOW)
    assert str(freezes.lift(engine, MODEL, "bob", NOW)).startswith("'digits' is frozen by anna")
    assert freezes.in_force(engine, NOW) == []
    assert promote(engine).created
    with pytest.raises(NotServed, match="there is no freeze of 'digits'"):
        freezes.lift(engine, MODEL, "bob", NOW)
    steps = [(row.entry.actor, row.entry.details["step"]) for row in audit.tail(engine, 10, action="freeze")]
    assert sorted(steps) == [("anna", "frozen"), ("bob", "lifted")]


def test_freeze_replaces_an_earlier_one_of_the_same_model(engine: Engine) -> None:
    """And what lasts longest counts, of one for the model and one for all."""
    freezes.freeze(engine, MODEL, LATER, "anna", "first", NOW)
    freezes.freeze(engine, MODEL, NOW + timedelta(hours=1), "anna", "second", NOW)
    freezes.freeze(engine, None, LATER, "carl", "all", NOW)
    assert [f.reason for f in freezes.in_force(engine, NOW)] == ["all", "second"]
    found = freezes.of_model(engine, MODEL, NOW)
    assert found is not None
    assert found.reason == "all"


def test_freeze_is_refused_when_its_end_is_over(engine: Engine) -> None:
    with pytest.raises(ChangeRefused, match="is over already"):
        freezes.freeze(engine, MODEL, NOW, "anna", "", NOW)
