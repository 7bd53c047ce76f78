"""What a benchmark leaves in MLflow: tags on the version, a few metrics and the plot on its run.

Written over MLflow's REST API, as its own client takes seconds to import. A run that is gone, or an
artifact store that the server does not proxy, costs the record of it and nothing else.
"""

from collections.abc import Mapping
from urllib.parse import quote, urlencode, urlsplit

import httpx

from flows.catalog.benchmark_report import BenchmarkReport
from serving.core.errors import RegistryUnavailable
from serving.core.model import Tag, VersionRef
from serving.store.registry import Registry

PLOT_FILE = "benchmark/latency.png"
_API = "/api/2.0/mlflow"
_PROXY = "/api/2.0/mlflow-artifacts/artifacts"
_SCHEME = "mlflow-artifacts"
_UPLOAD_SECONDS = 30.0


def mark(registry: Registry, report: BenchmarkReport) -> None:
    """Leave memory and median latency on the version, where lists of versions show them."""
    ref, found = VersionRef(report.model, report.version), report.candidate
    if found.memory_mb is not None:
        registry.set_version_tag(ref, Tag.MEMORY_MB, f"{found.memory_mb.resident:.1f}")
    if found.latency_ms is not None:
        registry.set_version_tag(ref, Tag.LATENCY_P50_MS, f"{found.latency_ms.p50:.4g}")


def metrics_of(report: BenchmarkReport) -> dict[str, float]:
    """Summary values under the names MLflow shows them by; never a series."""
    found = report.candidate
    values: dict[str, float | None] = {
        "throughput_per_second": found.throughput_per_second,
        "load_seconds": found.load_seconds,
        "first_call_ms": found.first_call_ms,
        "cpu_ratio": found.cpu_ratio,
    }
    if found.latency_ms is not None:
        latency = found.latency_ms
        values |= {
            "latency_mean_ms": latency.mean,
            "latency_p50_ms": latency.p50,
            "latency_p95_ms": latency.p95,
            "latency_p99_ms": latency.p99,
        }
    if found.memory_mb is not None:
        values |= {"memory_mb": found.memory_mb.resident, "memory_peak_mb": found.memory_mb.peak}
    return {f"benchmark_{name}": value for name, value in values.items() if value is not None}


def leave(client: httpx.Client, registry: Registry, report: BenchmarkReport, png: bytes | None) -> str | None:
    """Tags, metrics and plot; where a browser sees the plot, None where there is no run to hold it.

    Raises:
        NotServed: the version or its run is gone.
        RegistryUnavailable: MLflow did not take it.
    """
    mark(registry, report)
    run_id = registry.version(VersionRef(report.model, report.version)).run_id
    if not run_id:
        return None
    if metrics := metrics_of(report):
        log_metrics(client, run_id, metrics, int(report.created_at.timestamp() * 1000))
    return log_plot(client, run_id, png) if png is not None else None


def log_metrics(client: httpx.Client, run_id: str, metrics: Mapping[str, float], at_ms: int) -> None:
    """Raises `RegistryUnavailable`."""
    entries = [
        {"key": name, "value": value, "timestamp": at_ms, "step": 0} for name, value in metrics.items()
    ]
    _call(client, "POST", f"{_API}/runs/log-batch", json={"run_id": run_id, "metrics": entries})


def log_plot(client: httpx.Client, run_id: str, png: bytes) -> str:
    """Upload the plot; the address at which a browser sees it. Raises `RegistryUnavailable`."""
    return log_file(client, run_id, PLOT_FILE, png)


def log_file(client: httpx.Client, run_id: str, name: str, content: bytes) -> str:
    """Upload a file beside the run; the address at which a browser sees it. Raises `RegistryUnavailable`."""
    told = _call(client, "GET", f"{_API}/runs/get", params={"run_id": run_id}).json()
    uri = urlsplit(str(told["run"]["info"]["artifact_uri"]))
    if uri.scheme != _SCHEME:
        kind = uri.scheme or "file"
        raise RegistryUnavailable(
            f"run {run_id} keeps its artifacts at '{kind}:', which MLflow does not proxy"
        )
    _call(client, "PUT", f"{_PROXY}/{quote(uri.path.strip('/'))}/{quote(name)}", content=content)
    base = str(client.base_url).rstrip("/")
    return f"{base}/get-artifact?{urlencode({'path': name, 'run_uuid': run_id})}"


def _call(client: httpx.Client, method: str, path: str, **content: object) -> httpx.Response:
    try:
        answer = client.request(method, path, timeout=_UPLOAD_SECONDS, **content)  # type: ignore[arg-type]
        answer.raise_for_status()
    except httpx.HTTPError as error:
        reason = str(error) or type(error).__name__
        raise RegistryUnavailable(f"MLflow at {client.base_url} did not take the file: {reason}") from error
    return answer
