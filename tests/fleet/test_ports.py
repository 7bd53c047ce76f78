"""The sockets of a server with several workers: one port, and nobody else's."""

import socket

import pytest

from serving.core.errors import SignalboxError
from serving.fleet.ports import listening, reserved

HOST = "127.0.0.1"


def test_sockets_share_one_port_when_made_for_workers() -> None:
    """On a free one where none was chosen; all of them take connections."""
    made = listening(HOST, 0, 3)
    port = made[0].getsockname()[1]
    assert {one.getsockname()[1] for one in made} == {port}
    with socket.create_connection((HOST, port), timeout=5):
        assert sum(_accepts(one) for one in made) == 1
    for one in made:
        one.close()


def test_port_is_refused_when_somebody_listens_there() -> None:
    """Also another server of ours, which would share it otherwise."""
    [theirs] = listening(HOST, 0, 1)
    with theirs, pytest.raises(SignalboxError, match="SIGNALBOX_PORT"):
        listening(HOST, theirs.getsockname()[1], 2)


def test_reserved_port_is_kept_without_a_connection_when_nobody_serves_it() -> None:
    """Who asks too early is refused at once instead of waiting."""
    with reserved(HOST, 0, "SIGNALBOX_GRPC_PORT") as kept, pytest.raises(ConnectionRefusedError):
        socket.create_connection(kept.getsockname(), timeout=5)


def _accepts(one: socket.socket) -> bool:
    try:
        connection, _ = one.accept()
    except BlockingIOError:
        return False
    connection.close()
    return True
