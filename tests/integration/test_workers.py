"""Several workers on one port: one server to whoever asks it, whichever of them answers."""

import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import monotonic

import httpx
import numpy as np
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tritonclient.grpc import InferenceServerClient, InferInput

from flows.rollout.verify import Verdict, applied
from serving.core.clock import SystemClock
from serving.store import workers
from tests.integration.conftest import StartServing
from tests.mlflow_registry import MlflowRegistry
from tests.mlflow_server import free_port
from tests.serving_process import ServingProcess
from tests.traffic import Traffic, failed, wrong

pytestmark = pytest.mark.integration

# Every call makes a connection of its own; among so many, each of four workers answers some.
MANY = 60
GRPC_CLIENTS = 12
HELD_AT_ONCE = 10  # requests that one worker of two may hold when it dies
SENT_SECONDS = 0.01  # after which a request has reached the server


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
        dead = monotonic()
        assert serving.call("GET", "/v2/health/ready").status_code == httpx.codes.OK
        serving.wait(lambda: len(worker_pids(serving)) == 2, "a worker takes its place")
        serving.wait(
            lambda: "worker_accepts slot=1 on=[1]" in serving.log.read_text().split("worker_ended")[-1],
            "it accepts",
            seconds=30,
        )
        so_far = traffic.answers_of("1")
        serving.wait(lambda: traffic.answers_of("1") >= so_far + 500, "traffic flows on")
    lost = failed(traffic.samples)
    answered = 1 - len(lost) / len(traffic.samples)
    print(f"answered {answered:.3%} of {len(traffic.samples)}, lost {len(lost)}")
    # Whatever comes after the death is answered: 99.9 % of a run as long as a minute, all but what it held.
    assert [sample for sample in lost if sample.started > dead] == [], serving.explain()
    assert len(lost) <= HELD_AT_ONCE
    assert wrong(traffic.samples, model.constants) == []
    assert other in worker_pids(serving)
    serving.assert_nothing_lost()


@pytest.mark.fault("F6")
def test_workers_answer_what_they_accepted_when_told_to_stop(
    registry: MlflowRegistry, start_serving: StartServing
) -> None:
    """All of them drain, then the parent ends well; a request in flight anywhere is answered."""
    model = registry.model("slow:1", prefix="fleet")
    model.point("1")
    serving = start_serving(model.name, workers=4)
    with Traffic(serving.url, model.name, rate_per_second=8) as traffic:
        serving.wait(lambda: traffic.answers_of("1") >= 8, "traffic flows")
        serving.wait(lambda: traffic.in_flight_seconds > SENT_SECONDS, "a request is in flight")
        pids, told = worker_pids(serving), monotonic()
        code = serving.terminate()
    in_flight = [s for s in traffic.samples if s.started < told - SENT_SECONDS and s.ended > told]
    assert in_flight, "nothing was in flight: the test shows nothing"
    assert failed(in_flight) == []
    assert wrong(traffic.samples, model.constants) == []
    refused = failed(traffic.samples)
    assert {sample.status for sample in refused} <= {0}
    assert all("ConnectError" in str(s.problem) for s in refused if s.started > told + 0.5), refused[:5]
    assert code == 0, serving.explain()
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert "Traceback" not in serving.log.read_text()
    print(f"in flight {len(in_flight)}, all answered")
    with serving.store() as engine:
        assert workers.live(engine, SystemClock().now()) == []
    serving.assert_nothing_lost()


def test_worker_that_grows_is_replaced_without_a_loss_when_under_load(
    registry: MlflowRegistry, start_serving: StartServing
) -> None:
    """The new one is ready before the old one leaves, and the old one answers all it was sent."""
    model = registry.model("onnx:1", prefix="fleet")
    model.point("1")
    serving = start_serving(model.name, workers=2, memory_allowance_mb=1)
    before = set(worker_pids(serving))
    with Traffic(serving.url, model.name, rate_per_second=60) as traffic:
        serving.wait(lambda: "memory_trimmed" in serving.log.read_text(), "it is trimmed first", seconds=60)
        serving.wait(lambda: not before & set(worker_pids(serving)), "both are replaced", seconds=120)
    assert failed(traffic.samples) == [], serving.explain()
    assert wrong(traffic.samples, model.constants) == []
    replaced = serving.log.read_text().count("worker_retired")
    print(f"{len(traffic.samples)} answered while {replaced} workers were replaced")
    serving.assert_nothing_lost()


