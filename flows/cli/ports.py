"""Whether a port can be bound, and which process holds it when it cannot."""

import contextlib
import socket
from dataclasses import dataclass

import psutil


@dataclass(frozen=True, slots=True)
class Owner:
    """Who listens on a port; `pid` is None where the system does not tell."""

    pid: int | None
    name: str

    def __str__(self) -> str:
        return f"{self.name} (pid {self.pid})" if self.pid is not None else self.name


def port_owner(host: str, port: int) -> Owner | None:
    """None when `host:port` can be bound, else who has it."""
    if _can_bind(host, port):
        return None
    return _listener(port) or Owner(None, "a process of another user")


def _can_bind(host: str, port: int) -> bool:
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        with socket.socket(family, kind, protocol) as probe:
            # As the servers do: a connection that lingers after a restart does not make a port busy.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(address)
            except OSError:
                return False
    return True


def _listener(port: int) -> Owner | None:
    with contextlib.suppress(psutil.Error):
        for connection in psutil.net_connections(kind="tcp"):
            if connection.status != psutil.CONN_LISTEN or not connection.laddr:
                continue
            if connection.laddr.port == port and connection.pid is not None:
                return Owner(connection.pid, psutil.Process(connection.pid).name())
    return None
