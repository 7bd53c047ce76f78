"""P4 for large versions: from the alias to the first answer, downloaded first and from the local cache."""

from time import perf_counter

from benchmarks.ground import Ground
from benchmarks.memory import resident_mb
from benchmarks.models import LAYER_MB
from benchmarks.row import Row, attempted, within
from tests.mlflow_registry import RegisteredModel, logged_by
from tests.serving_process import ServingProcess

_BUDGET_MB = 8192
_LONGEST_SECONDS = 120.0


def loading(place: Ground, *, sizes_mb: tuple[int, ...]) -> list[Row]:
    """Each size by itself: the largest may find too little disk or memory."""
    rows: list[Row] = []
    for size_mb in sizes_mb:
        rows += attempted("P4", f"{size_mb} MB", lambda size_mb=size_mb: _loaded(place, size_mb))  # type: ignore[misc]
    return rows


def _loaded(place: Ground, size_mb: int) -> list[Row]:
    recipe = f"heavy:1x{max(1, round(size_mb / LAYER_MB))}"
    if recipe not in place.registry.logged:
        place.registry.logged |= logged_by("benchmarks.models", place.registry.server.url, recipe)
    model = place.registry.model("onnx:1", recipe, "onnx:2", prefix="loading")
    model.point("1")
    name = f"loading-{size_mb}"
    with place.serving(name, model.name, memory_mb=_BUDGET_MB, poll_seconds=0.1) as serving:
        cold_seconds = _moved_seconds(serving, model, "2")
        for version in ("3", "1"):  # so that 2 is neither champion nor the one to go back to
            _moved_seconds(serving, model, version)
    with place.serving(name, model.name, memory_mb=_BUDGET_MB, poll_seconds=0.1) as serving:
        before_mb = resident_mb(serving.pid)
        cached_seconds = _moved_seconds(serving, model, "2")
        grown_mb = resident_mb(serving.pid) - before_mb
    if grown_mb < size_mb / 2:
        raise RuntimeError(f"it was in memory already: loading it took only {grown_mb:.0f} MB more")
    told = f"{cold_seconds:.2f} s"
    what = "alias write to first answer"
    return [
        Row("P4", f"{what}, {size_mb} MB, downloaded first", told, "", "", "", None),
        within("P4", f"{what}, {size_mb} MB, from the local cache", cached_seconds, 3.0, "s"),
    ]


def _moved_seconds(serving: ServingProcess, model: RegisteredModel, version: str) -> float:
    started = perf_counter()
    model.point(version)
    serving.wait_for(model.name, version, seconds=_LONGEST_SECONDS)
    return perf_counter() - started
