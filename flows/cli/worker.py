"""Becomes the Prefect worker of a home: `python -m flows.cli.worker NAME`.

The supervisor starts it once nothing of an earlier one lives. Runs that Prefect still believes to be
carried out were ended with that worker; they are declared crashed, or they would show as running for ever.
"""

import hashlib
import os
import socket
import sys
from datetime import UTC, datetime

import psutil

from flows.cli.errors import CommandFailed
from flows.cli.home import Home
from flows.cli.orchestration import POOL, Worker, orchestration
from flows.cli.sessions import read_leader
from flows.settings import FlowSettings, is_loopback, url_host


def main(arguments: list[str]) -> None:
    if len(arguments) != 1:
        sys.exit("usage: python -m flows.cli.worker NAME")
    settings = FlowSettings()
    # Runs begin where their worker does: in the user's folder, one called `flows` would stand in for ours.
    os.chdir(settings.home)
    try:
        declare_abandoned(settings, arguments[0])
    except CommandFailed as error:
        # The worker itself waits for a server that is not there yet.
        print(f"runs of an earlier worker were not looked for: {error}", flush=True)
    become = [sys.executable, "-P", "-m", "prefect", "worker", "start"]
    os.execv(sys.executable, [*become, "--pool", POOL, "--type", "process", "--name", arguments[0]])


def worker_name(settings: FlowSettings) -> str:
    """The same over restarts, and another for another home on one server."""
    home = hashlib.sha256(os.fsencode(settings.home)).hexdigest()[:8]
    return f"signalbox-{socket.gethostname()}-{home}"


def worker_command(settings: FlowSettings) -> list[str]:
    return [sys.executable, "-P", "-m", "flows.cli.worker", worker_name(settings)]


def worker_is_ready(settings: FlowSettings) -> bool:
    """Whether the worker of this home has shown itself to Prefect since it was started."""
    leader = read_leader(Home(settings.home).pid_file("worker"))
    if leader is None:
        return False
    since = datetime.fromtimestamp(leader.started_seconds + psutil.boot_time(), UTC)
    try:
        with orchestration(settings) as prefect:
            ours = [worker for worker in prefect.workers() if worker.name == worker_name(settings)]
    except CommandFailed:
        return False
    # Another machine's clock cannot be compared with ours.
    same_clock = is_loopback(url_host(settings.prefect_api_url))
    return any(worker.online and (not same_clock or _beat_after(worker, since)) for worker in ours)


def declare_abandoned(settings: FlowSettings, name: str) -> int:
    """End, in Prefect's records, the runs of this pool that no living worker can have; how many."""
    with orchestration(settings) as prefect:
        if any(worker.online and worker.name != name for worker in prefect.workers()):
            return 0
        abandoned = prefect.begun_runs()
        for run in abandoned:
            prefect.declare_crashed(run, "its worker ended while it ran")
    return len(abandoned)


def _beat_after(worker: Worker, since: datetime) -> bool:
    return worker.beat_at is not None and worker.beat_at >= since


if __name__ == "__main__":
    main(sys.argv[1:])
