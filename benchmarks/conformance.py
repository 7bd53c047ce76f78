"""The conformance suite against this server and against MLServer, both with the same digits network.

    python -m benchmarks.conformance

Prints each case beside the other's result; the reasons of what failed follow.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table

from benchmarks.ground import Ground, ground
from benchmarks.peers import MLSERVER
from benchmarks.row import Row, show
from tests.conformance.case import Outcome, Result
from tests.conformance.suite import CASES
from tests.conformance.target import Target

_WIDTH = 150


def conformance(place: Ground) -> list[Row]:
    with place.serving("conformance", place.digits.name) as serving:
        ours = _results(serving.url, place.digits.name, serving.key)
    with MLSERVER.start(place) as url:
        address, _, path = url.partition("/v2/models/")
        theirs = _results(address, path.removesuffix("/infer"))
    _print(ours, theirs)
    failed = sum(result.outcome is Outcome.FAILED for result in ours)
    what = f"conformance suite, {len(CASES)} cases, beside {MLSERVER.name}"
    return [Row("", what, _counts(ours), _counts(theirs), "", "0 failed", failed == 0)]


def _results(url: str, model: str, key: str = "") -> list[Result]:
    with Target(url, model, key) as target:
        return [case.run(target) for case in CASES]


def _counts(results: Sequence[Result]) -> str:
    return ", ".join(
        f"{sum(result.outcome is outcome for result in results)} {outcome}" for outcome in Outcome
    )


def _print(ours: Sequence[Result], theirs: Sequence[Result]) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("case", "", "ours", MLSERVER.name, "what it said"):
        table.add_column(column, overflow="fold")
    for case, mine, other in zip(CASES, ours, theirs, strict=True):
        said = [f"ours: {mine.reason}"] if mine.reason else []
        said += [other.reason] if other.reason else []
        table.add_row(f"{case.number:02}", case.title, mine.outcome, other.outcome, "; ".join(said))
    Console(width=_WIDTH, highlight=False, markup=False).print(table)


def main() -> int:
    with TemporaryDirectory(prefix="signalbox-conformance-") as folder, ground(Path(folder)) as place:
        rows = conformance(place)
    show(rows)
    return 0 if all(row.is_met for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
