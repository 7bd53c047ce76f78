"""What a benchmark leaves on a version whose run does not exist; the rest is tested with a real MLflow."""

from pathlib import Path

from flows.catalog.performance import Findings, Performance
from flows.catalog.run_log import leave, metrics_of
from serving.core.model import Tag
from serving.store.registry import connect
from serving.store.settings import StoreSettings
from tests.flows.catalog.figures_of import report
from tests.flows.rollout.line import MODEL, registry_of
from tests.flows.rollout.registrar import Registrar


def test_tags_are_all_that_is_left_when_the_version_has_no_run(tmp_path: Path) -> None:
    """As of a version registered from a folder; of a benchmark that measured nothing not even those."""
    with Registrar() as registrar:
        registrar.add(MODEL, tmp_path, tmp_path)
        with connect(StoreSettings(home=tmp_path, mlflow_url=registrar.url)) as client:
            registry = registry_of(client)
            assert leave(client, registry, report(), b"png") is None
            assert leave(client, registry, report(Findings(Performance("1")), version="1"), b"png") is None
        assert registrar.tags("2") == {Tag.MEMORY_MB: "20.0", Tag.LATENCY_P50_MS: "1"}
        assert registrar.tags("1") == {}


def test_metrics_are_summary_values_when_everything_was_measured() -> None:
    """No per-call series ever reaches MLflow; what was not measured is left out."""
    assert metrics_of(report()) == {
        "benchmark_throughput_per_second": 2000.0,
        "benchmark_load_seconds": 0.5,
        "benchmark_first_call_ms": 9.0,
        "benchmark_cpu_ratio": 1.0,
        "benchmark_latency_mean_ms": 1.0,
        "benchmark_latency_p50_ms": 1.0,
        "benchmark_latency_p95_ms": 2.0,
        "benchmark_latency_p99_ms": 2.0,
        "benchmark_memory_mb": 20.0,
        "benchmark_memory_peak_mb": 30.0,
    }
    assert metrics_of(report(Findings(Performance("2")))) == {}
