"""Busy ports and their owners, with real sockets."""

import os
import socket

from flows.cli.ports import port_owner
from tests.mlflow_server import free_port


def test_port_owner_names_this_process_when_it_listens() -> None:
    """The owner of a busy port is found by number."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        owner = port_owner("127.0.0.1", listener.getsockname()[1])
    assert owner is not None
    assert owner.pid == os.getpid()


def test_port_owner_is_nobody_when_port_is_free() -> None:
    """A port nobody listens on can be bound."""
    assert port_owner("127.0.0.1", free_port()) is None
    assert port_owner("localhost", free_port()) is None
