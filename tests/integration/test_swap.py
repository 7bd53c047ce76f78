"""The swap law under load: no request fails, and nobody is answered by the old version after the new."""

from time import monotonic

import pytest

from tests.integration.conftest import StartServing
from tests.mlflow_registry import MlflowRegistry
from tests.traffic import Move, Traffic, failed, first_answer_seconds, old_after_new, wrong

pytestmark = pytest.mark.integration

MOVES = 10


@pytest.mark.parametrize("recipes", [("onnx:1", "onnx:2"), ("torch:1", "onnx:2")], ids=["onnx", "mixed"])
def test_swap_loses_and_mixes_nothing_when_alias_moves_under_load(
    registry: MlflowRegistry, start_serving: StartServing, recipes: tuple[str, str]
) -> None:
    """Ten moves to and fro at 100 requests a second: 0 failed, 0 wrong, 0 old answers begun after a new."""
    model = registry.model(*recipes, prefix="swap")
    model.point("1")
    serving = start_serving(model.name)
    moves = []
    with Traffic(serving.url, model.name, rate_per_second=100) as traffic:
        for number in range(MOVES):
            version = "2" if number % 2 == 0 else "1"
            began, before = monotonic(), traffic.answers_of(version)
            model.point(version)
            moves.append(Move(began, monotonic(), version))
            wanted = before + 10
            serving.wait(lambda v=version, n=wanted: traffic.answers_of(v) >= n, f"{version} answers")  # type: ignore[misc]
    samples = traffic.samples
    assert failed(samples) == []
    assert wrong(samples, model.constants) == []
    assert old_after_new(samples, moves) == []
    assert max(first_answer_seconds(samples, moves)) < 5
    serving.assert_nothing_lost()
