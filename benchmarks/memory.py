"""What processes hold: of a server with its workers, and how it grew over many looks."""

from collections.abc import Sequence
from statistics import linear_regression

import psutil

_MB = 1 << 20


def tree(pid: int) -> list[psutil.Process]:
    """The process and all below it that live now."""
    top = psutil.Process(pid)
    return [top, *top.children(recursive=True)]


def resident_mb(pid: int) -> float:
    """Resident memory of a server, all its workers summed; what they share counts once for each."""
    total_bytes = 0
    for process in tree(pid):
        try:
            total_bytes += process.memory_info().rss
        except psutil.NoSuchProcess:  # a worker that was killed a moment ago
            continue
    return total_bytes / _MB


def growth_percent(amounts: Sequence[float]) -> float:
    """How much the straight line through evenly spaced looks rises, of where it begins; the first quarter
    is warm-up and left out."""
    settled = amounts[len(amounts) // 4 :]
    if len(settled) < 2:
        raise ValueError(f"{len(amounts)} looks at the memory show no growth")
    slope, start = linear_regression(range(len(settled)), settled)
    return 100 * slope * (len(settled) - 1) / start