def test_rollback_holds_everywhere_when_one_worker_takes_it_and_all_else_is_down(
    registry: MlflowRegistry, start_serving: StartServing
) -> None:
    """Once it is answered, every worker answers with the old version; so does one that starts later."""
    model = registry.model("onnx:1", "onnx:2", prefix="fleet")
    model.point("1")
    serving = start_serving(model.name, workers=4)
    model.point("2")
    wait_applied(serving, model.name, "2")
    registry.server.stop()
    with Traffic(serving.url, model.name, rate_per_second=60) as traffic:
        serving.wait(lambda: traffic.answers_of("2") >= 30, "traffic flows")
        asked = monotonic()
        rollback = serving.roll_back(model.name, strategy="emergency", reason="wrong answers")
        taken = monotonic()
        assert versions_everywhere(serving, model.name) == {"1"}
        told = everywhere(lambda: serving.get(rollback["status_url"])["serving"])
        assert set(told) == {"1"}
    late = [s for s in traffic.samples if s.started > taken and s.version != "1"]
    last_old = max(s.ended for s in traffic.samples if s.version == "2") - asked
    print(f"rolled back in {(taken - asked) * 1000:.0f} ms, last old answer after {last_old * 1000:.0f} ms")
    assert late == []
    assert failed(traffic.samples) == []
    os.kill(worker_pids(serving)[0], signal.SIGKILL)
    serving.wait(lambda: serving.log.read_text().count("worker_started") == 5, "a worker is replaced")
    serving.wait(lambda: serving.log.read_text().count("on=[1]") >= 2, "it accepts", seconds=30)
    assert versions_everywhere(serving, model.name) == {"1"}
    registry.server.start()
    serving.wait(lambda: model.aliases()["champion"] == "1", "alias moved back", seconds=45)
    [entry] = serving.audited("roll_back", model.name)
    assert entry.details["rollback_id"] == rollback["rollback_id"]
    assert len(serving.notices("rolled_back", model.name)) == 1
    serving.assert_nothing_lost()


def test_server_tells_the_same_when_any_worker_is_asked(
    registry: MlflowRegistry, start_serving: StartServing
) -> None:
    """Counters are sums that outlive a worker; loading by number, statistics and health are the server's."""
    model = registry.model("onnx:1", "onnx:2", prefix="fleet")
    model.point("1")
    serving = start_serving(model.name, workers=2)
    name = "signalbox_inference_requests_total"
    before = counted(serving, name, model=model.name, variant="champion")
    versions_everywhere(serving, model.name)
    assert set(everywhere(lambda: counted(serving, name, model=model.name, variant="champion"))) == {
        before + MANY
    }
    [stats] = serving.get(f"/v2/models/{model.name}/stats")["model_stats"]
    assert stats["inference_stats"]["success"]["count"] >= before + MANY
    [version] = [v for v in serving.model(model.name)["versions"] if v["is_active"]]
    assert version["statistics"]["answers"] >= MANY
    resident = sum(psutil.Process(pid).memory_info().rss for pid in worker_pids(serving))
    assert counted(serving, "process_resident_memory_bytes") == pytest.approx(resident, rel=0.3)

    by_number = f"/v2/repository/models/{model.name}/versions/2"
    assert serving.call("POST", f"{by_number}/load").status_code == httpx.codes.OK
    assert set(everywhere(lambda: serving.infer(model.name, address="2").version)) == {"2"}
    os.kill(worker_pids(serving)[0], signal.SIGKILL)
    serving.wait(lambda: serving.log.read_text().count("on=[1]") >= 2, "a worker is replaced", seconds=30)
    assert set(everywhere(lambda: serving.infer(model.name, address="2").version)) == {"2"}
    assert serving.call("POST", f"{by_number}/unload").status_code == httpx.codes.OK
    assert set(everywhere(lambda: serving.infer(model.name, address="2").status)) == {httpx.codes.NOT_FOUND}
    assert counted(serving, name, model=model.name, variant="champion") >= before + MANY

    assert serving.get(f"/api/v2/model-health?model={model.name}")["models"][0]["version"] == "1"
    serving.wait(
        lambda: serving.get("/api/v2/model-health")["status"] == "healthy", "the whole server is healthy"
    )
    serving.assert_nothing_lost()


def test_grpc_is_one_server_when_several_workers_share_its_port(
    registry: MlflowRegistry, start_serving: StartServing
) -> None:
    """Connections are spread, every call is answered, and the statistics are sums."""
    model = registry.model("onnx:1", prefix="fleet")
    model.point("1")
    port = free_port()
    serving = start_serving(model.name, workers=2, grpc_port=port)
    row = np.array([[1.0, 2.0, 3.0]], np.float32)
    given = InferInput("x", [1, 3], "FP32")
    given.set_data_from_numpy(row)
    for number in range(GRPC_CLIENTS):
        # A channel of its own each, else the library joins them into one connection.
        with InferenceServerClient(f"127.0.0.1:{port}", channel_args=[("number", number)]) as client:
            [output] = [entry.name for entry in client.get_model_metadata(model.name).outputs]
            np.testing.assert_array_equal(client.infer(model.name, [given]).as_numpy(output), row + 1)
            [stats] = client.get_inference_statistics(model.name, "1").model_stats
    assert stats.inference_stats.success.count >= GRPC_CLIENTS
    assert serving.terminate() == 0, serving.explain()
