"""Trains and registers the example as its reader would: the script as it is, against the stack's MLflow."""

import re
import subprocess
import sys
from pathlib import Path

from flows.cli.demo.settings import MODEL
from flows.cli.errors import CommandFailed
from flows.cli.waiting import wait_until
from flows.settings import FlowSettings, part_environment

_DEADLINE_SECONDS = 600.0
_NEEDED = ("1", "2", "3", "4", "5", "6", "7", "8")


def train(settings: FlowSettings, log: Path) -> str:
    """Register the versions the acts play with; what the script says of them."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, str(_script()), "--tracking-uri", settings.mlflow_url, "--model-name", MODEL],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=part_environment(settings),
            cwd=settings.home,
            start_new_session=True,
        )
    try:
        ended = wait_until(lambda: process.poll() is not None, _DEADLINE_SECONDS)
    finally:
        process.kill()
        process.wait()
    if not ended:
        problem = f"the example was not trained within {_DEADLINE_SECONDS:.0f} s"
        raise CommandFailed(problem, next_step=f"its log is {log}")
    said = registered(log.read_text(errors="replace"))
    missing = [version for version in _NEEDED if version not in said]
    if process.returncode != 0 or missing:
        lacking = f" without version {missing[0]}" if missing else ""
        problem = f"the example's training ended with exit code {process.returncode}{lacking}"
        raise CommandFailed(problem, next_step=f"its log is {log}")
    return "\n".join(said.values())


def registered(output: str) -> dict[str, str]:
    """What the script printed of each version, among the lines of the libraries it uses."""
    found = re.finditer(rf"^{MODEL} (version (\d+) .*)$", output, re.MULTILINE)
    return {line[2]: line[1].rstrip() for line in found}


def _script() -> Path:
    """In a checkout it lies in `examples/`; an installed package carries it beside the command line."""
    here = Path(__file__)
    for folder in (here.parents[3] / "examples" / "digits", here.parents[1] / "digits"):
        if (folder / "train.py").is_file():
            return folder / "train.py"
    raise CommandFailed("the example digits/train.py is missing", next_step="reinstall the package")
