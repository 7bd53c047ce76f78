"""The process supervisor of one home: its configuration, starting it, talking to it, ending it.

supervisord runs in a session of its own, takes commands over a Unix socket only and holds none of
the caller's streams. Parts are configured not to start by themselves: `up` starts them in order.
"""

import contextlib
import http.client
import os
import pwd
import re
import shlex
import socket
import subprocess
import sys
import xmlrpc.client
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import psutil

from flows.cli.errors import CommandFailed
from flows.cli.home import Home
from flows.cli.parts import Part
from flows.cli.waiting import wait_until
from flows.settings import FlowSettings, part_environment

_CALL_SECONDS = 10.0
_START_SECONDS = 20.0
# What its configuration file cannot carry, however it is quoted: comments, line ends, and what it
# takes for a placeholder, a varying number of times.
_UNWRITABLE = re.compile(r"%|\s[;#]|[\r\n]")

_SUPERVISOR = """\
[unix_http_server]
file = {socket}
chmod = 0700

[supervisord]
logfile = {log}
logfile_maxbytes = 5MB
logfile_backups = 3
pidfile = {pid_file}
childlogdir = {logs}
silent = true
nocleanup = true
{user}
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
"""

# Retries without end: the wait grows by a second each time, so a part that cannot start costs little.
_PART = """
[program:{name}]
command = {command}
environment = {environment}
autostart = false
autorestart = true
startsecs = 5
startretries = 1000000
stopwaitsecs = {stop_seconds}
stopasgroup = true
killasgroup = true
redirect_stderr = true
stdout_logfile = {log}
stdout_logfile_maxbytes = 10MB
stdout_logfile_backups = 5
"""


@dataclass(frozen=True, slots=True)
class PartState:
    """What the supervisor says of a part. `state` is its own word, in lower case."""

    name: str
    state: str
    pid: int | None


def configuration(home: Home, parts: Sequence[Part], settings: FlowSettings) -> str:
    """The text of supervisord's configuration file."""
    head = _SUPERVISOR.format(
        socket=_value(home.socket),
        log=_value(home.supervisor_log),
        pid_file=_value(home.supervisor_pid_file),
        logs=_value(home.logs),
        # Without it the supervisor logs a critical warning when the superuser starts it.
        user=f"user = {pwd.getpwuid(0).pw_name}\n" if os.geteuid() == 0 else "",
    )
    return head + "".join(_section(home, part, settings) for part in parts)


def start_supervisor(home: Home, parts: Sequence[Part], settings: FlowSettings) -> subprocess.Popen[bytes]:
    """Write the configuration and start supervisord; returns once it takes commands."""
    descriptor = os.open(home.supervisor_config, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(configuration(home, parts, settings))
    output = home.logs / "supervisord.out"
    with output.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "supervisor.supervisord", "-n", "-c", str(home.supervisor_config)],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
            env=part_environment(settings),
        )
    wait_until(lambda: process.poll() is not None or part_states(home) is not None, _START_SECONDS)
    if part_states(home) is None:
        reason = " ".join(output.read_text().split())[-300:]
        raise CommandFailed(f"the supervisor did not start: {reason}", next_step=f"see {output}")
    return process


def part_states(home: Home) -> dict[str, PartState] | None:
    """The supervised parts by name; None when no supervisor answers for this home."""
    try:
        with _remote(home) as remote:
            infos = cast(list[dict[str, Any]], remote.supervisor.getAllProcessInfo())
    except (OSError, http.client.HTTPException, xmlrpc.client.Error):
        return None
    return {
        str(info["name"]): PartState(str(info["name"]), str(info["statename"]).lower(), info["pid"] or None)
        for info in infos
    }


def start_part(home: Home, name: str) -> None:
    """Start a part, or leave it be when it is already on its way."""
    try:
        with _remote(home) as remote:
            remote.supervisor.startProcess(name, False)
    except xmlrpc.client.Fault as fault:
        if "ALREADY_STARTED" not in fault.faultString:
            problem = f"the supervisor cannot start {name}: {fault.faultString}"
            raise CommandFailed(problem, next_step=f"see {home.log(name)}") from None


def end_supervisor(home: Home, within_seconds: float) -> bool:
    """Have supervisord stop its parts and itself; False when none ran. Insists when it does not obey."""
    process = supervisor_process(home)
    if process is None:
        return False
    with (
        contextlib.suppress(OSError, http.client.HTTPException, xmlrpc.client.Error),
        _remote(home) as remote,
    ):
        remote.supervisor.shutdown()
    for insist in (process.terminate, process.kill):
        if wait_until(lambda: not _runs(process), within_seconds):
            break
        with contextlib.suppress(psutil.Error):
            insist()
    home.socket.unlink(missing_ok=True)
    return True


def supervisor_process(home: Home) -> psutil.Process | None:
    """This home's supervisord: the process its pid file names, if it runs with this home's configuration."""
    try:
        process = psutil.Process(int(home.supervisor_pid_file.read_text()))
        ours = str(home.supervisor_config) in process.cmdline()
    except (OSError, ValueError, psutil.Error):
        return None
    return process if ours and _runs(process) else None


def _runs(process: psutil.Process) -> bool:
    """A process that ended and was not collected by its parent does not run."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _section(home: Home, part: Part, settings: FlowSettings) -> str:
    launch = [sys.executable, "-P", "-m", "flows.cli.part", "--pid-file", str(home.pid_file(part.name)), "--"]
    return _PART.format(
        name=part.name,
        command=_value(shlex.join([*launch, *part.command(settings)])),
        environment=",".join(f'{name}="{value}"' for name, value in part.environment.items()),
        stop_seconds=part.stop_seconds,
        log=_value(home.log(part.name)),
    )


def _value(value: str | Path) -> str:
    if _UNWRITABLE.search(str(value)):
        problem = f"the supervisor cannot be told of {str(value)!r}"
        raise CommandFailed(
            problem, next_step="choose a SIGNALBOX_HOME without '%', ' ;', ' #' or line breaks"
        )
    return str(value)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_CALL_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_CALL_SECONDS)
        self.sock.connect(str(self._path))


class _UnixTransport(xmlrpc.client.Transport):
    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        connection = _UnixConnection(self._path)
        # Where the transport looks for what to close.
        self._connection = (host, connection)
        return connection


def _remote(home: Home) -> xmlrpc.client.ServerProxy:
    return xmlrpc.client.ServerProxy("http://localhost", transport=_UnixTransport(home.socket))
