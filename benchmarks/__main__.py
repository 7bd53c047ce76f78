"""`python -m benchmarks`: measures, prints one table, and writes benchmarks/results.json."""

import argparse
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from benchmarks import wrk
from benchmarks.ground import Ground, ground
from benchmarks.peers import LITSERVE, MLFLOW, MLSERVER, Peer
from benchmarks.row import Row, missing, save, show
from benchmarks.soak import soak
from benchmarks.swaps import swaps
from benchmarks.tensors import tensors
from benchmarks.throughput import throughput
from benchmarks.ways_back import starting, ways_back

RESULTS = Path(__file__).parent / "results.json"


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how often to measure, and beside whom."""

    seconds: float
    repeats: int
    peers: tuple[Peer, ...]
    swaps: int
    soak_minutes: float


Section = Callable[[Ground, Plan], list[Row]]
SECTIONS: dict[str, Section] = {
    "throughput": lambda place, plan: throughput(
        place, seconds=plan.seconds, repeats=plan.repeats, peers=plan.peers
    ),
    "tensors": lambda place, plan: tensors(place, seconds=plan.seconds, repeats=plan.repeats),
    "swaps": lambda place, plan: swaps(place, moves=plan.swaps, rate=150.0, memory_swaps=2 * plan.swaps),
    "ways-back": lambda place, plan: ways_back(place, repeats=plan.repeats * 3),
    "starting": lambda place, plan: starting(place),
    "soak": lambda place, plan: soak(place, minutes=plan.soak_minutes, rate=100.0),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", default=",".join(SECTIONS), help=f"sections of {', '.join(SECTIONS)}")
    parser.add_argument("--quick", action="store_true", help="shorter runs, for trying the benchmark itself")
    parser.add_argument("--all-peers", action="store_true", help="LitServe too")
    arguments = parser.parse_args()
    if not wrk.is_there():
        print("error: `wrk` is needed; install the Debian package of that name", file=sys.stderr)
        return 1
    peers = (MLSERVER, MLFLOW, *((LITSERVE,) if arguments.all_peers else ()))
    plan = Plan(2.0, 2, peers, 10, 0.5) if arguments.quick else Plan(8.0, 3, peers, 100, 20.0)
    rows = measured([name.strip() for name in arguments.only.split(",")], plan)
    show(rows)
    save(rows, machine(), RESULTS)
    print(f"written to {RESULTS}")
    return 0


def measured(names: list[str], plan: Plan) -> list[Row]:
    """A section that fails says why in its place and stops no other."""
    rows: list[Row] = []
    with TemporaryDirectory(prefix="signalbox-bench-") as folder, ground(Path(folder)) as place:
        for name in names:
            print(f"measuring: {name}", flush=True)
            try:
                rows += SECTIONS[name](place, plan)
            except Exception as error:  # one section's trouble is a line of the table
                rows.append(missing("", name, f"{type(error).__name__}: {error}"[:300]))
    return rows


def machine() -> dict[str, str]:
    return {
        "system": platform.platform(),
        "python": platform.python_version(),
        "cpus": str(len(psutil.Process().cpu_affinity())),
        "memory_gb": f"{psutil.virtual_memory().total / (1 << 30):.1f}",
    }


if __name__ == "__main__":
    sys.exit(main())
