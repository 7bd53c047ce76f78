"""A memory budget that is too small for all models: everything answers, and memory stays within it."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from tests.integration.conftest import StartServing
from tests.mlflow_registry import MlflowRegistry
from tests.serving_process import Answer

pytestmark = [pytest.mark.integration, pytest.mark.fault("F20")]

MODELS, IN_MEMORY, ROUNDS = 5, 2, 4


def test_every_model_answers_when_more_are_asked_at_once_than_fit(
    registry: MlflowRegistry, start_serving: StartServing
) -> None:
    """All of them, all the time, each with its own answer; at most as many in memory as allowed."""
    models = [registry.model(f"onnx:{number % 3 + 1}", prefix=f"storm{number}") for number in range(MODELS)]
    for model in models:
        model.point("1")
    serving = start_serving("storm*", max_models=IN_MEMORY, min_residency_seconds=0.2)
    start = Barrier(MODELS)

    def ask(number: int) -> list[Answer]:
        start.wait(20)
        return [serving.infer(models[number].name) for _ in range(ROUNDS)]

    with ThreadPoolExecutor(MODELS) as callers:
        answers = list(callers.map(ask, range(MODELS)))
    for number, given in enumerate(answers):
        assert {(answer.status, answer.added) for answer in given} == {(200, number % 3 + 1)}
    loaded = [
        version["loaded"]
        for model in models
        for version in serving.model(model.name)["versions"]
        if version["version"] == "1"
    ]
    assert sum(loaded) <= IN_MEMORY
    evicted = sum(len(serving.audited("evict", model.name)) for model in models)
    # Each caller's turn costs at most one eviction: no model was thrown out before it answered somebody.
    assert MODELS - IN_MEMORY <= evicted <= 2 * MODELS * ROUNDS
    assert serving.call("GET", "/v2/health/ready").status_code == 200
    serving.assert_nothing_lost()
