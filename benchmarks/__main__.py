"""`python -m benchmarks`: measures, prints one table, and writes benchmarks/results.json.

Sections named by `--only` replace their lines of an earlier run; the others' stay in the table. Exit
code 1 where something could not be measured; a target that was missed is a line, no failure.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic

from benchmarks import wrk
from benchmarks.conformance import conformance
from benchmarks.ground import Ground, ground
from benchmarks.idle import idle
from benchmarks.loading import loading
from benchmarks.peers import BENTOML, LITSERVE, MLFLOW, MLSERVER, Peer
from benchmarks.promotion import promotion
from benchmarks.results import Measured, moment, read, write
from benchmarks.row import Row, attempted, show
from benchmarks.soak import soak
from benchmarks.swaps import memory, swaps
from benchmarks.tensors import tensors
from benchmarks.throughput import throughput
from benchmarks.ways_back import starting, ways_back

RESULTS = Path(__file__).parent / "results.json"


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how often to measure, and beside whom."""

    name: str
    seconds: float
    repeats: int
    moves: int
    memory_swaps: int
    sizes_mb: tuple[int, ...]
    idle_minutes: float
    soak_minutes: float
    peers: tuple[Peer, ...] = (MLSERVER, MLFLOW)


FULL = Plan("full", 5.0, 3, 100, 200, (34, 200, 1000), 10.0, 20.0)
QUICK = Plan("quick", 2.0, 2, 9, 20, (34, 200), 1.0, 0.5)

Section = Callable[[Ground, Plan], list[Row]]
SECTIONS: dict[str, Section] = {
    "throughput": lambda place, plan: throughput(
        place, seconds=plan.seconds, repeats=plan.repeats, peers=plan.peers
    ),
    "tensors": lambda place, plan: tensors(place, seconds=plan.seconds, repeats=plan.repeats),
    "swaps": lambda place, plan: swaps(
        place, moves=plan.moves, repeats=plan.repeats + 1, seconds=plan.seconds
    ),
    "loading": lambda place, plan: loading(place, sizes_mb=plan.sizes_mb),
    "memory": lambda place, plan: memory(place, count=plan.memory_swaps),
    "ways-back": lambda place, plan: ways_back(place, repeats=plan.repeats * 7),
    "starting": lambda place, plan: starting(place),
    "conformance": lambda place, plan: conformance(place),
    "promotion": lambda place, plan: promotion(place.folder, repeats=plan.repeats),
    "idle": lambda place, plan: idle(place.folder, minutes=plan.idle_minutes),
    "soak": lambda place, plan: soak(place, minutes=plan.soak_minutes, rate=100.0),
}


def main() -> int:
    arguments = _arguments()
    names = [name for name in SECTIONS if name in arguments.only and name not in arguments.without]
    if not arguments.show and not wrk.is_there():
        print("error: `wrk` is needed; install the Debian package of that name", file=sys.stderr)
        return 1
    plan = QUICK if arguments.quick else FULL
    if arguments.all_peers:
        plan = replace(plan, peers=(*plan.peers, LITSERVE, BENTOML))
    found = read(RESULTS, list(SECTIONS))
    if not arguments.show:
        found |= measured(names, plan, found)
    show(row for name in SECTIONS if name in found for row in found[name].rows)
    for name in SECTIONS:
        print(_line(name, found.get(name)))
    return 0 if all(name in found and found[name].is_whole for name in names) else 1


def measured(names: list[str], plan: Plan, before: dict[str, Measured]) -> dict[str, Measured]:
    """Every section is written as it ends, so that an interruption costs only the one under way."""
    found: dict[str, Measured] = {}
    with TemporaryDirectory(prefix="signalbox-bench-") as folder, ground(Path(folder)) as place:
        for name in names:
            print(f"measuring: {name}", flush=True)
            place.registry.server.start()  # where a section that failed left it stopped
            began_at, load = moment()
            began = monotonic()
            rows = attempted("", name, lambda name=name: SECTIONS[name](place, plan))  # type: ignore[misc]
            found[name] = Measured(began_at, monotonic() - began, load, plan.name, tuple(rows))
            write(RESULTS, before | found)
    return found


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    known = f"of {', '.join(SECTIONS)}"
    parser.add_argument("--only", type=_names, default=list(SECTIONS), help=f"sections {known}")
    parser.add_argument("--without", type=_names, default=[], help="sections to leave out, as `idle,soak`")
    parser.add_argument("--quick", action="store_true", help="shorter runs, for trying the benchmark itself")
    parser.add_argument("--all-peers", action="store_true", help="LitServe and BentoML too")
    parser.add_argument("--show", action="store_true", help="only print what was measured before")
    return parser.parse_args()


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in SECTIONS:
            raise argparse.ArgumentTypeError(f"'{name}' is none of {', '.join(SECTIONS)}")
    return names


def _line(name: str, section: Measured | None) -> str:
    if section is None:
        return f"{name:<12}never measured"
    told = f"{section.seconds:>5.0f} s, {section.plan}, at {section.began_at}, load {section.load:.1f}"
    return f"{name:<12}{told}{'' if section.is_whole else ', INCOMPLETE'}"


if __name__ == "__main__":
    sys.exit(main())
