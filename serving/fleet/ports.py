"""The sockets of a server with several workers: one per worker on the same port, made by the parent.

The kernel spreads connections over them. The parent makes them and every worker inherits all: a queue of
accepted connections then outlives the worker that was to serve it, and another can take it over at once.
"""

import socket

from serving.core.errors import SignalboxError

BACKLOG = 2048


def listening(host: str, port: int, count: int) -> list[socket.socket]:
    """`count` listening sockets on one port; with port 0 on one that is free.

    Raises `SignalboxError` when somebody else has the port: sharing it with a stranger would send half
    of its callers to us.
    """
    _refuse_taken(host, port, "SIGNALBOX_PORT")
    sockets: list[socket.socket] = []
    for _ in range(count):
        made = _shared(host, port, "SIGNALBOX_PORT")
        made.listen(BACKLOG)
        made.setblocking(False)
        sockets.append(made)
        port = made.getsockname()[1]
    return sockets


def reserved(host: str, port: int, setting: str) -> socket.socket:
    """A socket that keeps a port for processes of ours, without taking a connection. Raises as above."""
    _refuse_taken(host, port, setting)
    return _shared(host, port, setting)


def _shared(host: str, port: int, setting: str) -> socket.socket:
    made = _new(host)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    _bind(made, host, port, setting)
    return made


def _refuse_taken(host: str, port: int, setting: str) -> None:
    with _new(host) as probe:  # one that does not share meets whoever is there
        _bind(probe, host, port, setting)


def _new(host: str) -> socket.socket:
    family = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
    made = socket.socket(family, socket.SOCK_STREAM)
    # A connection that lingers after a restart does not make a port busy.
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return made


def _bind(made: socket.socket, host: str, port: int, setting: str) -> None:
    try:
        made.bind((host, port))
    except OSError as error:
        made.close()
        raise SignalboxError(
            f"cannot listen on {host}:{port} ({error.strerror}); end what listens there, or set {setting}"
        ) from None
