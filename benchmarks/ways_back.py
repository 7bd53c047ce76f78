"""P8 and P13: how soon a rollback holds for all traffic, and how soon a server is there."""

from collections.abc import Sequence
from time import perf_counter

import numpy as np

from benchmarks.ground import Ground
from benchmarks.memory import resident_mb
from benchmarks.row import Row, within
from tests.mlflow_registry import RegisteredModel
from tests.serving_process import ServingProcess


def ways_back(place: Ground, *, repeats: int) -> list[Row]:
    """Each way so many times; without MLflow a model goes back once, so that every time is a first one."""
    instant, emergency = _instant_ms(place, repeats), _emergency_ms(place, repeats)
    return [
        _row("instant rollback, command to old answer, p95", instant),
        _row("emergency rollback with MLflow and Prefect down, p95", emergency),
    ]


def _row(what: str, times_ms: Sequence[float]) -> Row:
    told = f"{len(times_ms)} times, {min(times_ms):.3g} to {max(times_ms):.3g} ms"
    return within("P8", what, float(np.percentile(times_ms, 95)), 250.0, "ms", told)


def _instant_ms(place: Ground, repeats: int) -> list[float]:
    model = place.registry.model("onnx:1", "onnx:2", prefix="back")
    model.point("1")
    found = []
    with place.serving("back", model.name, poll_seconds=0.1) as serving:
        for _ in range(repeats):
            _forward(serving, model)
            found.append(_back_ms(serving, model.name, "instant"))
            serving.wait(lambda: _wanted(serving, model.name) == "1", "the registry was told and read", 30)
    return found


def _emergency_ms(place: Ground, repeats: int) -> list[float]:
    """Prefect is away in every serving benchmark; MLflow is stopped for all of these together."""
    models = [place.registry.model("onnx:1", "onnx:2", prefix="alone") for _ in range(repeats)]
    for model in models:
        model.point("1")
    with place.serving("alone", "alone-*", poll_seconds=0.1, max_models=3 * repeats) as serving:
        for model in models:
            _forward(serving, model)
        place.registry.server.stop()
        try:
            return [_back_ms(serving, model.name, "emergency") for model in models]
        finally:
            place.registry.server.start()


def starting(place: Ground) -> list[Row]:
    """A server with three ONNX models, from its start to ready; files are cached from a first start."""
    models = [place.registry.model(f"onnx:{constant}", prefix="start") for constant in (1, 2, 1)]
    for model in models:
        model.point("1")
    with place.serving("start", "start-*"):
        pass
    with place.serving("start", "start-*") as serving:
        seconds = _seconds_to_ready(serving)
        held_mb = resident_mb(serving.pid)
    return [
        within("P13", "start with three ONNX models, to ready", seconds, 3.0, "s"),
        within("P13", "resident memory then", held_mb, 250.0, "MB"),
    ]


def _seconds_to_ready(serving: ServingProcess) -> float:
    serving.terminate()
    started = perf_counter()
    serving.start_ready()
    return perf_counter() - started


def _wanted(serving: ServingProcess, model: str) -> object:
    """What serving last read the registry to want, so that the next move by hand is news to it."""
    return serving.model(model)["aliases"].get("champion", {}).get("wanted")


def _forward(serving: ServingProcess, model: RegisteredModel) -> None:
    model.point("2")
    serving.wait_for(model.name, "2", seconds=30)


def _back_ms(serving: ServingProcess, model: str, strategy: str) -> float:
    started = perf_counter()
    serving.roll_back(model, strategy=strategy)
    serving.wait_for(model, "1", seconds=30)
    return (perf_counter() - started) * 1000
