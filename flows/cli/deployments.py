"""Applies prefect.yaml to the Prefect server: the deployments, their schedules and their triggers.

Called by `up`. Applying takes many seconds, so it is done only when the file, a flow or the server changed.
"""

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from flows.cli.console import say, warn
from flows.cli.errors import CommandFailed
from flows.cli.home import Home
from flows.cli.orchestration import POOL, Orchestration, orchestration
from flows.settings import FlowSettings, part_environment
from serving.store.durable import write_atomically

_APPLY_SECONDS = 180.0
_FLOWS = Path(__file__).parents[1]


def apply_deployments(home: Home, settings: FlowSettings) -> None:
    """Bring the server's deployments in line with prefect.yaml, unless they are."""
    file = prefect_file()
    with orchestration(settings) as prefect:
        _check_pool(prefect)
        digest = _digest(file)
        if _applied(home) == _present(prefect, digest):
            return
        say(f"{'flows':<9}deploying ... ", end="")
        _deploy(home, settings, file)
        present = _present(prefect, digest)
        write_atomically(_marker(home), json.dumps(present).encode())
        say(", ".join(sorted(present["deployments"])))


def prefect_file() -> Path:
    """In a checkout the file lies at the top; an installed package carries it beside this module."""
    here = Path(__file__).parent
    for folder in (here.parents[1], here):
        if (folder / "prefect.yaml").is_file():
            return folder / "prefect.yaml"
    raise CommandFailed("prefect.yaml is missing", next_step="reinstall the package")


def fault_in(output: str) -> str:
    """The line of a failed command's output that says why: its last error, else its last line."""
    lines = [" ".join(line.split()) for line in output.splitlines() if line.strip(" │╭╰─╮╯")]
    errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception|NotFound)\b", line)]
    return (errors or lines or ["no reason was given"])[-1][:300]


def _check_pool(prefect: Orchestration) -> None:
    pool = prefect.pool()
    if pool is not None and pool.kind != "process":
        problem = f"Prefect's work pool {POOL} is of type {pool.kind}, and flows run as processes"
        raise CommandFailed(problem, next_step="delete or rename that pool")
    if pool is not None and pool.paused:
        warn(f"Prefect's work pool {POOL} is paused: no flow runs until you resume it")


def _deploy(home: Home, settings: FlowSettings, file: Path) -> None:
    prefect = [sys.executable, "-P", "-m", "prefect", "--no-prompt"]
    command = [*prefect, "deploy", "--all", "--prefect-file", str(file)]
    log = home.log("deploy")
    problem = "the deployments of prefect.yaml could not be applied"
    try:
        done = subprocess.run(
            command,
            cwd=home.root,
            env=part_environment(settings),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_APPLY_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise CommandFailed(f"{problem} within {_APPLY_SECONDS:.0f} s") from None
    log.write_text(done.stdout + done.stderr)
    if done.returncode != 0:
        raise CommandFailed(f"{problem}: {fault_in(done.stdout + done.stderr)}", next_step=f"see {log}")


def _present(prefect: Orchestration, digest: str) -> dict[str, Any]:
    """What tells this server's deployments from another's, and from a server that lost them."""
    ids = prefect.deployment_ids()
    return {"digest": digest, "deployments": ids, "automations": prefect.automation_ids(set(ids.values()))}


def _applied(home: Home) -> Any:
    try:
        return json.loads(_marker(home).read_text())
    except (OSError, ValueError):
        return None


def _marker(home: Home) -> Path:
    return home.run / "deployments.json"


def _digest(file: Path) -> str:
    """Over the file and the flows, whose signatures are part of a deployment."""
    digest = hashlib.sha256(file.read_bytes())
    for flow in sorted(_FLOWS.glob("*.py")):
        digest.update(flow.name.encode() + b"\0" + flow.read_bytes())
    return digest.hexdigest()
