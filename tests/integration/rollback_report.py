"""How long a rollback takes from the command to all traffic on the old version: `python -m` this module.

Instant with everything up, emergency with MLflow stopped and Prefect absent. A sample ends with the first
answer after the call returned; were that not the old version's, the sample would be a failure.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

from tests.mlflow_registry import MlflowRegistry, RegisteredModel, log_models
from tests.mlflow_server import MlflowServer
from tests.serving_process import ServingProcess
from tests.waiting import until

SAMPLES = 20
LIMIT_MS = 250.0


def main(samples: int = SAMPLES) -> int:
    """0 where the 95th percentile of both strategies is within the limit."""
    with tempfile.TemporaryDirectory(prefix="rollback-report-") as folder:
        server = MlflowServer(Path(folder) / "mlflow")
        server.start()
        try:
            return _report(server, Path(folder), samples)
        finally:
            server.stop()


def _report(server: MlflowServer, folder: Path, samples: int) -> int:
    registry = MlflowRegistry(server, log_models(server, "onnx:1", "onnx:2"))
    model = registry.model("onnx:1", "onnx:2", prefix="rollback-report")
    model.point("1")
    serving = ServingProcess(folder / "serving", server.url, model.name)
    serving.start_ready()
    try:
        serving.wait_for(model.name, "1")
        instant = [_measured(serving, model, "instant", server) for _ in range(samples)]
        emergency = [_measured(serving, model, "emergency", server) for _ in range(samples)]
    finally:
        serving.kill()
    return int(any([_told("instant", instant), _told("emergency", emergency)]))


def _measured(serving: ServingProcess, model: RegisteredModel, strategy: str, server: MlflowServer) -> float:
    """Milliseconds of one rollback from 2 to 1, with 2 promoted by hand first."""
    model.point("2")
    serving.wait_for(model.name, "2")
    if strategy == "emergency":
        server.stop()
    started = time.perf_counter()
    taken = serving.roll_back(model.name, strategy=strategy)
    answered = serving.infer(model.name).version
    taken_ms = (time.perf_counter() - started) * 1000
    assert answered == "1", f"version {answered} answers after the rollback"
    server.start()
    until(lambda: serving.get(taken["status_url"])["registry"] == "settled", "it is settled", seconds=60)
    return taken_ms


def _told(strategy: str, samples_ms: list[float]) -> bool:
    """Print one line; whether the limit was missed."""
    p95_ms = statistics.quantiles(samples_ms, n=20, method="inclusive")[-1]
    median_ms = statistics.median(samples_ms)
    verdict = "ok" if p95_ms <= LIMIT_MS else "TOO SLOW"
    figures = f"p50 {median_ms:.0f} ms, p95 {p95_ms:.0f} ms of {len(samples_ms)} samples"
    print(f"P8 {strategy}: {figures}, limit {LIMIT_MS:.0f} ms: {verdict}")
    return p95_ms > LIMIT_MS


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:2])))
