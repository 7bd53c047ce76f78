"""Several workers on one port: one server to whoever asks it, whichever of them answers."""

import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import monotonic

import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from flows.rollout.verify import Verdict, applied
from serving.core.clock import SystemClock
from serving.store import workers
from tests.integration.conftest import StartServing
from tests.mlflow_registry import MlflowRegistry
from tests.serving_process import ServingProcess
from tests.traffic import Traffic, failed, wrong

pytestmark = pytest.mark.integration

# Every call makes a connection of its own; among so many, each of four workers answers some.
MANY = 60
ANSWERED_RATIO = 0.999


def worker_pids(serving: ServingProcess) -> list[int]:
    return [child.pid for child in psutil.Process(serving.pid).children()]


def everywhere(ask: Callable[[], object]) -> list[object]:
    """What many callers are told, whom the kernel spreads over the workers."""
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(lambda _: ask(), range(MANY)))


def versions_everywhere(serving: ServingProcess, model: str) -> set[object]:
    return set(everywhere(lambda: serving.infer(model).version))


def counted(serving: ServingProcess, name: str, **labels: str) -> float:
    text = serving.call("GET", "/metrics").text
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def wait_applied(serving: ServingProcess, model: str, version: str) -> float:
    """Until the rule of a promotion says that all workers follow; the moment it did."""
    written_at = SystemClock().now()

    def is_applied() -> bool:
        with serving.store() as engine:
            beats = workers.live(engine, SystemClock().now())
        return applied(beats, model, version, written_at).verdict is Verdict.APPLIED

    serving.wait(is_applied, f"version {version} is applied", seconds=30)
    return monotonic()


@pytest.mark.parametrize("count", [2, 4])
def test_swap_is_one_when_several_workers_apply_it_under_load(
    registry: MlflowRegistry, start_serving: StartServing, count: int
) -> None:
    """Nothing fails or is wrong, and what is asked after "applied" is never answered by the old version."""
    model = registry.model("onnx:1", "onnx:2", "torch:1", prefix="fleet")
    model.point("1")
    serving = start_serving(model.name, workers=count)
    assert len(worker_pids(serving)) == count
    moments = {}
    with Traffic(serving.url, model.name, rate_per_second=60) as traffic:
        for version in ("2", "3", "1"):
            model.point(version)
            moments[version] = wait_applied(serving, model.name, version)
            assert versions_everywhere(serving, model.name) == {version}
    assert failed(traffic.samples) == [], (traffic.samples[0].started, moments, serving.explain())
    assert wrong(traffic.samples, model.constants) == []
    after = [s for s in traffic.samples if moments["2"] < s.started < moments["2"] + 0.05]
    assert {sample.version for sample in after} <= {"2"}
    with serving.store() as engine:
        beats = workers.live(engine, SystemClock().now())
    assert len(beats) == count
    serving.assert_nothing_lost()


@pytest.mark.fault("F5")
def test_others_answer_when_a_worker_is_killed_under_load(
    registry: MlflowRegistry, start_serving: StartServing
) -> None:
    """Only what the dead worker held is lost; it is replaced, and the server stays ready."""
    model = registry.model("onnx:1", prefix="fleet")
    model.point("1")
    serving = start_serving(model.name, workers=2)
    victim, other = worker_pids(serving)
    with Traffic(serving.url, model.name, rate_per_second=100) as traffic:
        serving.wait(lambda: traffic.answers_of("1") >= 500, "traffic flows")
        os.kill(victim, signal.SIGKILL)
        serving.wait(lambda: victim not in worker_pids(serving), "the dead worker is found")
        assert serving.call("GET", "/v2/health/ready").status_code == httpx.codes.OK
        serving.wait(lambda: len(worker_pids(serving)) == 2, "a worker takes its place")
        serving.wait(
            lambda: "worker_accepts slot=1 on=[1]" in serving.log.read_text().split("worker_ended")[-1],
            "it accepts",
            seconds=30,
        )
        so_far = traffic.answers_of("1")
        serving.wait(lambda: traffic.answers_of("1") >= so_far + 500, "traffic flows on")
    answered = 1 - len(failed(traffic.samples)) / len(traffic.samples)
    print(f"answered {answered:.4%} of {len(traffic.samples)}, failed {failed(traffic.samples)[:3]}")
    assert answered >= ANSWERED_RATIO
    assert wrong(traffic.samples, model.constants) == []
    assert other in worker_pids(serving)
    serving.assert_nothing_lost()
