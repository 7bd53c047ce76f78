"""What a GPU was doing, through NVIDIA's management library where it is installed; else not measured."""

import os
from importlib import import_module
from typing import Any, Protocol

from flows.catalog.performance import Gpu

_MEGABYTE = 1 << 20


class Nvml(Protocol):
    """The calls of `pynvml` that are made here; each raises the library's own error."""

    def nvmlInit(self) -> object: ...

    def nvmlShutdown(self) -> object: ...

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any: ...

    def nvmlDeviceGetName(self, device: Any) -> Any: ...

    def nvmlDeviceGetUtilizationRates(self, device: Any) -> Any: ...

    def nvmlDeviceGetComputeRunningProcesses(self, device: Any) -> Any: ...


def installed_nvml() -> Nvml | None:
    """`pynvml` (package nvidia-ml-py), None where it is not installed."""
    try:
        nvml: Nvml = import_module("pynvml")
    except ImportError:
        return None
    return nvml


def gpu_use(nvml: Nvml | None, pid: int | None = None) -> Gpu | None:
    """The first GPU over the last moments; None without a GPU, a driver or the library."""
    if nvml is None:
        return None
    try:
        nvml.nvmlInit()
    except Exception:  # no driver: the library's errors are made at run time and have no type to name
        return None
    try:
        return _read(nvml, os.getpid() if pid is None else pid)
    except Exception:  # a GPU that does not tell is one that was not measured
        return None
    finally:
        nvml.nvmlShutdown()


def _read(nvml: Nvml, pid: int) -> Gpu:
    device = nvml.nvmlDeviceGetHandleByIndex(0)
    name = nvml.nvmlDeviceGetName(device)
    running = nvml.nvmlDeviceGetComputeRunningProcesses(device)
    used_bytes = sum(process.usedGpuMemory or 0 for process in running if process.pid == pid)
    return Gpu(
        name=name.decode() if isinstance(name, bytes) else str(name),
        busy_ratio=nvml.nvmlDeviceGetUtilizationRates(device).gpu / 100,
        memory_mb=round(used_bytes / _MEGABYTE, 1),
    )
