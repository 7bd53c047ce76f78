"""P8 and P13: how soon a rollback holds for all traffic, and how soon a server is there."""

from collections.abc import Callable
from time import perf_counter

from benchmarks.ground import Ground
from benchmarks.memory import resident_mb
from benchmarks.row import Row, within
from tests.serving_process import ServingProcess


def ways_back(place: Ground, *, repeats: int) -> list[Row]:
    model = place.registry.model("onnx:1", "onnx:2", prefix="back")
    model.point("1")
    instant, emergency = [], []
    with place.serving("back", model.name, poll_seconds=0.1) as serving:
        for _ in range(repeats):
            _forward(serving, model.name, lambda: model.point("2"))
            instant.append(_back_ms(serving, model.name, "instant"))
            serving.wait(lambda: _wanted(serving, model.name) == "1", "the registry was told and read", 30)
    with place.serving("back-alone", model.name, poll_seconds=0.1) as serving:
        _forward(serving, model.name, lambda: model.point("2"))
        place.registry.server.stop()
        try:
            emergency.append(_back_ms(serving, model.name, "emergency"))
        finally:
            place.registry.server.start()
    return [
        within("P8", "instant rollback, command to old answer, worst", max(instant), 250.0, "ms"),
        within("P8", "emergency rollback with MLflow down", max(emergency), 250.0, "ms"),
    ]


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


def _forward(serving: ServingProcess, model: str, point: Callable[[], None]) -> None:
    point()
    serving.wait_for(model, "2", seconds=30)


def _back_ms(serving: ServingProcess, model: str, strategy: str) -> float:
    started = perf_counter()
    serving.roll_back(model, strategy=strategy)
    serving.wait_for(model, "1", seconds=30)
    return (perf_counter() - started) * 1000
