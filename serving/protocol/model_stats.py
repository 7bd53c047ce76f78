"""Triton's statistics extension: one version's counters in the shape of its `stats`.

Source: Triton `extension_statistics`. Times are nanoseconds, cumulative since the server started.
"""

from typing import Any

from serving.core.model import Tag
from serving.pool import LoadedVersion
from serving.telemetry.counters import Sum, VersionStatistics

_NONE = {"count": 0, "ns": 0}
_BYTES_PER_MB = 1 << 20


def model_stats(version: LoadedVersion, counted: VersionStatistics) -> dict[str, Any]:
    return {
        "name": version.ref.model,
        "version": version.ref.version,
        "last_inference": counted.last_inference_ms,
        "inference_count": counted.inferences,
        "execution_count": counted.executions,
        "inference_stats": {
            "success": _sum(counted.success),
            "fail": _sum(counted.fail),
            "queue": _sum(counted.queue),
            "compute_input": _sum(counted.compute_input),
            "compute_infer": _sum(counted.compute_infer),
            "compute_output": _sum(counted.compute_output),
            "cache_hit": _NONE,
            "cache_miss": _NONE,
        },
        "batch_stats": [
            {
                "batch_size": rows,
                "compute_input": _sum(times.compute_input),
                "compute_infer": _sum(times.compute_infer),
                "compute_output": _sum(times.compute_output),
            }
            for rows, times in sorted(counted.batches.items())
        ],
        "memory_usage": _memory_usage(version),
    }


def _sum(sum_: Sum) -> dict[str, int]:
    return {"count": sum_.count, "ns": sum_.ns}


def _memory_usage(version: LoadedVersion) -> list[dict[str, Any]]:
    """What the registry says it was measured to take; nothing where it was never measured."""
    registered = version.provenance.registered
    try:
        megabytes = float(registered.tags[Tag.MEMORY_MB]) if registered is not None else 0.0
    except (KeyError, ValueError):
        return []
    size_bytes = int(megabytes * _BYTES_PER_MB)
    return [{"type": "CPU", "id": 0, "byte_size": size_bytes}] if size_bytes > 0 else []
