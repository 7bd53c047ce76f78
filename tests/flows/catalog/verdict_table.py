"""`signalbox validate` on every version of `versions.py`, against a real MLflow server.

    python -m tests.flows.catalog.verdict_table

prints one row per version: what the command said, how it ended, and how long it took.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import httpx

from flows.cli.console import print_table
from flows.settings import FlowSettings, part_environment
from serving.store.database import upgrade
from tests.flows.catalog.registered import Model
from tests.flows.catalog.versions import CASES, CHAMPION_SHARE, MEMORY_MB, Case, evaluation_set, right_share
from tests.mlflow_server import MlflowServer

COLUMNS = ("version", "verdict", "exit", "seconds", "why")
COMMAND_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Said:
    """What the command left: the report it printed and its exit code."""

    report: dict[str, Any]
    exit_code: int
    seconds: float

    def message(self, check: str) -> str:
        found: str = next(each["message"] for each in self.report["checks"] if each["name"] == check)
        return found

    @property
    def verdict(self) -> str:
        verdict: str = self.report["verdict"]
        return verdict


@dataclass(frozen=True, slots=True)
class Bench:
    """A registered champion with an evaluation set, and the settings commands run with."""

    model: Model
    settings: FlowSettings
    folder: Path

    def add(self, case: Case) -> str:
        return self.model.add(case.make(self.folder / case.name.replace(" ", "-")))

    def validate(self, version: str, *arguments: str) -> Said:
        command = [sys.executable, "-P", "-m", "flows.cli.main", "validate", self.model.name, version]
        started = monotonic()
        done = subprocess.run(
            [*command, "--json", *arguments],
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
            env=part_environment(self.settings) | {"PYTHONPATH": str(Path(__file__).parents[3])},
        )
        if not done.stdout:
            raise AssertionError(f"no report, but: {done.stderr}")
        return Said(json.loads(done.stdout), done.returncode, monotonic() - started)


@contextmanager
def bench(mlflow_url: str, folder: Path, name: str = "verdicts") -> Iterator[Bench]:
    """The champion is right on 90 % of 2,000 rows."""
    settings = FlowSettings(home=folder / "home", mlflow_url=mlflow_url, validation_memory_mb=MEMORY_MB)
    settings.home.mkdir(parents=True, exist_ok=True)
    upgrade(settings.database_url)
    with httpx.Client(base_url=mlflow_url, trust_env=False) as client:
        model = Model(client, name)
        model.point(model.add(right_share(folder / "champion", CHAMPION_SHARE)))
        run = model.run_with(evaluation_set(folder / "set"))
        model.declare(f"runs:/{run}/sets/evaluation.npz")
        yield Bench(model, settings, folder)


def row(case: Case, said: Said) -> list[str]:
    why = f"{case.check.replace('_', ' ')}: {said.message(case.check)}"
    return [case.name, said.verdict, str(said.exit_code), f"{said.seconds:.1f}", why]


def main() -> None:
    with tempfile.TemporaryDirectory() as home:
        server = MlflowServer(Path(home) / "mlflow")
        server.start()
        try:
            with bench(server.url, Path(home)) as place:
                rows = [row(case, place.validate(place.add(case))) for case in CASES]
        finally:
            server.stop()
    print_table(COLUMNS, rows, empty="no versions")


if __name__ == "__main__":
    main()
