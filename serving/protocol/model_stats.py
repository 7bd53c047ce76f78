"""Triton's statistics extension: one version's counters in the shape of its `stats`.

Source: Triton `extension_statistics`. Times are nanoseconds, cumulative since the server started.
"""

from typing import Any

from serving.core.model import Tag
from serving.pool import LoadedVersion
from serving.telemetry.counters import Statistics

_BYTES_PER_MB = 1 << 20


def model_stats(version: LoadedVersion, statistics: Statistics, processes: int = 1) -> dict[str, Any]:
    """`processes` hold the version in memory, each on its own.

    Requests answered together are one execution; there is no cache, so nothing hits or misses it.
    """
    counted = statistics.of(version.ref)
    return {
        "name": version.ref.model,
        "version": version.ref.version,
        "last_inference": statistics.last_inference_ms(version.ref),
        "inference_count": counted.rows,
        "execution_count": counted.executions,
        "inference_stats": {
            "success": _sum(counted.answered, counted.total_ns),
            "fail": _sum(counted.failed, counted.failed_ns),
            "queue": _sum(counted.answered, counted.queue_ns),
            "compute_input": _sum(counted.answered, counted.input_ns),
            "compute_infer": _sum(counted.answered, counted.infer_ns),
            "compute_output": _sum(counted.rendered, counted.output_ns),
            "cache_hit": _sum(0, 0),
            "cache_miss": _sum(0, 0),
        },
        "batch_stats": [
            {
                "batch_size": rows,
                "compute_input": _sum(times.answered, times.input_ns),
                "compute_infer": _sum(times.answered, times.infer_ns),
                "compute_output": _sum(times.rendered, times.output_ns),
            }
            for rows, times in sorted(counted.batches.items())
        ],
        "memory_usage": _memory_usage(version, processes),
    }


def _sum(count: int, ns: int) -> dict[str, int]:
    return {"count": count, "ns": ns}


def _memory_usage(version: LoadedVersion, processes: int) -> list[dict[str, Any]]:
    """What loading took here, else what the registry says; nothing where it was never measured."""
    if version.is_awake and version.loading.cost_bytes:
        return [{"type": "CPU", "id": 0, "byte_size": version.loading.cost_bytes * processes}]
    registered = version.provenance.registered
    try:
        megabytes = float(registered.tags[Tag.MEMORY_MB]) if registered is not None else 0.0
    except (KeyError, ValueError):
        return []
    size_bytes = int(megabytes * _BYTES_PER_MB)
    return [{"type": "CPU", "id": 0, "byte_size": size_bytes}] if size_bytes > 0 else []
