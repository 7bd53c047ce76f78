"""Open-loop load as a benchmark steers it: how much of a server's capacity, and what came back."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

from benchmarks import pace, wrk
from benchmarks.pace import Heard

_ROOT = Path(__file__).parents[1]
_LANES = 64
_CAPACITY_CONNECTIONS = 32
_END_SECONDS = 60.0
# Above this share of a core the load would measure itself.
_BUSY_RATIO = 0.8
_TRIED_SHARES = (0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
_TRIAL_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Target:
    """What is asked, again and again. `folder` takes the load's files."""

    url: str
    body: bytes
    folder: Path


@dataclass(frozen=True, slots=True)
class Steady:
    """A rate that the load keeps up, beside the most that the server answers in a closed loop."""

    rate_per_second: float
    capacity_per_second: float

    def __str__(self) -> str:
        share = self.rate_per_second / self.capacity_per_second
        told = f"open loop, {self.rate_per_second:.0f} requests a second, {share:.0%} of the"
        return f"{told} {self.capacity_per_second:.0f} that {_CAPACITY_CONNECTIONS} connections got"


class Asking:
    """Under way; `heard` once it has ended."""

    heard: Heard


@contextmanager
def asking(target: Target, rate_per_second: float) -> Iterator[Asking]:
    """Load for the length of a block. Raises RuntimeError where answers stay due."""
    where = urlsplit(target.url)
    body, out = target.folder / "asked", target.folder / "heard.npz"
    body.write_bytes(target.body)
    place = (str(where.hostname), str(where.port), where.path)
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.pace", *place, str(rate_per_second), str(_LANES), body, out],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=_ROOT,
        text=True,
    )
    found = Asking()
    try:
        assert process.stdout is not None
        process.stdout.readline()  # it asks
        yield found
        _, told = process.communicate(timeout=_END_SECONDS)
        if process.returncode:
            raise RuntimeError(f"the load ended with {process.returncode}: {told[-500:]}")
    finally:
        process.kill()
        process.wait()
    found.heard = pace.read(out)


def steady(target: Target, *, seconds: float) -> Steady:
    """The largest share of the capacity, up to 60 %, that one process asks for without being the slow one."""
    runs = [
        wrk.load(target.url, target.body, connections=_CAPACITY_CONNECTIONS, seconds=seconds)
        for _ in range(3)
    ]
    capacity = median(run.requests_per_second for run in runs)
    for share in _TRIED_SHARES:
        with asking(target, share * capacity) as trial:
            threading.Event().wait(_TRIAL_SECONDS)
        if trial.heard.busy_ratio <= _BUSY_RATIO:
            return Steady(share * capacity, capacity)
    raise RuntimeError(f"the load keeps up with no rate for a server of {capacity:.0f} requests a second")
