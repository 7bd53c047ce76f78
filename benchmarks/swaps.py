"""P4, P5, P6 and P7: what moving an alias costs, whom it delays, and what it leaves behind."""

import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from time import monotonic, perf_counter

import httpx

from benchmarks.asked import Phase
from benchmarks.ground import Ground
from benchmarks.memory import growth_percent, resident_mb
from benchmarks.open_loop import Steady, Target, asking, steady
from benchmarks.row import Row, at_most, none_of, within
from tests.integration.swap_report import SECRET
from tests.mlflow_registry import CHAMPION, RegisteredModel
from tests.serving_process import ServingProcess, request_body
from tests.traffic import Move

_EVENTS = [{"entity": "MODEL_VERSION_ALIAS", "action": action} for action in ("CREATED", "DELETED")]
# More than stay in memory: every swap loads its version.
_RECIPES = ("onnx:1", "onnx:2", "onnx:1", "onnx:2")
_HEAVY = ("heavy:1", "heavy:2", "heavy:1", "heavy:2")
_X = 0.5
_WINDOW_SECONDS = 2.0
_SETTLING_SECONDS = 1.0  # connections are new, and the version may not have proven itself yet
_WORKERS = 2
# Enough answers to see within 5 ms that a version answers, and too few to be in anybody's way.
_LIGHT_PER_SECOND = 200.0
_LIGHT_SECONDS = 0.5


def swaps(place: Ground, *, moves: int, repeats: int, seconds: float) -> list[Row]:
    """`moves` swaps in `repeats` turns with as many quiet seconds; `seconds` to find the capacity."""
    model = place.registry.model(*_RECIPES, prefix="swaps")
    model.point("1")
    with place.serving("swaps", model.name) as serving:
        _webhook(place, serving)
        url = f"{serving.url}/v2/models/{model.name}/infer"
        target = Target(url, json.dumps(request_body(_X)).encode(), serving.home)
        light = _swaps(model, target, _LIGHT_PER_SECOND, moves, _LIGHT_SECONDS)
        load = steady(target, seconds=seconds)
        phases = list(_phases(model, target, load, moves // repeats, repeats))
        with asking(target, load.rate_per_second):
            health = _health_ms(serving)
    rows = [
        _soon("alias write to first new answer, p95", [light], f"{_LIGHT_PER_SECOND:g} requests a second")
    ]
    rows += _swap_rows(phases, load)
    rows.append(within("P7", "GET model-health under that load, p99", _at(health, 99), 10.0, "ms", str(load)))
    return rows


def _phases(
    model: RegisteredModel, target: Target, load: Steady, moves: int, repeats: int
) -> Iterator[tuple[Phase, Phase]]:
    """A quiet phase and one of swaps, as long and under the same load, `repeats` times in turn."""
    for _ in range(repeats):
        with asking(target, load.rate_per_second) as quiet:
            _pause(_SETTLING_SECONDS + moves * _WINDOW_SECONDS)
        yield (
            Phase(quiet.heard, (), model.constants, _X, _SETTLING_SECONDS),
            _swaps(model, target, load.rate_per_second, moves, _WINDOW_SECONDS),
        )


def _swaps(
    model: RegisteredModel, target: Target, rate_per_second: float, count: int, every_seconds: float
) -> Phase:
    """`count` swaps, each to the version after the one that answers now."""
    made: list[Move] = []
    with asking(target, rate_per_second) as busy:
        _pause(_SETTLING_SECONDS)
        for _ in range(count):
            made.append(_move(model))
            _pause(made[-1].began + every_seconds - monotonic())
    return Phase(busy.heard, tuple(made), model.constants, _X, _SETTLING_SECONDS)


def memory(place: Ground, *, count: int) -> list[Row]:
    """Resident memory of a server with two workers over many swaps of a 34 MB model."""
    model = place.registry.model(*_HEAVY, prefix="heavy")
    model.point("1")
    with place.serving("memory", model.name, poll_seconds=0.1, workers=_WORKERS) as serving:
        serving.wait_for(model.name, "1", seconds=60)
        resident: list[float] = []
        for number in range(count):
            version = str((number + 1) % len(_HEAVY) + 1)
            model.point(version)
            serving.wait_for(model.name, version, seconds=60)
            resident.append(resident_mb(serving.pid))
    told = f"{resident[count // 4]:.0f} MB after a quarter, {resident[-1]:.0f} MB at the end"
    what = f"growth of resident memory over {count} swaps of 34 MB, {_WORKERS} workers summed"
    return [within("P6", what, growth_percent(resident), 5.0, "%", told)]


def _swap_rows(phases: Sequence[tuple[Phase, Phase]], load: Steady) -> list[Row]:
    everything = [phase for pair in phases for phase in pair]
    total = sum(phase.count for phase in everything)
    tail = at_most(
        "P5",
        "p99 within 2 s of a swap",
        [busy.p99_ms for _, busy in phases],
        [quiet.p99_ms for quiet, _ in phases],
        2.0,
        "ms",
    )
    return [
        replace(
            _soon("the same under the load of P5", [b for _, b in phases], str(load)),
            promised="",
            is_met=None,
        ),
        none_of("P5", "requests failed during the swaps", sum(p.failed for p in everything), total),
        none_of("P5", "answers of a wrong value", sum(p.wrong for p in everything), total),
        none_of("P5", "old answers after the new", sum(p.old_after_new() for p in everything), total),
        replace(tail, note=f"{sum(len(b.moves) for _, b in phases)} swaps, {tail.note}; {load}"),
    ]


def _soon(what: str, phases: Sequence[Phase], load: str) -> Row:
    first = sorted(seconds for phase in phases for seconds in phase.first_answer_seconds())
    return within("P4", what, _at(first, 95) * 1000, 300.0, "ms", f"{len(first)} swaps, {load}")


def _move(model: RegisteredModel) -> Move:
    versions = list(model.constants)
    version = versions[(versions.index(model.aliases()[CHAMPION]) + 1) % len(versions)]
    began = monotonic()
    model.point(version)
    return Move(began, monotonic(), version)


def _pause(seconds: float) -> None:
    threading.Event().wait(max(0.0, seconds))


def _webhook(place: Ground, serving: ServingProcess) -> None:
    (serving.home / "webhook.secret").write_text(SECRET)
    url = f"{serving.url}/api/v2/webhooks/mlflow"
    wanted = {"name": "benchmark", "url": url, "secret": SECRET, "events": _EVENTS, "status": "ACTIVE"}
    place.registry.post("webhooks", wanted)


def _health_ms(serving: ServingProcess) -> list[float]:
    times = []
    with httpx.Client(base_url=serving.url, trust_env=False) as client:
        for _ in range(300):
            started = perf_counter()
            client.get("/api/v2/model-health").raise_for_status()
            times.append((perf_counter() - started) * 1000)
    return sorted(times)


def _at(ordered: Sequence[float], percent: int) -> float:
    return ordered[min(len(ordered) - 1, round(percent / 100 * (len(ordered) - 1)))]
