"""The machine's fingerprint: the same for the same machine, another where a model's speed would be."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows.catalog.accelerator import gpu_use, installed_nvml
from flows.catalog.host import Host, this_host
from flows.catalog.performance import Gpu
from serving.core.cpus import cpu_count
from tests.flows.catalog.figures_of import HERE

CPUINFO = """\
processor : 0
model name : Some CPU @ 2.0GHz
flags : fpu avx2 avx512_vnni rdtscp

processor : 1
model name : Another
"""


def test_host_is_the_same_when_asked_twice() -> None:
    assert this_host() == this_host()
    assert this_host().cpus == cpu_count()
    assert "numpy" in this_host().libraries
    assert len(this_host().id) == 12


def test_processor_is_read_when_the_system_tells(tmp_path: Path) -> None:
    """Of the flags only those that runtimes choose their kernels by."""
    (tmp_path / "cpuinfo").write_text(CPUINFO)
    host = this_host(tmp_path / "cpuinfo")
    assert (host.cpu, host.flags) == ("Some CPU @ 2.0GHz", ("avx2", "avx512_vnni"))
    assert "Some CPU @ 2.0GHz" in host.sentence()


def test_processor_is_named_somehow_when_the_system_does_not_tell(tmp_path: Path) -> None:
    assert this_host(tmp_path / "missing").cpu


@pytest.mark.parametrize(
    "other",
    [
        replace(HERE, cpu="Other"),
        replace(HERE, flags=()),
        replace(HERE, cpus=4),
        replace(HERE, memory_gb=16),
        replace(HERE, os="Linux 6.9 x86_64"),
        replace(HERE, libraries={"numpy": "2.5"}),
    ],
)
def test_host_is_another_when_what_decides_speed_differs(other: Host) -> None:
    assert other.id != HERE.id


class FakeNvml:
    """One GPU with two processes on it, of which ours has the number 7."""

    is_broken = False

    def nvmlInit(self) -> None:
        if self.is_broken:
            raise RuntimeError("driver not loaded")

    def nvmlShutdown(self) -> None: ...

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any:
        return index

    def nvmlDeviceGetName(self, device: Any) -> bytes:
        return b"H100"

    def nvmlDeviceGetUtilizationRates(self, device: Any) -> Any:
        return SimpleNamespace(gpu=25)

    def nvmlDeviceGetComputeRunningProcesses(self, device: Any) -> Any:
        processes = [(7, 300 << 20), (8, 900 << 20), (7, None)]
        return [SimpleNamespace(pid=pid, usedGpuMemory=size) for pid, size in processes]


def test_gpu_is_measured_when_there_is_one() -> None:
    """Its use as a whole, and this process's memory on it."""
    assert gpu_use(FakeNvml(), pid=7) == Gpu("H100", 0.25, 300.0)


def test_gpu_is_not_measured_when_the_driver_is_missing() -> None:
    broken = FakeNvml()
    broken.is_broken = True
    assert gpu_use(broken) is None
    assert gpu_use(None) is None
    assert gpu_use(installed_nvml()) is None or installed_nvml() is not None
