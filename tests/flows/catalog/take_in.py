"""A pass over a generated folder of 40 good and 25 bad model files, and a second one; prints what came of it.

    python -m tests.flows.catalog.take_in

Starts an MLflow server of its own in a temporary home. The test of the same folder uses `passes`.
"""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

from flows.catalog.intake import COLUMNS, cells
from flows.catalog.scan import ScanReport, Watch, scan
from flows.cli.console import print_table
from flows.registering import means_of
from flows.settings import FlowSettings
from flows.wiring import wired
from serving.store.database import upgrade
from tests.mlflow_server import MlflowServer

ROOT = Path(__file__).parents[3]
_GENERATE_SECONDS = 240
_QUIET_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Pass:
    report: ScanReport
    seconds: float


def settings_for(home: Path, mlflow_url: str) -> FlowSettings:
    """Limits that the hanging and the hungry file meet soon."""
    return FlowSettings(
        home=home,
        mlflow_url=mlflow_url,
        model_quiet_seconds=_QUIET_SECONDS,
        register_seconds=10.0,
        register_memory_mb=1500.0,
    )


def generated(folder: Path) -> Mapping[str, Any]:
    """Fill the folder in a process of its own; the names, and why each bad one is bad."""
    program = [sys.executable, "-m", "tests.flows.catalog.model_folder", str(folder)]
    run = subprocess.run(
        program, cwd=ROOT, capture_output=True, text=True, timeout=_GENERATE_SECONDS, check=False
    )
    assert run.returncode == 0, run.stderr[-3000:]
    made: Mapping[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return made


def pause(seconds: float) -> None:
    """Files settle by lying there: there is nothing else to wait for."""
    threading.Event().wait(seconds)


def passes(settings: FlowSettings) -> Iterator[Pass]:
    """One pass after the other, each wired anew as a flow run is."""
    while True:
        started = perf_counter()
        with wired(settings) as wiring, means_of(wiring, "tests") as means:
            watch = Watch(settings.model_quiet_seconds, pause)
            report = scan(settings.model_folder_paths, means, watch, wiring.engine)
        yield Pass(report, perf_counter() - started)


def main() -> None:
    with TemporaryDirectory() as folder:
        server = MlflowServer(Path(folder))
        server.start()
        try:
            home = Path(folder) / "signalbox"
            settings = settings_for(home, server.url)
            upgrade(settings.database_url)
            generated(home / "models")
            for number, done in zip((1, 2), passes(settings), strict=False):
                found = sorted(done.report.outcomes, key=lambda outcome: (outcome.result, outcome.path))
                short = [[Path(row[0]).name, *row[1:]] for row in map(cells, found)]
                print_table(COLUMNS, short, empty="nothing new")
                print(f"pass {number}: {done.report.sentence}, in {done.seconds:.2f} s\n", flush=True)
        finally:
            server.stop()


if __name__ == "__main__":
    main()
