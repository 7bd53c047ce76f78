"""How many CPUs there are for this process; what thread counts are derived from."""

import os


def cpu_count() -> int:
    """CPUs this process may use, which in a container are fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
