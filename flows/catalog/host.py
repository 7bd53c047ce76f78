"""The machine a benchmark ran on, as far as it decides how fast a model is.

Figures of two hosts with the same `id` may be compared as they are; of any others only as ratios.
"""

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from serving.core.cpus import cpu_count

_GIGABYTE = 1 << 30
_CPUINFO = Path("/proc/cpuinfo")
# Instructions that the runtimes choose other kernels for.
_FLAGS = frozenset(
    {
        *("sse4_2", "avx", "avx2", "fma", "f16c", "avx_vnni"),
        *("avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
        *("amx_tile", "amx_int8", "amx_bf16"),
        *("asimd", "asimdhp", "asimddp", "bf16", "i8mm", "sve", "sve2"),
    }
)
_LIBRARIES = ("numpy", "onnxruntime", "torch")


@dataclass(frozen=True, slots=True)
class Host:
    """`cpus` are those this process may use; `os` leaves out what a security update changes."""

    cpu: str
    flags: tuple[str, ...]
    cpus: int
    memory_gb: int
    os: str
    python: str
    libraries: Mapping[str, str] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """Twelve hexadecimal digits over everything above."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]

    def sentence(self) -> str:
        versions = ", ".join(f"{name} {number}" for name, number in self.libraries.items())
        return f"{self.cpu}, {self.cpus} CPUs, {self.memory_gb} GB, {self.os}, {versions}"


def this_host(cpuinfo: Path = _CPUINFO) -> Host:
    told = _told(cpuinfo)
    flags = set((told.get("flags") or told.get("features") or "").split())
    return Host(
        cpu=told.get("model name") or platform.processor() or platform.machine(),
        flags=tuple(sorted(flags & _FLAGS)),
        cpus=cpu_count(),
        memory_gb=round(psutil.virtual_memory().total / _GIGABYTE),
        os=f"{platform.system()} {'.'.join(platform.release().split('.')[:2])} {platform.machine()}",
        python=platform.python_version(),
        libraries={name: found for name in _LIBRARIES if (found := _version(name)) is not None},
    )


def _told(cpuinfo: Path) -> dict[str, str]:
    """The first processor's lines; empty where the system has no such file."""
    try:
        first = cpuinfo.read_text().split("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None
