"""P4, P5, P6 and P7: what moving an alias costs, whom it delays, and what it leaves behind."""

import threading
from collections.abc import Sequence
from time import monotonic, perf_counter

import httpx

from benchmarks.ground import Ground
from benchmarks.memory import growth_percent, resident_mb
from benchmarks.row import Row, none_of, within
from tests.integration.swap_report import SECRET
from tests.mlflow_registry import RegisteredModel
from tests.serving_process import ServingProcess
from tests.traffic import Move, Sample, Traffic, failed, first_answer_seconds, old_after_new, wrong

_EVENTS = [{"entity": "MODEL_VERSION_ALIAS", "action": action} for action in ("CREATED", "DELETED")]
_WINDOW_SECONDS = 2.0
_WORKERS = 2


def swaps(place: Ground, *, moves: int, rate: float) -> list[Row]:
    model = place.registry.model("onnx:1", "onnx:2", prefix="swaps")
    model.point("1")
    with place.serving("swaps", model.name) as serving:
        _webhook(place, serving)
        control = _control(serving, model, rate)
        with Traffic(serving.url, model.name, rate_per_second=rate) as traffic:
            made = [_move(serving, model, traffic, number) for number in range(moves)]
            health = _health_ms(serving)
        samples = traffic.samples
        rows = _swap_rows(samples, made, model, control, f"open loop, {rate:g} requests a second")
        rows.append(within("P7", "GET model-health under that load, p99", _at(health, 99), 10.0, "ms"))
    return rows


def memory(place: Ground, *, count: int) -> list[Row]:
    """Resident memory of a server with two workers over many swaps of a 34 MB model."""
    model = place.registry.model("heavy:1", "heavy:2", prefix="heavy")
    model.point("1")
    with place.serving("memory", model.name, poll_seconds=0.1, workers=_WORKERS) as serving:
        serving.wait_for(model.name, "1", seconds=60)
        resident: list[float] = []
        for number in range(count):
            version = "2" if number % 2 == 0 else "1"
            model.point(version)
            serving.wait_for(model.name, version, seconds=60)
            resident.append(resident_mb(serving.pid))
    told = f"{resident[count // 4]:.0f} MB after a quarter, {resident[-1]:.0f} MB at the end"
    what = f"growth of resident memory over {count} swaps of 34 MB, {_WORKERS} workers summed"
    return [within("P6", what, growth_percent(resident), 5.0, "%", told)]


def _swap_rows(
    samples: Sequence[Sample],
    moves: Sequence[Move],
    model: RegisteredModel,
    control: Sequence[Sample],
    load: str,
) -> list[Row]:
    seconds = sorted(first_answer_seconds(samples, moves))
    near = [s for s in samples if any(0 <= s.started - m.began < _WINDOW_SECONDS for m in moves)]
    at_swap, quiet = _p99(near), _p99(control)
    ratio = at_swap / quiet
    promised = "≤ 2 ×"
    told = f"{at_swap:.2f} ms"
    return [
        within("P4", "alias write to first new answer, p95", _at(seconds, 95) * 1000, 300.0, "ms"),
        none_of("P5", "requests failed during the swaps", len(failed(samples)), len(samples)),
        none_of("P5", "answers of a wrong value", len(wrong(samples, model.constants)), len(samples)),
        none_of("P5", "old answers after the new", len(old_after_new(samples, moves)), len(samples)),
        Row(
            "P5",
            "p99 within 2 s of a swap",
            told,
            f"{quiet:.2f} ms",
            f"{ratio:.2f}",
            promised,
            ratio <= 2,
            load,
        ),
    ]


def _control(serving: ServingProcess, model: RegisteredModel, rate: float) -> Sequence[Sample]:
    with Traffic(serving.url, model.name, rate_per_second=rate) as traffic:
        threading.Event().wait(10.0)
    return traffic.samples


def _move(serving: ServingProcess, model: RegisteredModel, traffic: Traffic, number: int) -> Move:
    version = "2" if number % 2 == 0 else "1"
    began, before = monotonic(), traffic.answers_of(version)
    model.point(version)
    move = Move(began, monotonic(), version)
    serving.wait(lambda: traffic.answers_of(version) >= before + 20, f"version {version} answers")
    threading.Event().wait(0.2)
    return move


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


def _p99(samples: Sequence[Sample]) -> float:
    return _at(sorted((s.ended - s.started) * 1000 for s in samples if s.is_answered), 99)


def _at(ordered: Sequence[float], percent: int) -> float:
    return ordered[min(len(ordered) - 1, round(percent / 100 * (len(ordered) - 1)))]
