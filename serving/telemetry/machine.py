"""What this process and its machine use: CPU, memory, threads, and the GPUs where NVML can be asked.

Sampled by the telemetry writer on its own thread. Ratios are of one CPU for the process, so that 1.5 is
one and a half CPUs, and of everything there is for the machine.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import psutil

log = logging.getLogger(__name__)

Sample = Mapping[str, float]


class Machine:
    """Figures by name. The first sample has no CPU use, which is always that since the last one."""

    def __init__(self, gpus: Callable[[], Sample] | None = None) -> None:
        self._process = psutil.Process()
        self._gpus = gpus_seen() if gpus is None else gpus
        self._has_sampled = False

    def sample(self) -> Sample:
        """The present figures; what cannot be read is left out."""
        figures = dict(self._of_process()) | dict(self._of_machine())
        if not self._has_sampled:
            figures.pop("cpu_ratio", None)
            figures.pop("machine_cpu_ratio", None)
            self._has_sampled = True
        return figures | dict(self._gpus())

    def _of_process(self) -> Iterator[tuple[str, float]]:
        with suppress(psutil.Error, OSError):
            with self._process.oneshot():
                yield "rss_bytes", float(self._process.memory_info().rss)
                yield "threads", float(self._process.num_threads())
                yield "cpu_ratio", self._process.cpu_percent() / 100
            yield "open_files", float(self._process.num_fds())

    def _of_machine(self) -> Iterator[tuple[str, float]]:
        with suppress(psutil.Error, OSError):
            yield "machine_cpu_ratio", psutil.cpu_percent() / 100
            memory = psutil.virtual_memory()
            yield "machine_memory_used_bytes", float(memory.total - memory.available)
            yield "machine_memory_total_bytes", float(memory.total)


def gpus_seen() -> Callable[[], Sample]:
    """How to ask NVML about the GPUs, where its library, its Python package and a driver are there.

    The package is `nvidia-ml-py`, imported as `pynvml`; without it, or without a GPU, there is nothing
    to ask.
    """
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception as error:  # no package, no driver, no permission: all mean that there is no GPU for us
        log.debug("gpu_absent reason=%r", error)
        return dict
    return lambda: gpu_figures(pynvml)


def gpu_figures(nvml: Any) -> dict[str, float]:
    """Memory used and there is, and the busiest GPU's use, over all GPUs; empty if NVML gives none.

    `nvml` is the module `pynvml`, or what answers like it.
    """
    try:
        handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        memory = [nvml.nvmlDeviceGetMemoryInfo(handle) for handle in handles]
        busy = [nvml.nvmlDeviceGetUtilizationRates(handle).gpu for handle in handles]
    except Exception as error:  # a GPU that fell off the bus must not end the telemetry of the rest
        log.debug("gpu_not_read reason=%r", error)
        return {}
    if not handles:
        return {}
    return {
        "gpu_memory_used_bytes": float(sum(each.used for each in memory)),
        "gpu_memory_total_bytes": float(sum(each.total for each in memory)),
        "gpu_use_ratio": max(busy) / 100,
    }
