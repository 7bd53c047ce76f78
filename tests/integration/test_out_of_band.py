"""Moves made by hand in MLflow: followed, recorded once however many look, and `previous` written after."""

from typing import Any

import pytest

from serving.store import changes
from serving.store.changes import Outcome
from tests.integration.conftest import StartServing
from tests.mlflow_registry import MlflowRegistry
from tests.serving_process import ServingProcess
from tests.waiting import holds, until

pytestmark = pytest.mark.integration


def moves_by_hand(serving: ServingProcess, model: str) -> list[tuple[Any, str | None]]:
    """(from, to) of every audited move of `champion` that nobody of ours made."""
    entries = serving.audited("alias", model)
    return [(e.details["from"], e.version) for e in entries if e.details.get("out_of_band")]


def test_move_is_recorded_once_when_two_replicas_see_it_and_restart(
    registry: MlflowRegistry, start_serving: StartServing
) -> None:
    """One audit row and one notice per move, on a shared store, also after both were killed."""
    model = registry.model("onnx:1", "onnx:2", "onnx:3", prefix="hand")
    model.point("1")
    first = start_serving(model.name)
    replicas = [first, start_serving(model.name, store_url=first.store_url)]
    expected: list[tuple[Any, str | None]] = [(None, "1")]
    for version in ("2", "3"):
        expected.append((expected[-1][1], version))
        model.point(version)
        for replica in replicas:
            replica.wait_for(model.name, version)
        first.wait(lambda: moves_by_hand(first, model.name) == expected, "it is recorded")
    for replica in replicas:
        replica.kill()
        replica.start_ready()
    for replica in replicas:
        replica.wait(lambda r=replica: r.model(model.name)["registry_stale"] is None, "it follows again")  # type: ignore[misc]
    holds(lambda: moves_by_hand(first, model.name) == expected, f"recorded: {expected}", seconds=1.5)
    assert [n.version for n in first.notices("out_of_band", model.name)] == ["1", "2", "3"]
    with first.store() as engine:
        rows = changes.recent(engine, model.name)
        assert [r.to_version for r in rows if r.alias == "champion" and r.out_of_band] == ["3", "2", "1"]
    first.assert_nothing_lost()


def test_move_is_recorded_when_made_while_serving_was_down(
    registry: MlflowRegistry, start_serving: StartServing
) -> None:
    """A change nobody watched is still found by comparing with the last record."""
    model = registry.model("onnx:1", "onnx:2", prefix="hand")
    model.point("1")
    serving = start_serving(model.name)
    serving.wait(lambda: moves_by_hand(serving, model.name) == [(None, "1")], "the first is recorded")
    serving.kill()
    model.point("2")
    serving.start_ready()
    serving.wait_for(model.name, "2")
    serving.wait(lambda: moves_by_hand(serving, model.name)[1:] == [("1", "2")], "the move is recorded")
    serving.assert_nothing_lost()


def test_previous_is_written_when_champion_moves(
    registry: MlflowRegistry, start_serving: StartServing
) -> None:
    """`previous` follows one step behind, by one guarded write with intent and outcome, of two replicas."""
    model = registry.model("onnx:1", "onnx:2", "torch:2", prefix="hand")
    model.point("1")
    first = start_serving(model.name)
    second = start_serving(model.name, store_url=first.store_url)
    for version, before in (("2", "1"), ("3", "2"), ("1", "3")):
        model.point(version)
        first.wait_for(model.name, version)
        second.wait_for(model.name, version)
        until(lambda b=before: model.aliases().get("previous") == b, f"previous is {before}", seconds=30)  # type: ignore[misc]
        first.wait_for(model.name, before, "previous")
    with first.store() as engine:
        written = [row for row in changes.recent(engine, model.name) if row.alias == "previous"]
    assert {row.outcome for row in written} == {Outcome.APPLIED}
    assert [row.to_version for row in reversed(written)] == ["1", "2", "3"]
    first.assert_nothing_lost()
